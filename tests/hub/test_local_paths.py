"""Paths of this machine in what is published: what is none stays, and where they are looked for."""

import json

import pytest
from huggingface_hub import ModelCard

from hub import publish_model
from hub.local_paths import find_paths, without_paths
from tests.publishing import NAME, change_json, dry_run, start_from
from training import runner


def test_what_is_no_path_stays(own):
    texts = [
        "https://huggingface.co/docs/hub",
        "1/2",
        "Győr/Raab",
        "and/or",
        "km/h",
        "/",
        "a.b",
        "bert",
        "~5 %",
        ": /s",
    ]
    change_json(own / "results.json", lambda values: values.update(notes=texts))
    before = {name: (own / "finetune" / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    folder = dry_run(own)
    assert json.loads((folder / "results.json").read_text())["notes"] == texts
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_answers_and_tokens_are_data(own):
    def add_answer(values):
        values["relations"][0]["candidates"].append("/usr/bin/Rome")

    change_json(own / "finetune" / "facts.json", add_answer)
    assert "/usr/bin/Rome" in json.loads((dry_run(own) / "facts.json").read_text())["relations"][0]["candidates"]


def test_a_checkpoint_says_nothing_of_the_machine(run, hub, tiny_model, tmp_path):
    model = tiny_model()
    model.config.notes = {"from": "/home/alice/base"}
    model.generation_config.notes = ["/home/alice/base"]
    target = publish_model.HubTarget(NAME, checkpoints=True)
    target.open()
    target.push_checkpoint(model, runner.load_tokenizer(run / "finetune"), "pretrain", 3)
    files = hub.files(NAME, "checkpoints")
    assert json.loads(files["config.json"])["notes"] == {"from": "base"}
    assert not [name for name, content in files.items() if b"alice" in content]


def test_a_folder_that_looks_like_an_id_is_a_folder(own, tmp_path):
    (tmp_path / "alice" / "base").mkdir(parents=True)
    start_from(own, "alice/base")
    folder = dry_run(own)  # not from where the run was started, but that is above the run
    assert json.loads((folder / "results.json").read_text())["start_from"] == "base"
    assert ModelCard.load(folder / "README.md").data.base_model is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("PATH=/home/alice/bin:/usr/local/lib", "PATH=bin:lib"),
        ("key:/home/alice/x, </home/alice/y>", "key:x, <y>"),
        ("cache in ~/alice/hub/, model in (C:\\Users\\alice\\base)", "cache in hub, model in (base)"),
        ("git@host:/home/alice/x.git", "git@host:x.git"),
        ("from \\\\server\\alice\\base and file:///home/alice/y.", "from base and y."),
        (
            "see https://alice.example/home/bob/x or a/b/c of 1/2",
            "see https://alice.example/home/bob/x or a/b/c of 1/2",
        ),
    ],
)
def test_paths_inside_a_sentence(text, wanted, tmp_path):
    assert without_paths(text, find_paths([text], tmp_path)) == wanted
