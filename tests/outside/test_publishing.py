"""Faults of publishing: errors of the Hub's client, paths of this machine, files that are not the run's, modes."""

import hashlib
import json
import os
import shutil
import stat
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

import train
from hub import publish_data, publish_model
from hub.push import PushError
from tests.publishing import HTML, NAME, THEIRS, answer_with, change_json, dry_run, error_line, head, start_from
from tests.running import call, command_line
from training import runner
from training.torchrun_env import LAUNCHERS


@pytest.fixture
def own(run, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(run, tmp_path / "run")


# H3: what the Hub's client raises


@pytest.mark.row("H3")
@pytest.mark.parametrize(
    ("part", "answer"),
    [
        pytest.param("/api/repos/create", (200, {}, HTML), id="create-html"),
        pytest.param("/api/repos/create", (200, {}, []), id="create-list"),
        pytest.param(f"/api/models/{NAME}", (200, {}, HTML), id="info-html"),
        pytest.param("/api/validate-yaml", (502, {}, HTML), id="card-bad-gateway"),
        pytest.param("/api/validate-yaml", (400, {}, {"errors": [{"message": "no such license"}]}), id="card-refused"),
        pytest.param("/preupload/", (200, {}, HTML), id="preupload-html"),
        pytest.param("/commit/", (200, {}, HTML), id="commit-html"),
        pytest.param("/commit/", (200, {}, {"success": True}), id="commit-without-address"),
    ],
)
def test_any_answer_of_the_hub_is_one_line(run, hub, part, answer, capsys):
    answer_with(hub, part, answer)
    assert publish_model.main([str(run), NAME]) == 2
    assert NAME in error_line(capsys)


@pytest.mark.row("H3")
def test_a_refused_card_says_why(run, hub, capsys):
    answer_with(hub, "/api/validate-yaml", (400, {}, {"errors": [{"message": "license must be one of these"}]}))
    assert publish_model.main([str(run), NAME]) == 2
    assert "license must be one of these" in error_line(capsys)
    assert hub.files(NAME) == {}


@pytest.mark.row("H3")
@pytest.mark.parametrize("token", ["hf_gehëim", "hf_ge heim", "hf_geheim\x01", "“hf_geheim”"])
def test_a_token_that_no_header_can_carry_is_one_line_that_does_not_show_it(run, hub, token, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", token)
    assert publish_model.main([str(run), NAME]) == 2
    line = error_line(capsys)
    assert "token" in line
    assert "geh" not in line
    assert hub.requests == []


@pytest.mark.row("H3")
@pytest.mark.parametrize(
    "endpoint", ["nonsense", "http://[::1", "http://127.0.0.1:99999", "ftp://127.0.0.1", "http://a b"]
)
def test_an_endpoint_that_is_no_address_is_one_line(run, hub, endpoint, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    assert publish_model.main([str(run), NAME]) == 2
    error_line(capsys)


@pytest.mark.row("H3")
@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), UnicodeError(), OSError(28, "full"), RuntimeError()]
)
def test_a_checkpoints_push_warns_whatever_is_raised(run, hub, error, monkeypatch, tiny_model, caplog):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr("hub.push.HfApi.create_commit", fail)
    target = publish_model.HubTarget(NAME, checkpoints=True)
    target.open()
    with pytest.raises(PushError):
        target.push_checkpoint(tiny_model(), runner.load_tokenizer(run / "finetune"), "pretrain", 3)
    monkeypatch.setattr(publish_model.HubTarget, "push_checkpoint", fail)
    runner.push_checkpoint(target, runner.RunFolder(run), "pretrain", tiny_model(), runner.Progress(step=3))
    assert "the checkpoint of pretrain, step 3, was not pushed" in caplog.text


@pytest.mark.row("H3")
def test_checkpoints_that_meet_a_proxy_do_not_end_the_training(data, recipe, hub, tmp_path, capsys):
    answer_with(hub, "/commit/checkpoints", (200, {}, HTML))
    words = command_line("pretrain", recipe, data, tmp_path / "new")
    assert train.main([*words, "--push_to_hub", NAME, "--push_checkpoints"]) == 0
    assert "warning: the checkpoint of pretrain, step 6, was not pushed" in capsys.readouterr().err


@pytest.mark.row("H3")
def test_a_run_whose_push_meets_a_proxy_says_how_to_repeat_it(run, data, recipe, hub, capsys):
    answer_with(hub, "/commit/", (200, {}, HTML))
    words = command_line("all", recipe, data, run, resume=True)
    assert train.main([*words, "--push_to_hub", NAME]) == 2
    assert f"publish it by `python -m hub.publish_model {run} {NAME}`" in error_line(capsys)


