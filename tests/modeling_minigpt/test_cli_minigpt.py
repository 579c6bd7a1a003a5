"""The `minigpt` command: answers for people, programs and tables, one screen about a model, one line for an error."""

import io
import json
import re
import shlex
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from modeling_minigpt import MiniGPTForCausalLM, __version__, cli_minigpt


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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_only_line_ends_divide_a_file_of_names(run, tmp_path, capsys, end):
    names = ["Ada\x0cVell", "Bo\x85Lind", "Cyd\u2028Moss", "Dee\x1eFinn"]
    (tmp_path / "names.txt").write_text(end.join(names), encoding="utf-8", newline="")
    _, out, _ = minigpt(capsys, "ask", run, "--json", "--file", tmp_path / "names.txt")
    asked = [json.loads(line)["question"] for line in out.splitlines()]
    assert asked == [f"Where was {name} born?" for name in ("Ada Vell", "Bo Lind", "Cyd Moss", "Dee Finn")]


class Terminal(io.StringIO):
    """A stdin at which a person types."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stdin", "prompts", "asked"),
    [(Terminal("\n"), 1, []), (Terminal("Ada Vell\nCyd Moss\n\nBo Lind\n"), 3, ["Ada Vell", "Cyd Moss"]),
     (Terminal("Ada Vell\n"), 2, ["Ada Vell"]), (io.StringIO("Ada Vell\n\nCyd Moss"), 0, ["Ada Vell", "Cyd Moss"])],
    ids=["nothing", "empty-line", "end", "pipe"],
)  # fmt: skip
def test_without_a_name_lines_of_stdin_are_asked_and_a_prompt_is_for_people_alone(
    run, monkeypatch, capsys, stdin, prompts, asked
):
    monkeypatch.setattr("sys.stdin", stdin)
    status, out, err = minigpt(capsys, "ask", run, "--json")
    assert status == 0
    assert [json.loads(line)["question"] for line in out.splitlines()] == [f"Where was {one} born?" for one in asked]
    assert err.replace("\n", "") == "name or question> " * prompts


def test_names_beside_a_file_are_refused(run, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("Ada Vell\n")
    status, out, err = minigpt(capsys, "ask", run, "Bo Lind", "--file", tmp_path / "names.txt")
    assert (status, out) == (2, "")
    assert err == "error: --file cannot be combined with a NAME, found 'Bo Lind'\n"


def test_a_model_whose_tokenizer_cannot_write_questions_is_described_but_not_asked(run, tmp_path, capsys):
    MiniGPTForCausalLM.from_pretrained(run / "finetune").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(run / "finetune")
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path)
    status, out, err = minigpt(capsys, "ask", tmp_path, "Ada Vell")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "its tokenizer has no mask_token, so it cannot be asked" in err
    status, out, _ = minigpt(capsys, "info", tmp_path)
    assert status == 0
    assert "context      64 tokens\n" in out
    assert "relation     none: its tokenizer has no mask_token, so it cannot be asked" in out


HELP = re.sub(r" *(#|[<>|] ).*", "", cli_minigpt.__doc__)
EXAMPLES = [line.split(maxsplit=1)[1] for line in HELP.splitlines() if line.startswith("    minigpt ")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_help_is_a_command(example):
    words = shlex.split(example)
    arguments = cli_minigpt.parse_arguments(words)
    assert arguments.command == words[0]
    assert "Brihi Hikdo" not in words or arguments.names == ["Brihi Hikdo"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("ask M --relation studied Ada Bo", ["Ada", "Bo"]),
        ("ask M Ada --json Bo --top-k 2 Cyd", ["Ada", "Bo", "Cyd"]),
        ("ask --json M Ada", ["Ada"]),
        ("ask M --json -- -Ada", ["-Ada"]),
        ("ask M -- -Ada", ["-Ada"]),
    ],
)
def test_options_may_be_anywhere_between_the_names(words, names):
    arguments = cli_minigpt.parse_arguments(words.split())
    assert (arguments.model, arguments.names) == ("M", names)


@pytest.mark.parametrize("words", ["ask M --jsn Ada", "ask M --json Ada --bogus", "ask M Ada -x", "info M Ada"])
def test_an_option_that_is_none_is_refused_and_no_name(words, capsys):
    with pytest.raises(SystemExit) as exit:
        cli_minigpt.parse_arguments(words.split())
    assert exit.value.code == 2
    assert "unrecognized arguments: " in capsys.readouterr().err


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


UP = "model.layers.1.mlp.up_proj.weight"


def without_a_head(folder):
    """Save a model as the library does that loads it for no task."""
    AutoModel.from_pretrained(folder, trust_remote_code=True).save_pretrained(folder)


def with_weights(change):
    """Return a function that changes the weights of a model's folder."""

    def rewrite(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


WEIGHTS = {
    "no head": (without_a_head, "missing weights: lm_head.weight"),
    "one missing": (with_weights(lambda weights: weights.pop(UP)), f"missing weights: {UP}"),
    "one too many": (
        with_weights(lambda weights: weights.update(more=weights[UP].clone())),
        "unexpected weights: more",
    ),
    "other shape": (with_weights(lambda weights: weights.update({UP: weights[UP][:1]})), f"mismatched weights: {UP}"),
}


@pytest.mark.parametrize("command", [("ask", "Ada Vell"), ("info",), ("serve",)], ids=lambda words: words[0])
@pytest.mark.parametrize(("change", "found"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit_the_config_are_named_in_one_line(run, tmp_path, capsys, command, change, found):
    folder = tmp_path / "model"
    shutil.copytree(run / "finetune", folder, ignore=shutil.ignore_patterns("confidence.json"))
    change(folder)
    capsys.readouterr()
    status, out, err = minigpt(capsys, command[0], folder, *command[1:])
    assert (status, out) == (2, "")
    assert err == f"error: {folder}: the weights do not fit config.json: {found}\n"


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
