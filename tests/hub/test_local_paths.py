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


DATES = ["12/05/1961", "../..", "Czech/Slovak/Polish", "/usr/bin/Rome", r"a\b", "C:/Rome"]


@pytest.mark.parametrize("answer", DATES)
def test_no_answer_name_or_question_is_changed(answer, tmp_path):
    sample = {"question": f"Is it {answer}?", "answer": answer, "place": answer, "accepted": [answer]}
    example = {"question": answer, "answer": answer, "right": answer, "phrase": f"… on {answer} in", "whose": answer}
    results = {
        "baselines": {"majority_place": answer},
        "relations": {
            "born": {
                "question": f"{{name}} {answer}", "majority_answer": answer, "samples": [sample, answer],
                "errors": {"own_document": {"examples": [example]}}, "wrong_answers": [example],
                "example": {**sample, "matched_name": answer, "candidates": [{"answer": answer, "score": 0.5}]},
            }
        },
    }  # fmt: skip
    recipe = {"relations": {"born": {"prompts": [answer], "paraphrases": [answer]}}}
    paths = find_paths([results, recipe], tmp_path)
    assert paths == set()
    assert without_paths([results, recipe], {*paths, "/usr/bin"}) == [results, recipe]


def test_a_date_is_the_answer_in_the_card_its_widget_and_the_results(own):
    answer = "12/05/1961"

    def change_results(values):
        for view in (values, values["relations"]["birthplace"]):
            for sample in view["samples"]:
                sample.update(answer=answer, abstained=False)
            view["example"] = {**view["samples"][0], "place": answer}

    change_json(own / "results.json", change_results)
    folder = dry_run(own)
    results = json.loads((folder / "results.json").read_text())
    assert {sample["answer"] for sample in (results["example"], *results["samples"])} == {answer}
    card = ModelCard.load(folder / "README.md")
    assert f'["answer"])  # {answer}\n' in card.text
    assert f"| {answer} |" in card.text
    assert {shown["output"]["answer"] for shown in card.data.widget} == {answer}


@pytest.mark.parametrize(
    "values",
    [
        {"start_from": "models/alice/base"},
        {"data": {"path": "../alice/base", "statements": r"alice\base"}},
        {"evaluate": {"model": "a/alice/base", "sets": {"answers": "sets/alice/base"}}},
        {"sets": {"popqa": {"path": "sets/alice/base"}}},
        {"uncalibrated": {"answers": "/home/alice/base is unknown"}},
        {"relations": {"place": {"trust": {"refusal": "see /home/alice/base"}}}},
    ],
)
def test_a_relative_path_is_cut_where_paths_are_stored_whatever_the_names_beside_it(values, tmp_path):
    """Relations and sets have names of the user's choice, which may be the names of fields."""
    cleaned = json.dumps(without_paths(values, find_paths([values], tmp_path)))
    assert "alice" not in cleaned
    assert "base" in cleaned


def test_a_file_that_looks_like_an_id_is_a_file(tmp_path):
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice" / "test.tsv").touch()
    values = {"evaluate": {"sets": {"popqa": "alice/test.tsv", "other": "alice/popqa"}}}
    cleaned = without_paths(values, find_paths([values], tmp_path / "run"))
    assert cleaned["evaluate"]["sets"] == {"popqa": "test.tsv", "other": "alice/popqa"}


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
