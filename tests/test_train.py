"""`train.py` from the outside: what a run leaves behind, what it starts from, and what does not change it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from artifacts.run_folder import RunFolder
from data_scripts.bios_folder import FILES, read_lines, read_questions
from data_scripts.synthetic_bios import invent
from evaluation import calibration
from evaluation.compare import comparison_table, read_runs
from evaluation.trust_report import ROWS
from modeling_minigpt.features_minigpt import FEATURE_NAMES
from tests.running import ROOT, call, contents


def test_a_run_leaves_models_predictions_results_report_and_logs(run, data):
    results = json.loads((run / "results.json").read_text())
    assert results["dataset"] == data.name
    assert results["seed"] == 0
    assert set(results["train_minutes"]) == {"pretrain", "finetune", "no_pretraining"}
    assert results["dev"]["total"] == len(read_lines(data / FILES["validation"]))
    assert results["dev"]["accuracy"] == results["dev"]["correct"] / results["dev"]["total"]
    assert set(results["baselines"]) == {"majority", "majority_place", "no_pretraining", "ceiling"}
    assert len(results["samples"]) == 4
    assert set(results["trust"]) >= {*ROWS, "made_up", "certificate"}
    assert not results["trust"]["calibrated"]
    assert {row["seen"] for row in results["exposure"]} == {"person", "place", "both"}
    assert sum(row["questions"] for row in results["exposure"]) == 3 * results["dev"]["total"]
    wrong = results["dev"]["total"] - results["dev"]["correct"]
    assert sum(row["count"] for row in results["errors"].values()) == wrong
    assert results["trust"]["made_up"] > 20
    assert results["provenance"]["libraries"]["torch"] == torch.__version__
    assert (run / "trust.png").is_file()
    wrong_of_pipeline = round((1 - results["trust"]["accuracy"]) * results["dev"]["total"])
    assert len(results["wrong_answers"]) == min(wrong_of_pipeline, 20)
    assert (run / "report.html").read_text(encoding="utf-8").count('src="data:image/png;base64,') == 3
    assert (run / "predictions.dev.txt").read_text(encoding="utf-8").count("\n") == results["dev"]["total"]
    report = (run / "report.md").read_text()
    for words in ("no pretraining", "pretrained", "upper bound", "always", "](trust.png)", "calibration error"):
        assert words in report
    assert list((run / "logs").rglob("events.out.tfevents.*"))


def test_the_questions_without_answers_are_answered_in_their_order(run, data):
    asked = read_lines(data / FILES["test"])
    ask = pipeline("birthplace-qa", model=str(run / "finetune"), device="cpu", trust_remote_code=True)
    answers = [ask(text, free_form=True, threshold=0)["answer"] or "" for text in asked]
    assert (run / "predictions.test.txt").read_text(encoding="utf-8") == "\n".join(answers) + "\n"
    assert len(asked) >= 5


def test_a_file_of_questions_that_cannot_be_read_does_not_cost_the_scores(recipe, data, tmp_path, capfd):
    other = shutil.copytree(data, tmp_path / data.name)
    (other / FILES["test"]).write_text("Who is this?\n")
    assert call("all", recipe, other, tmp_path / "run") == 0
    assert (tmp_path / "run" / "results.json").is_file()
    assert not (tmp_path / "run" / "predictions.test.txt").exists()
    assert f"warning: predictions.test.txt is not written: {other / FILES['test']}:1: " in capfd.readouterr().err


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "no_pretraining"])
def test_each_stage_loads_by_the_auto_classes_and_keeps_one_tokenizer(run, stage):
    model = AutoModelForCausalLM.from_pretrained(run / stage)
    tokenizer = AutoTokenizer.from_pretrained(run / stage)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.mask_token_id
    first = (run / "pretrain" / "tokenizer.json").read_bytes()
    assert (run / stage / "tokenizer.json").read_bytes() == first
    assert not list((run / stage).glob("*.bin"))


def test_a_finished_model_answers_through_the_pipeline(run, data):
    ask = pipeline("birthplace-qa", model=str(run / "finetune"), device="cpu", trust_remote_code=True)
    pairs = [line.split("\t") for line in read_lines(data / FILES["train"])]
    assert set(ask.candidates) == {place for _, place in pairs}
    result = ask(pairs[0][0], threshold=0)
    assert result["question"] == pairs[0][0]
    assert result["candidates"][0]["answer"] == result["answer"]


def test_a_finished_model_is_scored_on_another_folder(run, recipe, tmp_path):
    other = tmp_path / "other"
    output = tmp_path / "scored"
    invent(40, seed=2).write(other)
    assert call("evaluate", recipe, other, output, f"evaluate.model={run / 'finetune'}") == 0
    results = json.loads((output / "results.json").read_text())
    assert results["dataset"] == "other"
    assert results["baselines"]["no_pretraining"] is not None
    assert results["train_minutes"] == json.loads((run / "results.json").read_text())["train_minutes"]


def test_minutes_and_losses_are_of_the_scored_model_or_unknown(run, recipe, data, tmp_path):
    output = shutil.copytree(run, tmp_path / "other")
    (output / "results.json").unlink()
    (output / "losses.png").unlink()
    copied = shutil.copytree(run / "finetune", tmp_path / "downloaded")
    assert call("evaluate", recipe, data, output, f"evaluate.model={copied}") == 0
    results = json.loads((output / "results.json").read_text())
    assert (results["train_minutes"], results["machine"]) == ({}, {})
    assert not (output / "losses.png").exists()
    [row] = [line for line in comparison_table(read_runs([output])).splitlines() if line.startswith("| other")]
    assert [cell.strip() for cell in row.split("|")][-3] == "–"  # minutes


def test_stage_by_stage_gives_the_same_predictions_as_all(run, recipe, data, tmp_path):
    output = tmp_path / "stages"
    for command in ("pretrain", "finetune", "evaluate"):
        assert call(command, recipe, data, output) == 0
    assert (output / "predictions.dev.txt").read_bytes() == (run / "predictions.dev.txt").read_bytes()


@pytest.mark.parametrize(
    ("attention", "new"),
    [("linformer", "slot_logits"), ("bigbird", None), ("performer", "features"), ("gated_deltanet", "convolution")],
)
def test_finetuning_starts_from_a_pretrained_model_of_other_attention(
    run, recipe, data, tmp_path, caplog, attention, new
):
    output = tmp_path / "other"
    source = run / "pretrain"
    steps = ("finetune.learning_rate=1e-9", "finetune.muon_learning_rate=1e-9")  # to see what it started from
    assert (
        call("all", recipe, data, output, f"model.attention_type={attention}", f"finetune.start_from={source}", *steps)
        == 0
    )
    assert (new in caplog.text) if new else ("MISSING" not in caplog.text)
    assert not (output / "pretrain").exists()
    assert json.loads((output / "results.json").read_text())["start_from"] == str(source)
    assert str(source) in (output / "report.md").read_text()
    model = AutoModelForCausalLM.from_pretrained(output / "finetune")
    assert model.config.attention_type == attention
    assert model.generation_config.max_new_tokens == 8
    for name, weight in AutoModelForCausalLM.from_pretrained(source).state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, atol=1e-5, rtol=0)
    assert (output / "finetune" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_pretraining_starts_from_a_model_with_its_tokenizer_and_a_longer_context(run, recipe, tmp_path):
    other = tmp_path / "other"
    output = tmp_path / "run"
    invent(40, seed=2).write(other)
    longer = "model.max_position_embeddings=96"
    assert call("pretrain", recipe, other, output, f"pretrain.start_from={run / 'pretrain'}", longer) == 0
    before, after = (AutoTokenizer.from_pretrained(folder / "pretrain") for folder in (run, output))
    assert after.get_vocab() == before.get_vocab()
    assert (before.model_max_length, after.model_max_length) == (64, 96)
    first, second = (RunFolder(folder).training_record("pretrain")["history"][0][1] for folder in (run, output))
    assert second < first


def test_a_run_that_left_no_model_leaves_no_tokenizer_to_the_next(recipe, data, tmp_path):
    output = tmp_path / "run"
    assert call("pretrain", recipe, data, output, "tokenizer.vocab_size=300", "pretrain.gradient_limit=1e-9") == 2
    assert call("pretrain", recipe, data, output) == 0
    assert len(AutoTokenizer.from_pretrained(output / "pretrain")) == 400


def test_resuming_a_finished_run_shows_its_results_again(run, recipe, data, capfd):
    before = contents(run)
    assert call("all", recipe, data, run, resume=True) == 0
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


@pytest.fixture
def bios(tmp_path):
    """A folder with 360 invented people."""
    folder = tmp_path / "data"
    invent(360, seed=2).write(folder)
    return folder


@pytest.fixture
def knows_half_the_alphabet(bios, monkeypatch):
    """Make calibrations find a model which, unlike one of six steps, knows most people whose names begin so."""
    places = {question.name: question.answer for question in read_questions(bios / FILES["train"])}

    def measure(pipeline, names, relation, shared):
        sure = np.array([[float(name in places and name[0] < "T")] * len(FEATURE_NAMES) for name in names])
        return [places[name] if name in places and name[0] < "T" else "Da" for name in names], sure

    monkeypatch.setattr(calibration, "measure", measure)


CALIBRATED = ("data.calibration_questions=100", "data.withheld_people=4")


def test_a_run_with_calibration_questions_leaves_a_model_that_abstains(
    recipe, bios, tmp_path, knows_half_the_alphabet
):
    output = tmp_path / "run"
    assert call("all", recipe, bios, output, *CALIBRATED) == 0
    trust = json.loads((output / "results.json").read_text())["trust"]
    assert trust["calibrated"]
    assert 0 < trust["withheld"] <= 4  # some are strangers of the calibration
    assert trust["threshold_known"] == trust["certificate"]["known_threshold"]
    # One of the two is enough where the same features show who is known and who is right.
    assert max(trust["threshold_known"], trust["threshold_correct"]) > 0.5
    assert trust["trade"][0].keys() == {"risk", "stranger_rate", "answered"}
    assert "Certified on people whose questions were held out of training" in (output / "report.md").read_text()
    ask = pipeline("birthplace-qa", model=str(output / "finetune"), device="cpu", trust_remote_code=True)
    result = ask("Ada Stone")
    assert result["calibrated"]
    pairs = [(result[head], trust[f"threshold_{head}"]) for head in ("known", "correct")]
    assert result["abstained"] == any(chance < threshold for chance, threshold in pairs)
    assert not (output / "no_pretraining" / "confidence.json").exists()


def test_people_that_a_starting_model_may_know_neither_calibrate_nor_count_as_strangers(
    recipe, bios, tmp_path, knows_half_the_alphabet, capfd
):
    first, second, scored = (tmp_path / name for name in ("first", "second", "scored"))
    assert call("pretrain", recipe, bios, first) == 0
    assert call("finetune", recipe, bios, second, *CALIBRATED, f"finetune.start_from={first / 'pretrain'}") == 0
    assert "is not calibrated" in capfd.readouterr().err
    assert not (second / "finetune" / "confidence.json").exists()
    assert call("finetune", recipe, bios, first) == 0
    assert call("evaluate", recipe, bios, scored, *CALIBRATED, f"evaluate.model={first / 'finetune'}") == 0
    trust = json.loads((scored / "results.json").read_text())["trust"]
    assert (trust["withheld"], trust["auroc_withheld"]) == (0, None)


def test_a_run_from_before_a_key_existed_is_resumed_with_its_default(run, recipe, data, tmp_path, capfd):
    older = shutil.copytree(run, tmp_path / "older")
    values = json.loads((older / "recipe.json").read_text())
    del values["data"]["calibration_questions"]
    (older / "recipe.json").write_text(json.dumps(values))
    assert call("all", recipe, data, older, "data.calibration_questions=2", resume=True) == 2
    assert "data.calibration_questions was 0, now 2" in capfd.readouterr().err
    assert call("all", recipe, data, older, resume=True) == 0


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(run, recipe, data, tmp_path):
    folder = tmp_path / data.name
    folder.mkdir()
    for name in FILES.values():
        clean = (data / name).read_bytes()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + clean.replace(b"\n", b"\r\n"))
    assert call("all", recipe, folder, tmp_path / "run") == 0
    assert (tmp_path / "run" / "predictions.dev.txt").read_bytes() == (run / "predictions.dev.txt").read_bytes()


def test_help_is_quick_and_names_the_commands():
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"], capture_output=True, text=True, timeout=20
    )
    assert result.returncode == 0
    for word in ("pretrain", "finetune", "evaluate", "all"):
        assert word in result.stdout
