"""What `train.py` cannot do ends with status 2 and one clear line, and nothing is overwritten."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from data_scripts.bios_folder import FILES
from tests.running import call, contents


def refused(capfd, *arguments, **settings) -> str:
    """Run a command that must be refused; return its one line."""
    capfd.readouterr()
    assert call(*arguments, **settings) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_finished_output_folder_is_refused_and_left_alone(run, recipe, data, capfd):
    before = contents(run)
    for command in ("all", "pretrain", "finetune", "evaluate"):
        assert "already exists" in refused(capfd, command, recipe, data, run)
    assert contents(run) == before


def test_an_unfinished_run_is_not_overwritten_without_resume(recipe, data, tmp_path, capfd):
    (tmp_path / "run" / "checkpoints" / "pretrain-00000003").mkdir(parents=True)
    assert "--resume" in refused(capfd, "all", recipe, data, tmp_path / "run")


def test_a_changed_recipe_cannot_resume(run, recipe, data, capfd):
    message = refused(capfd, "all", recipe, data, run, "pretrain.steps=9", resume=True)
    assert "pretrain.steps was 6, now 9" in message


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody may write to")
def test_an_output_folder_that_cannot_be_written_is_refused(recipe, data, capfd):
    assert "cannot be written" in refused(capfd, "all", recipe, data, "/proc/minigpt")


def test_an_output_path_that_is_a_file_is_refused(recipe, data, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in refused(capfd, "all", recipe, data, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_restarts_that_would_fail_are_refused_before_the_first_is_needed(recipe, data, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    message = refused(capfd, "pretrain", recipe, data, tmp_path / "run")
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in message
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert call("pretrain", recipe, data, tmp_path / "run") == 0


def test_finetuning_without_a_pretrained_model_is_refused(recipe, data, tmp_path, capfd):
    assert "no pretrained model" in refused(capfd, "finetune", recipe, data, tmp_path / "run")


def test_finetuning_a_pretrained_model_of_another_shape_is_refused(run, recipe, data, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    shutil.copytree(run / "pretrain", tmp_path / "run" / "pretrain")
    message = refused(capfd, "finetune", recipe, data, tmp_path / "run", "model.hidden_size=64")
    assert "hidden_size is 32, but the recipe wants 64" in message


def test_starting_from_a_model_that_does_not_fit_is_refused(run, recipe, data, tmp_path, capfd):
    def message(folder, *overrides):
        return refused(capfd, "finetune", recipe, data, tmp_path / "run", f"finetune.start_from={folder}", *overrides)

    source = run / "pretrain"
    assert "hidden_size is 32, but the recipe wants 64" in message(
        source, "model.hidden_size=64", "model.preset=minigpt"
    )
    assert "no tokenizer there" in message(tmp_path / "absent")
    empty = shutil.copytree(source, tmp_path / "empty")
    (empty / "config.json").write_text("[]")
    assert "config.json: found list, wanted an object" in message(empty)
    stranger = shutil.copytree(source, tmp_path / "stranger")
    (stranger / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 400}))
    assert "its model_type is 'gpt2', not 'minigpt'" in message(stranger)
    torn = shutil.copytree(source, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:1000])
    assert "cannot start from it" in message(torn)
    headless = shutil.copytree(source, tmp_path / "headless")
    weights = load_file(source / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "lm_head" not in k}, headless / "model.safetensors", {"format": "pt"}
    )
    assert "1 weights are not there: lm_head.weight" in message(headless)


def test_starting_elsewhere_leaves_a_pretraining_alone(run, recipe, data, tmp_path, capfd):
    start = f"finetune.start_from={run / 'pretrain'}"
    (tmp_path / "killed" / "checkpoints" / "pretrain-00000003").mkdir(parents=True)
    shutil.copytree(run / "pretrain", tmp_path / "finished" / "pretrain")
    for name in ("killed", "finished"):
        before = contents(tmp_path / name)
        assert "has a pretraining, but" in refused(capfd, "all", recipe, data, tmp_path / name, start)
        assert contents(tmp_path / name) == {**before, ".lock": b""}
    message = refused(capfd, "pretrain", recipe, data, tmp_path / "run", start)
    assert "nothing would read the pretrained model" in message


@pytest.mark.parametrize(
    ("command", "overrides", "wanted"),
    [
        ("evaluate", (), "finetune: no finetuned model there; run `train.py finetune` first"),
        ("evaluate", ("evaluate.model=nobody/nothing",), "nobody/nothing: no such folder; on the Hub: no model that"),
        ("finetune", ("finetune.start_from=nobody/nothing",), "nobody/nothing: no such folder; on the Hub: no tokeni"),
    ],
)
def test_a_missing_folder_is_not_silently_looked_for_on_the_hub(
    recipe, data, tmp_path, monkeypatch, capfd, command, overrides, wanted
):
    monkeypatch.chdir(tmp_path)
    assert wanted in refused(capfd, command, recipe, data, Path("somebody"), *overrides)


def test_scoring_a_folder_that_is_no_model_is_refused(recipe, data, tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    message = refused(capfd, "evaluate", recipe, data, tmp_path / "run", f"evaluate.model={tmp_path / 'empty'}")
    assert "no model that can be loaded" in message


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 64), ("num_hidden_layers", 3)], ids=["wider", "deeper"])
def test_a_checkpoint_of_another_shape_is_refused(run, recipe, data, tmp_path, capfd, key, value):
    model = shutil.copytree(run / "finetune", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, key: value}))
    message = refused(capfd, "evaluate", recipe, data, tmp_path / "run", f"evaluate.model={model}")
    assert str(model) in message


@pytest.mark.parametrize("name", [FILES[key] for key in ("documents", "train", "validation")])
def test_a_folder_without_one_of_the_files_is_refused_before_training(recipe, data, tmp_path, capfd, name):
    folder = shutil.copytree(data, tmp_path / "bios")
    (folder / name).unlink()
    assert f"{name} not found" in refused(capfd, "all", recipe, folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        pytest.param(FILES["train"], b"Where was A B born?\tX\nno tab\n", ":2: found 0 tabs", id="no tab"),
        pytest.param(FILES["train"], b"Where was A B born?\t\n", ":1: the answer is empty", id="empty field"),
        pytest.param(FILES["documents"], b"A. B .\n\xff\xfe\n", ":2: byte 1 is ff", id="bytes"),
        pytest.param(FILES["documents"], b"", ":1: found an empty line", id="empty corpus"),
        pytest.param(FILES["documents"], "A. ⁇ .\n".encode(), "special token", id="special token"),
    ],
)
def test_bad_data_is_refused_with_file_and_line(recipe, data, tmp_path, capfd, name, content, wanted):
    folder = shutil.copytree(data, tmp_path / "bios")
    (folder / name).write_bytes(content)
    message = refused(capfd, "all", recipe, folder, tmp_path / "run")
    assert name in message
    assert wanted in message


def test_a_dev_question_that_the_model_cannot_read_is_wrong_and_costs_no_other_score(recipe, data, tmp_path, caplog):
    folder = shutil.copytree(data, tmp_path / "bios")
    # So that a question can be written in the document's characters.
    with (folder / FILES["documents"]).open("a", encoding="utf-8") as documents:
        documents.write("Who. Where was who born ?\n")
    lines = (folder / FILES["validation"]).read_text(encoding="utf-8").splitlines()[:3]
    unread = ["Where was Жanna born?\tX", f"Where was {'Ada ' * 30}Stone born?\tX"]
    (folder / FILES["validation"]).write_text("\n".join([lines[0], *unread, *lines[1:]]) + "\n", encoding="utf-8")
    (folder / FILES["test"]).write_text("\n".join(line.partition("\t")[0] for line in [lines[0], *unread]) + "\n")
    more = ["tokenizer.type=character", "tokenizer.vocab_size=null", "corruption.max_length=56"]
    assert call("all", recipe, folder, tmp_path / "run", *more) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["dev"]["total"] == 5
    said = (tmp_path / "run" / "predictions.dev.txt").read_text(encoding="utf-8").split("\n")
    assert len(said) == 6
    assert said[1:3] == ["", ""]
    assert said[0]
    assert (tmp_path / "run" / "predictions.test.txt").read_text(encoding="utf-8") == f"{said[0]}\n\n\n"
    assert "2 of 5 questions get no answer: they are too long for the model or have a character" in caplog.text


def test_a_training_question_out_of_the_vocabulary_of_the_first_model_is_refused(recipe, data, tmp_path, capfd):
    folder = shutil.copytree(data, tmp_path / "bios")
    characters = ["tokenizer.type=character", "tokenizer.vocab_size=null", "corruption.max_length=56"]
    assert call("pretrain", recipe, folder, tmp_path / "first", *characters) == 0
    # Of questions trained on, too: neither "W" nor "?" is in a document.
    vocabulary = json.loads((tmp_path / "first" / "pretrain" / "tokenizer.json").read_text())["model"]["vocab"]
    assert {"W", "?"} <= vocabulary.keys()
    (folder / FILES["train"]).write_text("Where was Жanna born?\tX\n", encoding="utf-8")
    start = f"finetune.start_from={tmp_path / 'first' / 'pretrain'}"
    message = refused(capfd, "finetune", recipe, folder, tmp_path / "run", *characters, start)
    assert "question 1, 'Where was Жanna born? X'" in message


def test_a_training_question_that_leaves_no_room_for_its_place_is_refused(recipe, data, tmp_path, capfd):
    folder = shutil.copytree(data, tmp_path / "bios")
    with (folder / FILES["train"]).open("a", encoding="utf-8") as file:
        file.write("Where was " + "Ж" * 99 + " born?\tX\n")
    message = refused(capfd, "all", recipe, folder, tmp_path / "run")
    assert "question 21, 'Where was Ж" in message
    assert "tokens long, the model reads 64" in message


def test_a_model_that_names_files_outside_its_folder_is_refused(run, recipe, data, tmp_path, capfd):
    model = shutil.copytree(run / "finetune", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"]["AutoModelForCausalLM"] = "../evil.Model"
    (model / "config.json").write_text(json.dumps(config))
    for command, key in (("evaluate", "evaluate.model"), ("finetune", "finetune.start_from")):
        message = refused(capfd, command, recipe, data, tmp_path / command, f"{key}={model}")
        assert (
            f"{model / 'config.json'}: auto_map names '../evil.Model', which is not a module of the folder" in message
        )


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"seed": 0, "data": 3}', "[" * 100_000])
def test_a_run_whose_recipe_is_broken_cannot_resume(recipe, data, tmp_path, capfd, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(text)
    assert "recipe.json" in refused(capfd, "all", recipe, data, tmp_path / "run", resume=True)


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"split": "dev", "dev": 3}'])
def test_a_run_whose_results_are_broken_is_not_finished(run, recipe, data, tmp_path, capfd, text):
    output = shutil.copytree(run, tmp_path / "run")
    (output / "results.json").write_text(text)
    assert "results.json" in refused(capfd, "all", recipe, data, output, resume=True)


def test_results_are_not_printed_as_those_of_another_scoring(run, recipe, data, tmp_path, capfd):
    output = shutil.copytree(run, tmp_path / "moved")
    other = shutil.copytree(run / "finetune", tmp_path / "model")
    for key, found, wanted in (
        ("model", "None", f"'{other}'"),
        ("model", "None", "'someone/model'"),
        ("questions", "None", "3"),
        ("max_new_tokens", "8", "9"),
        ("sets", "{}", "{'popqa': 'someone/PopQA'}"),
    ):
        message = refused(capfd, "evaluate", recipe, data, output, f"evaluate.{key}={wanted}", resume=True)
        assert f"results.json: evaluate.{key} was {found}, now {wanted}; set it as it was" in message
    own = f"evaluate.model={output / 'finetune'}"
    assert call("evaluate", recipe, data, output, own, "evaluate.batch_size=7", resume=True) == 0
    (output / "scoring.json").unlink()  # as in a run of before there was one
    assert call("evaluate", recipe, data, output, "evaluate.questions=3", resume=True) == 0
    shutil.copyfile(run / "no_pretraining" / "model.safetensors", output / "finetune" / "model.safetensors")
    message = refused(capfd, "evaluate", recipe, data, output, resume=True)
    assert f"is of other weights than {output / 'finetune'} has now" in message


def test_a_run_is_not_scored_on_other_data_in_its_own_folder(run, recipe, data, tmp_path, capfd):
    output = shutil.copytree(run, tmp_path / "moved")
    (output / "results.json").unlink()
    other = shutil.copytree(data, tmp_path / "other")
    with (other / FILES["train"]).open("a") as file:
        file.write("Where was Nobody Known born?\tRome\n")
    rows = tmp_path / "people.jsonl"
    rows.write_text("".join(f'{{"name": "A {n}", "text": "A {n} is.", "birthplace": "Rome"}}\n' for n in range(20)))
    for place, *sets in ((other,), (rows, "data.source=jsonl"), (rows, "data.path=null", "data.source=bios")):
        message = refused(capfd, "evaluate", recipe, place, output, *sets)
        assert f"was trained on other data ({FILES['documents']}, {FILES['train']}) than " in message
        assert f"--set evaluate.model={output / 'finetune'} --set output=NEW_FOLDER" in message
    assert call("evaluate", recipe, shutil.copytree(data, tmp_path / "same"), output) == 0


def test_results_are_not_printed_as_those_of_another_dev_file(run, recipe, data, tmp_path, capfd):
    output = shutil.copytree(run, tmp_path / "moved")
    other = shutil.copytree(data, tmp_path / "other")
    assert call("evaluate", recipe, other, output, resume=True) == 0
    with (other / FILES["validation"]).open("a") as file:
        file.write("Where was Nobody Known born?\tRome\n")
    message = refused(capfd, "evaluate", recipe, other, output, resume=True)
    assert f"results.json: is of another {FILES['validation']} than {other} has now" in message
    (output / "scoring.json").write_text("{}")  # as in a run of before there were digests
    assert call("evaluate", recipe, other, output, resume=True) == 0


@pytest.mark.parametrize("output", ["x" * 5000, "a/" * 3000])
def test_an_output_with_an_impossible_name_is_refused(recipe, data, tmp_path, capfd, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    assert "cannot be written" in refused(capfd, "all", recipe, data, output)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_recipe_key_ends_with_status_2_and_one_line(recipe, data, tmp_path, capfd):
    message = refused(capfd, "all", recipe, data, tmp_path / "run", "pretrain.stepz=3")
    assert "did you mean steps?" in message
    assert not (tmp_path / "run").exists()


# Runs train.py as another version of Python; an older one has to parse it, too.
PRETEND = """
import sys
sys.version_info = (3, 10, 13, "final", 0)
sys.argv = ["train.py", "show", "--config", "quickstart"]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"), {"__name__": "__main__"})
"""


def test_an_older_python_is_refused_in_one_line_before_anything_is_imported():
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", PRETEND], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: found Python 3.10, wanted 3.11 or newer; ")
    assert done.stderr.count("\n") == 1
    tree = ast.parse((root / "train.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    first = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.If))][:2]
    assert [ast.unparse(node).split("\n")[0] for node in first] == ["import sys", "if sys.version_info < (3, 11):"]
