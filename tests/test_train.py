"""`train.py` from the outside: what a run leaves behind, and one clear line with status 2 for what cannot be done."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import train
from data_scripts.bios_folder import FILES, read_lines
from data_scripts.synthetic_bios import invent
from training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
RECIPE = """\
tokenizer:
  vocab_size: 400
model:
  hidden_size: 32
  num_hidden_layers: 2
  num_attention_heads: 2
  max_position_embeddings: 64
pretrain:
  steps: 6
  batch_size: 12
  question_fraction: 0.25
finetune:
  epochs: 1
  batch_size: 12
  question_fraction: 1.0
no_pretraining:
  epochs: 1
  batch_size: 12
  question_fraction: 1.0
evaluate:
  max_new_tokens: 8
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bios")
    invent(40, seed=1).write(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run(data, recipe, tmp_path_factory):
    """A finished run."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    assert call("all", recipe, data, output) == 0
    return output


def call(command, recipe, data, output, *more):
    overrides = [f"data.path={data}", f"output={output}", *more]
    flags = [word for override in overrides if override.startswith("--") for word in [override]]
    sets = [word for override in overrides if not override.startswith("--") for word in ("--set", override)]
    return train.main([command, "--config", str(recipe), *sets, *flags])


def refused(capfd, *arguments) -> str:
    """Run a command that must be refused; return its one line."""
    capfd.readouterr()
    assert call(*arguments) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_models_predictions_results_report_and_logs(run, data):
    results = json.loads((run / "results.json").read_text())
    assert results["dataset"] == data.name
    assert results["seed"] == 0
    assert set(results["train_minutes"]) == {"pretrain", "finetune", "no_pretraining"}
    assert results["dev"]["total"] == len(read_lines(data / FILES["validation"]))
    assert results["dev"]["accuracy"] == results["dev"]["correct"] / results["dev"]["total"]
    assert set(results["baselines"]) == {"majority", "majority_place", "no_pretraining", "ceiling"}
    assert len(results["samples"]) == 4
    assert len(read_lines_or_blank(run / "predictions.dev.txt")) == results["dev"]["total"]
    report = (run / "report.md").read_text()
    for words in ("no pretraining", "pretrained", "ceiling", "always"):
        assert words in report
    assert list((run / "logs").rglob("events.out.tfevents.*"))


def read_lines_or_blank(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "no_pretraining"])
def test_each_stage_loads_by_the_auto_classes_and_keeps_one_tokenizer(run, stage):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(run / stage), AutoTokenizer.from_pretrained(run / stage)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.mask_token_id
    first = (run / "pretrain" / "tokenizer.json").read_bytes()
    assert (run / stage / "tokenizer.json").read_bytes() == first
    assert not list((run / stage).glob("*.bin"))


def test_a_finished_model_is_scored_on_another_folder(run, recipe, tmp_path):
    other, output = tmp_path / "other", tmp_path / "scored"
    invent(40, seed=2).write(other)
    assert call("evaluate", recipe, other, output, f"evaluate.model={run / 'finetune'}") == 0
    results = json.loads((output / "results.json").read_text())
    assert results["dataset"] == "other"
    assert results["baselines"]["no_pretraining"] is not None
    assert results["train_minutes"] == {}


def test_stage_by_stage_gives_the_same_predictions_as_all(run, recipe, data, tmp_path):
    output = tmp_path / "stages"
    for command in ("pretrain", "finetune", "evaluate"):
        assert call(command, recipe, data, output) == 0
    assert (output / "predictions.dev.txt").read_bytes() == (run / "predictions.dev.txt").read_bytes()


def test_a_run_killed_by_the_kernel_resumes_to_the_same_model(run, recipe, data, tmp_path):
    output = tmp_path / "killed"
    script = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import training.loop, train
original = training.loop.save_checkpoint
def save_and_die(*arguments):
    original(*arguments)
    os.kill(os.getpid(), 9)
training.loop.save_checkpoint = save_and_die
train.main(["all", "--config", {str(recipe)!r}, "--set", "data.path={data}", "--set", "output={output}",
            "--set", "run.log_steps=2", "--set", "run.checkpoint_minutes=1e-9"])
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, timeout=120)
    assert killed.returncode == -9
    assert not (output / "pretrain").exists()
    assert call("all", recipe, data, output, "--resume") == 0
    for stage in ("pretrain", "finetune"):
        name = "model.safetensors"
        assert (output / stage / name).read_bytes() == (run / stage / name).read_bytes()


def test_resuming_a_finished_run_shows_its_results_again(run, recipe, data, capfd):
    before = contents(run)
    assert call("all", recipe, data, run, "--resume") == 0
    assert "the run is finished" in capfd.readouterr().out
    assert contents(run) == before


def test_no_dev_or_test_file_is_opened_before_scoring(recipe, data, tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
forbidden = {[FILES["validation"], FILES["test"]]!r}
def guard(event, arguments):
    if event == "open" and any(str(arguments[0]).endswith(name) for name in forbidden):
        raise RuntimeError(f"opened {{arguments[0]}} while training")
sys.addaudithook(guard)
import train
shared = ["--config", {str(recipe)!r}, "--set", "data.path={data}", "--set", "output={tmp_path / "run"}"]
assert train.main(["pretrain", *shared]) == 0
assert train.main(["finetune", *shared]) == 0
try:
    train.main(["evaluate", *shared])
except RuntimeError as error:
    print("guard works:", error)
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "guard works: opened" in result.stdout


def test_other_dev_and_test_labels_train_the_same_model(run, recipe, data, tmp_path):
    other = shutil.copytree(data, tmp_path / data.name)
    pairs = [line.split("\t")[0] + "\tNowhere" for line in read_lines(data / FILES["validation"])]
    (other / FILES["validation"]).write_text("\n".join(pairs) + "\n")
    assert call("all", recipe, other, tmp_path / "run") == 0
    name = "finetune/model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


def test_tuning_scores_on_training_questions_that_were_held_out(recipe, data, tmp_path):
    output = tmp_path / "tuning"
    (shutil.copytree(data, tmp_path / "blind") / FILES["validation"]).write_bytes(b"\xff not to be read\n")
    assert call("all", recipe, tmp_path / "blind", output, "data.validation_questions=6") == 0
    results = json.loads((output / "results.json").read_text())
    assert (results["split"], results["held_out"]["total"]) == ("held_out", 6)


def test_a_finished_output_folder_is_refused_and_left_alone(run, recipe, data, capfd):
    before = contents(run)
    for command in ("all", "pretrain", "finetune", "evaluate"):
        assert "is there already" in refused(capfd, command, recipe, data, run)
    assert contents(run) == before


def test_an_unfinished_run_is_not_overwritten_without_resume(recipe, data, tmp_path, capfd):
    (tmp_path / "run" / "checkpoints" / "pretrain-00000003").mkdir(parents=True)
    assert "--resume" in refused(capfd, "all", recipe, data, tmp_path / "run")


def test_a_changed_recipe_cannot_resume(run, recipe, data, capfd):
    message = refused(capfd, "all", recipe, data, run, "pretrain.steps=9", "--resume")
    assert "pretrain.steps was 6, now 9" in message


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody may write to")
def test_an_output_folder_that_cannot_be_written_is_refused(recipe, data, capfd):
    assert "cannot be written" in refused(capfd, "all", recipe, data, "/proc/minigpt")


def test_an_output_path_that_is_a_file_is_refused(recipe, data, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in refused(capfd, "all", recipe, data, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_finetuning_without_a_pretrained_model_is_refused(recipe, data, tmp_path, capfd):
    assert "no pretrained model" in refused(capfd, "finetune", recipe, data, tmp_path / "run")


def test_finetuning_a_pretrained_model_of_another_shape_is_refused(run, recipe, data, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    shutil.copytree(run / "pretrain", tmp_path / "run" / "pretrain")
    message = refused(capfd, "finetune", recipe, data, tmp_path / "run", "model.hidden_size=64")
    assert "hidden_size is 32, but the recipe wants 64" in message


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


@pytest.mark.parametrize("name", FILES.values())
def test_a_folder_without_one_of_the_files_is_refused_before_training(recipe, data, tmp_path, capfd, name):
    folder = shutil.copytree(data, tmp_path / "bios")
    (folder / name).unlink()
    assert f"{name} not found" in refused(capfd, "all", recipe, folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        pytest.param(FILES["train"], b"Where was A B born?\tX\nno tab\n", ":2: found 0 tabs", id="no tab"),
        pytest.param(FILES["train"], b"Where was A B born?\t\n", ":1: the place is empty", id="empty field"),
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


def test_a_character_out_of_the_vocabulary_is_refused_at_inference(recipe, data, tmp_path, capfd):
    folder = shutil.copytree(data, tmp_path / "bios")
    (folder / FILES["validation"]).write_text("Where was Жanna born?\tX\n", encoding="utf-8")
    more = ["tokenizer.type=character", "tokenizer.vocab_size=null", "corruption.max_length=56"]
    message = refused(capfd, "all", recipe, folder, tmp_path / "run", *more)
    assert "'Ж' (U+0416) is not in the" in message


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(run, recipe, data, tmp_path):
    folder = tmp_path / data.name
    folder.mkdir()
    for name in FILES.values():
        clean = (data / name).read_bytes()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + clean.replace(b"\n", b"\r\n"))
    assert call("all", recipe, folder, tmp_path / "run") == 0
    assert (tmp_path / "run" / "predictions.dev.txt").read_bytes() == (run / "predictions.dev.txt").read_bytes()


def test_an_unknown_recipe_key_ends_with_status_2_and_one_line(recipe, data, tmp_path, capfd):
    message = refused(capfd, "all", recipe, data, tmp_path / "run", "pretrain.stepz=3")
    assert "did you mean steps?" in message
    assert not (tmp_path / "run").exists()


def test_help_is_quick_and_names_the_commands():
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"], capture_output=True, text=True, timeout=20
    )
    assert result.returncode == 0
    for word in ("pretrain", "finetune", "evaluate", "all"):
        assert word in result.stdout


def test_accelerate_launch_runs_the_same_program(run, recipe, data, tmp_path):
    config = ROOT / "configuration" / "accelerate" / "cpu.yaml"
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(config),
        str(ROOT / "train.py"),
    ]
    arguments = [
        "pretrain",
        "--config",
        str(recipe),
        "--set",
        f"data.path={data}",
        "--set",
        f"output={tmp_path / 'r'}",
    ]
    result = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=180, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    name = "pretrain/model.safetensors"
    assert (tmp_path / "r" / name).is_file()
    assert RunFolder(tmp_path / "r").training_record("pretrain")["steps"] == 6


def test_two_processes_learn_what_one_does(run, recipe, data, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    sets = ["--set", f"data.path={data}", "--set", f"output={tmp_path / 'r'}"]
    command = [*launch, str(ROOT / "train.py"), "pretrain", "--config", str(recipe), *sets]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, env=environment)
    assert result.returncode == 0, result.stderr
    one, two = (RunFolder(folder).training_record("pretrain") for folder in (run, tmp_path / "r"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["tokens"] == one["tokens"]
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
