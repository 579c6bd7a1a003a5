"""A pipeline's model, places and calibration belong together: changed, saved again, of a revision, behind a token."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_model
from transformers import AutoModelForCausalLM, pipeline

from artifacts.safe_loading import check_contained
from modeling_minigpt import BirthplacePipeline, MiniGPTForCausalLM, cli_minigpt
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from modeling_minigpt.source_minigpt import SourceError, WeightsSource
from tests.outside.pipeline_parts import PLACES, random_parts
from tests.running import ROOT

HALVES = [CalibrationScores([(1.0, 1.0, True)] * 40 + [(1.0, 0.2, False)] * 10, [(0.1, 0.9)] * 100)] * 2
# Nobody gets an answer: a calibration that is not used shows in every answer.
NOBODY = Certificate(1.0, 1.0, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0)


@pytest.fixture(scope="module")
def parts():
    """The parts of a pipeline around a model of random weights."""
    return random_parts()


@pytest.fixture
def folder(parts, tmp_path):
    """A calibrated pipeline's folder."""
    head = Head({"question: answer": 0.1}, 2.0)
    confidence = Confidence(head, head, *HALVES, NOBODY)
    path = tmp_path / "model"
    BirthplacePipeline(**parts, candidates=PLACES, confidence=confidence).save_pretrained(path)
    return path


def load(name, **settings):
    """Load a pipeline as a user of the package does."""
    return pipeline("birthplace-qa", model=str(name), device="cpu", trust_remote_code=True, **settings)


@pytest.mark.row("H17")
def test_files_that_an_editor_has_saved_with_a_byte_order_mark_say_the_same(folder):
    (folder / "names.txt").write_text("José Stone\nBo Quint\n", encoding="utf-8")
    before = load(folder)
    for name in ("facts.json", "confidence.json", "names.txt"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    after = load(folder)
    assert after("jose stone")["matched_name"] == "José Stone"
    assert (after.candidates, after.confidence) == (before.candidates, before.confidence)
    check_contained(folder)  # as train.py does before it loads a model


def change_candidates(folder, candidates):
    """Give the only relation of a model's folder other candidates."""
    values = json.loads((folder / "facts.json").read_text())
    values["relations"][0]["candidates"] = candidates
    (folder / "facts.json").write_text(json.dumps(values))


def refuse_calibration(ask):
    """Check that a pipeline uses no calibration, says why, and answers nothing unless asked to."""
    assert ask("Ada Stone", threshold=0)["answer"] is not None
    result = ask("Ada Stone")
    assert (result["answer"], result["calibrated"]) == (None, False)
    assert ask.uncalibrated in result["reason"]
    assert ask.uncalibrated
    with pytest.raises(ValueError, match="not calibrated: its"):
        ask.threshold_for()


@pytest.mark.row("M5")
def test_a_calibrated_folder_is_loaded_with_its_calibration(folder):
    result = load(folder)("Ada Stone")
    assert (result["calibrated"], result["abstained"]) == (True, True)
    assert load(folder).uncalibrated is None


@pytest.mark.row("M5")
@pytest.mark.parametrize("saves", ["model", "weights"])
def test_a_model_that_was_trained_on_is_not_calibrated_any_more(folder, saves):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[3] += 1e-3
    if saves == "model":
        model.save_pretrained(folder)
    else:  # as accelerate does, which knows nothing of the other files
        save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
    refuse_calibration(load(folder))


@pytest.mark.row("M5")
@pytest.mark.parametrize(
    "override",
    [
        {"attention_type": "window"},
        {"num_hidden_layers": 1},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
        {"norm_eps": 1e-3},
        {"dtype": torch.bfloat16},
    ],
    ids=lambda override: next(iter(override)),
)
def test_a_model_loaded_as_another_function_is_not_calibrated(folder, override):
    refuse_calibration(load(folder, model_kwargs=override))


@pytest.mark.row("M5")
@pytest.mark.parametrize("override", [{"attention_dropout": 0.5}, {"window_block": 64}, {"linformer_slots": 8}])
def test_what_no_answer_depends_on_leaves_the_calibration(folder, override):
    assert load(folder, model_kwargs=override).uncalibrated is None


@pytest.mark.row("M5")
def test_other_places_or_another_tokenizer_are_not_calibrated(folder, parts):
    change_candidates(folder, ["Rome"])
    refuse_calibration(load(folder))
    BirthplacePipeline(**parts, candidates=PLACES, confidence=load(folder, candidates=PLACES).confidence)
    (folder / "facts.json").unlink()
    refuse_calibration(load(folder))


@pytest.mark.row("M5")
def test_a_calibration_that_does_not_say_of_which_weights_is_not_used(folder):
    values = json.loads((folder / "confidence.json").read_text())
    values["relations"]["birthplace"]["fingerprint"] = None
    (folder / "confidence.json").write_text(json.dumps(values))
    refuse_calibration(load(folder))


@pytest.mark.row("M5")
def test_a_pipeline_whose_model_was_trained_on_is_saved_without_its_calibration(folder, tmp_path):
    ask = load(folder)
    with torch.no_grad():
        ask.model.lm_head.weight[3] += 1e-3
    ask.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "confidence.json").exists()