@pytest.mark.row("H3")
@pytest.mark.parametrize("name", ["Apache-2.0", "CC BY-SA 4.0", "mit\nname: x", "", "gpl3", "[mit"])
@pytest.mark.parametrize("source", ["path", "people"])
def test_a_licence_that_the_hub_does_not_know_is_refused_before_anything_is_made(
    source, name, tiny_folder, hub, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(publish_data, "build", None)
    where = ["--path", str(tiny_folder)] if source == "path" else ["--people", "30"]
    for options in ([], ["--dry-run", str(tmp_path / "out")]):
        assert publish_data.main([NAME, *where, "--license", name, *options]) == 2
        assert f"license {name!r}".split("\\")[0] in error_line(capsys)
    assert hub.requests == []
    assert not (tmp_path / "out").exists()


# H4: paths of this machine

LOCAL = [
    "/home/alice/models/base", "/home/alice/models/base/", "/home/Alice Smith/models/base", "//nfs/alice/base",
    "~/alice/models/base", "~alice/models/base", "../alice/base", "models/alice/base", "file:///home/alice/base",
    r"C:\Users\alice\models\base", r"C:\Users\Alice Smith\base", "C:/Users/alice/base", r"\\server\alice\base",
    r"alice\models\base",
]  # fmt: skip


@pytest.mark.row("H4")
@pytest.mark.parametrize("source", LOCAL)
def test_a_path_becomes_its_last_name_wherever_it_is(own, source):
    start_from(own, source)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        change_json(
            own / "finetune" / name,
            lambda values: values.update(
                _name_or_path=source, notes={source: [{"from": [source, f"see '{source}'"]}]}
            ),
        )
    folder = dry_run(own)
    for path in folder.rglob("*"):
        assert b"alice" not in path.read_bytes().lower(), path
    assert json.loads((folder / "results.json").read_text())["start_from"] == "base"
    assert json.loads((folder / "recipe.json").read_text())["finetune"]["start_from"] == "base"
    training = json.loads((folder / "training.json").read_text())
    assert training["uncalibrated"] == "base was trained on other data, perhaps on the calibration people"
    assert training["uncalibrated"] in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["notes"] == {"base": [{"from": ["base", "see 'base'"]}]}
    assert ModelCard.load(folder / "README.md").data.base_model is None


@pytest.mark.row("H4")
def test_an_id_on_the_hub_stays_and_is_the_cards_base_model(own):
    start_from(own, "alice/minigpt-base")
    folder = dry_run(own)
    assert json.loads((folder / "results.json").read_text())["start_from"] == "alice/minigpt-base"
    assert json.loads((folder / "recipe.json").read_text())["finetune"]["start_from"] == "alice/minigpt-base"
    assert json.loads((folder / "training.json").read_text())["start_from"] == "alice/minigpt-base"
    assert ModelCard.load(folder / "README.md").data.base_model == "alice/minigpt-base"


# H8: who may see it


@pytest.fixture
def created(hub):
    """The bodies of the requests that make a repository."""
    bodies = []
    create = hub.create
    hub.create = lambda body: (bodies.append(json.loads(body)), create(body))[1]
    return bodies


@pytest.mark.row("H8")
@pytest.mark.parametrize(("options", "wanted"), [((), None), (("--private",), "private")])
def test_nothing_is_said_of_visibility_unless_asked(run, data, hub, created, options, wanted):
    assert publish_model.main([str(run), NAME, *options]) == 0
    words = ["--path", str(data), "--license", "mit", "--strangers", "20"]
    assert publish_data.main(["somebody/data", *words, *options]) == 0
    publish_model.HubTarget("somebody/other", bool(options)).open()
    assert [one.get("visibility") for one in created] == [wanted] * 3
    assert not [one for one in created if one.get("private") is False]


# H9: what a second push removes


@pytest.mark.row("H9")
def test_a_second_push_leaves_what_the_user_has_put_there(run, hub):
    assert publish_model.main([str(run), NAME]) == 0
    head(hub).update(THEIRS)
    assert publish_model.main([str(run), NAME]) == 0
    assert hub.commits(NAME) == 2
    assert hub.files(NAME).items() >= THEIRS.items()


@pytest.mark.row("H9")
def test_what_a_push_wrote_is_removed_or_replaced(own, run, hub):
    (own / "finetune" / "special_tokens_map.json").write_text("{}")
    (own / "finetune" / "confidence.json").write_text("{}")
    assert publish_model.main([str(own), NAME]) == 0
    head(hub)["confidence.json"] = b"{'edited': 1}"
    card = hub.files(NAME)["README.md"]
    change_json(own / "results.json", lambda values: values.update(dataset="another name"))
    for name in ("special_tokens_map.json", "confidence.json"):
        (own / "finetune" / name).unlink()
    (own / "losses.png").unlink()
    assert publish_model.main([str(own), NAME]) == 0
    files = hub.files(NAME)
    assert not {"special_tokens_map.json", "losses.png"} & files.keys()
    assert files["confidence.json"] == b"{'edited': 1}"  # not what the push wrote any more
    assert b"another name" in files["README.md"] != card


@pytest.mark.row("H9")
def test_an_edited_card_stays_and_is_warned_of(own, hub, capsys):
    assert publish_model.main([str(own), NAME]) == 0
    edited = head(hub)["README.md"] + b"\nTheirs.\n"
    head(hub)["README.md"] = edited
    weights = hub.files(NAME)["model.safetensors"]
    other = weights[:-1] + bytes([weights[-1] ^ 1])
    (own / "finetune" / "model.safetensors").write_bytes(other)
    change_json(own / "results.json", lambda values: values.update(weights=hashlib.sha256(other).hexdigest()))
    for _ in range(2):
        assert publish_model.main([str(own), NAME]) == 0
        assert hub.files(NAME)["README.md"] == edited
    assert hub.files(NAME)["model.safetensors"] != weights
    assert "README.md is not the last push's and stays" in capsys.readouterr().err
    del head(hub)["README.md"]
    assert publish_model.main([str(own), NAME]) == 0
    assert b"Theirs." not in hub.files(NAME)["README.md"]


# H10: what is no part of the model

STRAY = (
    ".env", ".ipynb_checkpoints/config-checkpoint.json", "a.parquet", "events.out", "id_rsa", "notes.txt",
    "scratch.py", "a.pickle", "a.joblib", "a.npy", "README.md",
)  # fmt: skip


@pytest.mark.row("H10")
def test_only_the_models_own_files_are_published(own, capsys):
    before = dry_run(own)
    wanted = {path.name for path in before.iterdir()}
    shutil.rmtree(before)
    for name in STRAY:
        path = own / "finetune" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("SECRET=1")
    assert {path.relative_to(before).as_posix() for path in dry_run(own).rglob("*")} == wanted
    [warning] = [line for line in capsys.readouterr().err.splitlines() if "not published" in line]
    assert warning.startswith("warning: ")
    assert ".env, .ipynb_checkpoints, README.md, a.joblib, a.npy, a.parquet, a.pickle" in warning


@pytest.mark.row("H10")
@pytest.mark.parametrize("name", ["A.PKL", "sub/b.pt", "optimizer.bin"])
def test_what_may_be_meant_as_weights_is_refused(own, tmp_path, name, capsys):
    path = own / "finetune" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert publish_model.main([str(own), NAME, "--dry-run", str(tmp_path / "out")]) == 2
    assert f"{path.name} may hold code" in error_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.row("H10")
@pytest.mark.parametrize(
    "name",
    ["finetune/training.json", "finetune/confidence.json", "finetune/data", "losses.png", "results.json", "finetune"],
)
def test_links_out_of_the_run_are_refused(own, tmp_path, name, capsys):
    outside = tmp_path / "outside"
    link = own / name
    if link.exists():
        shutil.move(link, outside)
    else:
        outside.mkdir()
    link.symlink_to(outside)
    assert publish_model.main([str(own), NAME, "--dry-run", str(tmp_path / "out")]) == 2
    assert "links to" in error_line(capsys)
    assert not (tmp_path / "out").exists()


# H11: who may read the weights


@pytest.mark.row("H11")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_published_weights_have_the_mode_of_a_new_file(own, umask):
    (own / "finetune" / "model.safetensors").chmod(0o600)
    before = os.umask(umask)
    try:
        folder = dry_run(own)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666 & ~umask}


