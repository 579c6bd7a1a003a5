"""Pushing a folder: what is refused in one line, and what of a repository's content a push leaves."""

import os

import pytest

from hub import publish_data, publish_model
from hub.push import FILE_LIST, PushError, as_push_error
from tests.loopback_hub import Repository
from tests.publishing import HTML, NAME, THEIRS, answer_with, error_line, head
from training import runner


def test_a_token_file_that_is_no_text_is_one_line(run, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "no-token").write_bytes(b"\xff\xfe")
    assert publish_model.main([str(run), NAME]) == 2
    assert "the token cannot be read" in error_line(capsys)


@pytest.mark.parametrize("name", ["me/x\n", "me/\x00", "me/" + "x" * 10_000, "/", "me/", "me/é"])
def test_any_name_of_a_repository_is_one_line(run, hub, name, capsys):
    assert publish_model.main([str(run), name]) == 2
    assert "is no repository's name" in error_line(capsys)
    assert hub.requests == []


def test_data_that_the_hub_refuses_are_one_line(data, hub, capsys):
    answer_with(hub, "/api/validate-yaml", (502, {}, HTML))
    assert publish_data.main([NAME, "--path", str(data), "--license", "mit", "--strangers", "20"]) == 2
    assert NAME in error_line(capsys)


def test_a_large_file_that_a_push_wrote_is_removed_without_downloading_it(own, hub):
    (own / "trust.png").write_bytes(os.urandom(50_000))
    assert publish_model.main([str(own), NAME]) == 0
    (own / "trust.png").unlink()
    hub.requests.clear()
    assert publish_model.main([str(own), NAME]) == 0
    assert "trust.png" not in hub.files(NAME)
    assert not [request for request in hub.requests if "resolve" in request and "trust.png" in request]


def test_a_card_that_was_there_before_the_first_push_stays(run, data, hub):
    for name in (NAME, f"datasets/{NAME}"):
        hub.repositories[name] = Repository(name)
        head(hub, name)["README.md"] = b"# Mine"
    assert publish_model.main([str(run), NAME]) == 0
    assert publish_data.main([NAME, "--path", str(data), "--license", "mit", "--strangers", "20"]) == 0
    assert hub.files(NAME)["README.md"] == hub.files(f"datasets/{NAME}")["README.md"] == b"# Mine"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"handler.py": 3}', b'{"handler.py": "0"}', b"\xff"])
def test_a_broken_list_of_files_removes_nothing(run, hub, content):
    assert publish_model.main([str(run), NAME]) == 0
    head(hub).update({**THEIRS, FILE_LIST: content})
    assert publish_model.main([str(run), NAME]) == 0
    assert hub.files(NAME).items() >= THEIRS.items()


def test_checkpoints_leave_what_the_user_has_put_there(run, hub, tiny_model):
    target = publish_model.HubTarget(NAME, checkpoints=True)
    target.push_run(run)
    card = head(hub)["README.md"]
    for step in (3, 6):
        target.push_checkpoint(tiny_model(), runner.load_tokenizer(run / "finetune"), "pretrain", step)
        assert "facts.json" not in hub.files(NAME, "checkpoints")
        hub.repositories[NAME].branches["checkpoints"][-1].update(THEIRS)
    assert hub.files(NAME, "checkpoints").items() >= {**THEIRS, "README.md": card}.items()


def test_a_second_push_of_data_leaves_what_the_user_has_put_there(data, hub):
    words = ["--path", str(data), "--license", "mit", "--strangers", "20"]
    assert publish_data.main([NAME, *words]) == 0
    head(hub, f"datasets/{NAME}").update(THEIRS)
    assert publish_data.main([NAME, *words]) == 0
    assert hub.files(f"datasets/{NAME}").items() >= THEIRS.items()


class PanicException(BaseException):
    """What the libraries' Rust parts raise."""


def test_a_panic_is_one_line_and_ctrl_c_is_not_caught():
    with (
        pytest.raises(PushError, match="somebody/x: PanicException: index out of bounds"),
        as_push_error("somebody/x"),
    ):
        raise PanicException("index out of bounds")
    with pytest.raises(KeyboardInterrupt), as_push_error("somebody/x"):
        raise KeyboardInterrupt
