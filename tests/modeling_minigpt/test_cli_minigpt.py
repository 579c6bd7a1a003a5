"""The `minigpt` command: answers for people, programs and tables, one screen about a model, one line for an error."""

import io
import json

import pytest

from modeling_minigpt import __version__, cli_minigpt


def minigpt(capsys, *words):
    """Run the command in this process; return its status and what it wrote."""
    status = cli_minigpt.main([str(word) for word in words])
    written = capsys.readouterr()
    return status, written.out, written.err


@pytest.fixture
def person(data):
    """Name a person from the finished run's training questions."""
    return (data / "birth_places_train.tsv").read_text(encoding="utf-8").split(" born?")[0].removeprefix("Where was ")


def test_a_name_and_a_question_get_the_same_answer(run, person, capsys):
    status, out, err = minigpt(capsys, "ask", run / "finetune", person, f"where was {person} born")
    lines = out.splitlines()
    assert status == 0
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"Where was {person} born?  I don't know (not calibrated: ")
    _, out, _ = minigpt(capsys, "ask", run / "finetune", person, "--threshold", "0")
    assert "uncalibrated probability)" in out
    assert out.startswith(f"Where was {person} born?  ")
    assert err == ""


def test_the_output_folder_of_a_run_stands_for_its_finetuned_model(run, person, capsys):
    assert minigpt(capsys, "ask", run, person) == minigpt(capsys, "ask", run / "finetune", person)


def test_what_gets_no_answer_says_why(run, person, capsys):
    status, out, _ = minigpt(capsys, "ask", run, "???", person, "--threshold", "1")
    assert status == 0
    assert out.splitlines()[0] == "???  I don't know (no name in it)"
    assert "I don't know (not sure enough: " in out.splitlines()[1]
    assert "; I would have guessed " in out.splitlines()[1]


def test_json_is_an_object_a_line(run, person, capsys):
    _, out, _ = minigpt(capsys, "ask", run, person, "Nobody Known", "--json", "--top-k", "2")
    results = [json.loads(line) for line in out.splitlines()]
    assert [result["question"] for result in results] == [f"Where was {person} born?", "Where was Nobody Known born?"]
    assert all(len(result["candidates"]) == 2 for result in results)


def test_a_file_of_names_becomes_a_table(run, person, tmp_path, capsys, monkeypatch):
    text = f"\ufeff{person}\n\n???\n"
    (tmp_path / "names.txt").write_text(text, encoding="utf-8")
    status, out, _ = minigpt(capsys, "ask", run, "--threshold", "0", "--file", tmp_path / "names.txt")
    header, first, second = (line.split("\t") for line in out.splitlines())
    assert status == 0
    assert header == ["question", "answer", "score", "known", "correct", "reason", "relation", "matched_name"]
    assert first[0] == f"Where was {person} born?"
    assert 0.0 <= float(first[2]) <= 1.0
    assert first[3:] == ["", "", "", "birthplace", ""]
    assert second[1:] == ["", "0.0", "", "", "no name in it", "", ""]
    monkeypatch.setattr("sys.stdin", io.StringIO(text.removeprefix("\ufeff")))
    assert minigpt(capsys, "ask", run, "--threshold", "0", "--file", "-")[1] == out


def test_without_a_name_it_asks_until_an_empty_line(run, person, monkeypatch, capsys):
    typed = iter([person, "Cyd Moss", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    status, out, _ = minigpt(capsys, "ask", run)
    assert status == 0
    assert [line.split(" born?")[0] for line in out.splitlines()] == [f"Where was {person}", "Where was Cyd Moss"]


def test_info_is_one_screen(run, capsys):
    status, out, _ = minigpt(capsys, "info", run)
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert status == 0
    assert len(out.splitlines()) <= 24
    assert all(len(line) < 200 for line in out.splitlines())
    assert set(rows) == {"model", "parameters", "layers", "attention", "context", "tokenizer", "relation",
                         "candidates", "calibration", "threshold"}  # fmt: skip
    assert rows["context"] == "64 tokens"
    assert rows["attention"] == "vanilla; rotary positions"


@pytest.mark.parametrize("command", ["ask", "info"])
def test_what_is_no_minigpt_is_refused_in_one_line(tmp_path, command, capsys):
    from transformers import GPT2Config

    (tmp_path / "empty").mkdir()
    GPT2Config(n_layer=1).save_pretrained(tmp_path / "gpt2")
    for folder, reason in (("empty", "not a MiniGPT that can be loaded"), ("gpt2", "a gpt2 model, wanted minigpt")):
        status, out, err = minigpt(capsys, command, tmp_path / folder)
        assert status == 2
        assert out == ""
        assert len(err.splitlines()) == 1
        assert err.startswith("error: ")
        assert reason in err


def test_a_missing_file_and_a_bad_threshold_are_one_line(run, tmp_path, capsys):
    both = ["--threshold", "0", "--risk", "0.2"]
    for words in (["--file", tmp_path / "none.txt"], ["Ada", "--threshold", "2"], both, ["Ada", "--risk", "0.2"]):
        status, _, err = minigpt(capsys, "ask", run, *words)
        assert status == 2
        assert len(err.splitlines()) == 1


def test_a_threshold_that_is_none_is_named(run, capsys):
    with pytest.raises(SystemExit):
        cli_minigpt.main(["ask", str(run), "Ada Stone", "--threshold", "high"])
    assert "argument --threshold: invalid number value: 'high'" in capsys.readouterr().err


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as exit:
        cli_minigpt.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"minigpt {__version__}\n"