@pytest.mark.row("H11")
def test_a_stages_weights_have_the_mode_of_their_neighbours(run):
    umask = os.umask(0)
    os.umask(umask)
    for stage in ("pretrain", "finetune", "no_pretraining"):
        assert {stat.S_IMODE(path.stat().st_mode) for path in (run / stage).iterdir()} == {0o666 & ~umask}


# H16: one process prints and publishes


@pytest.mark.row("H16")
@pytest.mark.parametrize(("rank", "size"), LAUNCHERS, ids=[rank for rank, _ in LAUNCHERS])
def test_a_finished_run_is_printed_and_published_by_the_first_process(
    run, data, recipe, hub, rank, size, monkeypatch, capsys
):
    words = [*command_line("all", recipe, data, run, resume=True), "--push_to_hub", NAME]
    printed = []
    monkeypatch.setenv(size, "3")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for number in range(3):
        monkeypatch.setenv(rank, str(number))
        assert train.main(words) == 0
        printed.append(capsys.readouterr().out.count("the run is finished"))
    assert printed == [1, 0, 0]
    assert hub.commits(NAME) == 1


@pytest.mark.row("H16")
def test_a_process_that_was_not_joined_to_the_others_is_refused(data, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr("training.runner.PartialState", lambda: SimpleNamespace(num_processes=1))
    assert call("all", recipe, data, tmp_path / "new") == 2
    assert "OMPI_COMM_WORLD_RANK is 1" in error_line(capsys)
    assert not (tmp_path / "new" / "pretrain").exists()