RESAVE = """
import sys
if {alone}:
    sys.modules["modeling_minigpt"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
model = AutoModelForCausalLM.from_pretrained({folder!r}, trust_remote_code=True)
model.save_pretrained({again!r})
AutoTokenizer.from_pretrained({folder!r}, trust_remote_code=True).save_pretrained({again!r})
ask = pipeline("birthplace-qa", model={again!r}, device="cpu", trust_remote_code=True)
result = ask("Ada Stone", threshold=0)
print(result["answer"] is not None, result["calibrated"])
"""


@pytest.mark.row("M6")
@pytest.mark.parametrize("alone", [True, False], ids=["by its own code", "by the package"])
def test_a_loaded_model_saved_elsewhere_still_answers(folder, tmp_path, alone):
    script = RESAVE.format(alone=alone, folder=str(folder), again=str(tmp_path / "again"))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "True False"


@pytest.mark.row("M6")
def test_a_model_whose_folder_has_lost_the_code_is_saved_without_naming_it(folder, tmp_path, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(folder)
    monkeypatch.setattr("modeling_minigpt.saving_minigpt.find_pipeline_code", lambda source: {})
    model.save_pretrained(tmp_path / "again")
    assert "pipeline_minigpt" not in (tmp_path / "again" / "config.json").read_text()


@pytest.fixture
def repository(hub, tmp_path):
    """The name of a repository of this test's own: the client remembers for a while where a branch was."""
    return f"me/{tmp_path.parent.name}-{tmp_path.name}"[:90].rstrip("-_.")


@pytest.fixture
def two_versions(folder, parts, hub, repository, tmp_path):
    """Commit the calibrated model, call that v1, and change main since; return the first commit."""
    first = hub.put(repository, folder)
    hub.put(repository, folder, "v1")
    BirthplacePipeline(**parts, candidates=["Rome"]).save_pretrained(tmp_path / "new")
    hub.put(repository, tmp_path / "new")
    return first


@pytest.mark.row("H1")
@pytest.mark.parametrize("pinned", ["branch", "commit"])
def test_a_pinned_revision_has_its_own_places_and_calibration(two_versions, tmp_path, pinned, repository):
    cache = {"cache_dir": str(tmp_path / "cache")}
    old = load(repository, revision="v1" if pinned == "branch" else two_versions, model_kwargs=cache)
    assert (old.candidates, str(old.confidence.certificate)) == (PLACES, str(NOBODY))
    new = load(repository, model_kwargs=cache)
    assert (new.candidates, new.confidence) == (["Rome"], None)


@pytest.mark.row("H1")
def test_a_branch_that_moves_after_loading_changes_nothing(two_versions, hub, folder, tmp_path, repository):
    model = MiniGPTForCausalLM.from_pretrained(repository, revision="v1", cache_dir=str(tmp_path / "cache"))
    change_candidates(folder, ["Moved"])
    hub.put(repository, folder, "v1")
    assert "Rome West" in model.weights_source.read("facts.json")


@pytest.mark.row("H2")
def test_a_token_given_once_reaches_all_files(folder, hub, tmp_path, monkeypatch, repository):
    hub.put(repository, folder)
    hub.token = "hf_secret"
    ask = load(repository, token="hf_secret", model_kwargs={"cache_dir": str(tmp_path / "cache")})
    assert ask("Ada Stone")["calibrated"]
    assert "hf_secret" not in repr(vars(ask.model)) + repr(ask.model.weights_source)
    assert b"hf_secret" not in pickle.dumps(ask.model)


@pytest.mark.row("H2")
@pytest.mark.parametrize(
    ("file", "status"),
    [("confidence.json", 403), ("confidence.json", 429), ("facts.json", 503), ("facts.json", 0)],
)
def test_a_file_that_cannot_be_asked_for_is_not_taken_for_missing(folder, hub, tmp_path, file, status, repository):
    hub.put(repository, folder)
    hub.refusal = (file, status)
    with pytest.raises(SourceError, match=f"{repository}: {file} cannot be read"):
        load(repository, model_kwargs={"cache_dir": str(tmp_path / "cache")})


@pytest.mark.row("H2")
def test_a_file_that_is_not_there_is_none(parts, hub, tmp_path, repository):
    BirthplacePipeline(**parts, candidates=PLACES).save_pretrained(tmp_path / "plain")
    hub.put(repository, tmp_path / "plain")
    for _ in range(2):  # the second time the cache knows it
        ask = load(repository, model_kwargs={"cache_dir": str(tmp_path / "cache")})
        assert (ask.candidates, ask.confidence) == (PLACES, None)


@pytest.mark.row("H2")
def test_without_a_network_a_cached_model_keeps_its_calibration(folder, hub, tmp_path, repository, monkeypatch):
    hub.put(repository, folder)
    settings = {"model_kwargs": {"cache_dir": str(tmp_path / "cache")}}
    load(repository, **settings)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load(repository, **settings)("Ada Stone")["calibrated"]


@pytest.mark.row("H2")
def test_a_model_cached_before_there_were_relations_answers_without_a_network(
    folder, parts, hub, tmp_path, repository, monkeypatch
):
    (folder / "facts.json").unlink()
    (folder / "birthplaces.json").write_text(json.dumps({"candidates": PLACES}))
    hub.put(repository, folder)
    model = MiniGPTForCausalLM.from_pretrained(repository, cache_dir=str(tmp_path / "cache"))
    for file in ("birthplaces.json", "confidence.json"):  # all that was read then
        assert model.weights_source.read(file)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ask = BirthplacePipeline(**{**parts, "model": model})
    assert (ask.candidates, ask("Ada Stone")["calibrated"]) == (PLACES, True)


@pytest.mark.row("H2")
def test_a_model_in_a_subfolder_has_the_files_beside_it(folder, hub, tmp_path, repository):
    folder.rename(tmp_path / "inner")
    (tmp_path / "outer").mkdir()
    (tmp_path / "inner").rename(tmp_path / "outer" / "best")
    hub.put(repository, tmp_path / "outer")
    model = MiniGPTForCausalLM.from_pretrained(repository, subfolder="best", cache_dir=str(tmp_path / "cache"))
    assert "Rome West" in model.weights_source.read("facts.json")
    assert model.weights_source.read("results.json") is None


@pytest.mark.row("H2")
def test_a_relative_folder_is_still_found_from_another(folder, parts, monkeypatch, tmp_path):
    monkeypatch.chdir(folder.parent)
    model = AutoModelForCausalLM.from_pretrained(folder.name)
    monkeypatch.chdir(tmp_path.parent)
    ask = BirthplacePipeline(**{**parts, "model": model})
    assert (ask.candidates, ask("Ada Stone")["calibrated"]) == (PLACES, True)


@pytest.mark.row("H2")
def test_a_file_without_the_right_to_read_it_is_not_taken_for_missing(folder):
    (folder / "confidence.json").unlink()
    (folder / "confidence.json").mkdir()  # root may read any file, but no folder as one
    with pytest.raises(SourceError, match=r"confidence\.json: cannot be read"):
        WeightsSource(str(folder)).read("confidence.json")


@pytest.mark.row("M5")
def test_the_command_says_why_a_model_is_not_calibrated(folder, capsys):
    change_candidates(folder, ["Rome"])
    assert cli_minigpt.main(["info", str(folder)]) == 0
    assert "none: its candidates are not those that it was calibrated with" in capsys.readouterr().out
