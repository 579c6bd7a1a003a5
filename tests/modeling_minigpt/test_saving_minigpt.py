"""What saving writes: weights whatever else fails, code that the config names, an upload of the whole folder."""

import json
import stat

import pytest
import torch
from transformers import logging

from modeling_minigpt import BirthplacePipeline, MiniGPTForCausalLM
from modeling_minigpt.source_minigpt import SourceError
from tests.outside.pipeline_parts import PLACES, random_parts

NAME = "me/saved"


class UnreachableSource:
    """The source of a model whose repository cannot be reached."""

    def read(self, file):
        raise SourceError(f"me/model: {file} cannot be read: no network")


@pytest.fixture(scope="module")
def parts():
    """The parts of a pipeline around a model of random weights."""
    return random_parts()


@pytest.fixture
def model(parts, tmp_path):
    """A model loaded from a folder whose config names a pipeline."""
    BirthplacePipeline(**parts, candidates=PLACES).save_pretrained(tmp_path / "source")
    return MiniGPTForCausalLM.from_pretrained(tmp_path / "source")


@pytest.fixture
def warnings(monkeypatch):
    """The library's warnings, as they come."""
    found = []
    monkeypatch.setattr(logging.get_logger("modeling_minigpt.saving_minigpt"), "warning", found.append)
    return found


def named_pipelines(folder):
    return json.loads((folder / "config.json").read_text()).get("custom_pipelines")


def test_weights_are_saved_where_the_code_of_the_pipeline_cannot_be_read(model, warnings, monkeypatch, tmp_path):
    monkeypatch.setattr("modeling_minigpt.source_minigpt.PIPELINE_CODE", "not_beside_the_model.py")
    known = model.weights_source
    model.weights_source = UnreachableSource()
    model.save_pretrained(tmp_path / "again")
    assert len(warnings) == 1
    assert "saved without the code of its pipeline: me/model: not_beside_the_model.py cannot be read" in warnings[0]
    assert named_pipelines(tmp_path / "again") is None
    loaded = MiniGPTForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    monkeypatch.undo()  # the network is back, and the model still has the name
    model.weights_source = known
    model.save_pretrained(tmp_path / "again")
    assert "birthplace-qa" in named_pipelines(tmp_path / "again")
    assert (tmp_path / "again" / "pipeline_minigpt.py").is_file()


def check_upload(hub, folder):
    """Check that all of a folder was uploaded by its last commit."""
    assert hub.files(NAME) == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.commits(NAME) == 1


def test_a_model_is_uploaded_with_the_code_that_its_config_names(model, hub, tmp_path):
    model.save_pretrained(tmp_path / "again", push_to_hub=True, repo_id=NAME, token="hf_x", private=True)
    check_upload(hub, tmp_path / "again")
    assert {"model.safetensors", "config.json", "pipeline_minigpt.py", "README.md"} <= hub.files(NAME).keys()
    assert hub.repository(NAME).private


def test_a_pipeline_is_uploaded_with_its_facts_and_tokenizer(parts, hub, tmp_path):
    ask = BirthplacePipeline(**parts, candidates=PLACES, names=["Ada Stone"])
    ask.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=NAME, token="hf_x", max_shard_size="1GB")
    check_upload(hub, tmp_path / "saved")
    assert {"facts.json", "names.txt", "tokenizer.json", "model.safetensors"} <= hub.files(NAME).keys()


@pytest.mark.parametrize("name", ["model", "pipeline"])
def test_a_setting_that_there_is_not_is_refused_before_anything_is_made(parts, model, hub, tmp_path, name):
    saved = model if name == "model" else BirthplacePipeline(**parts, candidates=PLACES)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'privat'$"):
        saved.save_pretrained(tmp_path / "again", push_to_hub=True, repo_id=NAME, token="hf_x", privat=True)
    assert hub.repositories == {}
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("name", ["model", "pipeline"])
@pytest.mark.parametrize("push", [False, True])
def test_a_file_in_place_of_the_folder_is_refused_before_anything_is_made(parts, model, hub, tmp_path, name, push):
    saved = model if name == "model" else BirthplacePipeline(**parts, candidates=PLACES)
    path = tmp_path / "again"
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"again: a file, wanted a folder to save into$"):
        saved.save_pretrained(path, push_to_hub=push)
    assert path.read_text() == "mine"
    assert hub.repositories == {}


@pytest.mark.parametrize("name", ["model", "pipeline"])
def test_a_revision_is_uploaded_to_its_branch_alone(parts, model, hub, tmp_path, monkeypatch, name):
    committed = []
    commit = hub.commit
    monkeypatch.setattr(hub, "commit", lambda *parts: committed.append(parts[-1]) or commit(*parts))
    saved = model if name == "model" else BirthplacePipeline(**parts, candidates=PLACES)
    settings = {"push_to_hub": True, "repo_id": NAME, "revision": "dev", "commit_description": "for a trial"}
    saved.save_pretrained(tmp_path / "again", token="hf_x", private=True, **settings)
    assert hub.files(NAME) == {}
    assert hub.files(NAME, "dev") == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert json.loads(committed[0].splitlines()[0])["value"]["description"] == "for a trial"


def test_only_the_main_process_uploads(model, hub, tmp_path):
    model.save_pretrained(tmp_path / "again", is_main_process=False, push_to_hub=True, repo_id=NAME, token="hf_x")
    assert hub.repositories == {}


def test_what_was_in_the_folder_before_is_not_uploaded(model, hub, tmp_path):
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "diary.txt").write_text("mine")
    model.save_pretrained(tmp_path / "again", push_to_hub=True, repo_id=NAME, token="hf_x")
    assert "diary.txt" not in hub.files(NAME)
    assert "model.safetensors" in hub.files(NAME)


class Adapter:
    """The config of PEFT's adapter, as far as saving asks for it."""

    def save_pretrained(self, folder):
        (folder / "adapter_config.json").write_text("{}")


def test_an_adapter_is_saved_without_the_files_of_the_model(model, monkeypatch, tmp_path):
    weights = {"layer.lora_A.weight": torch.ones(2, 2)}
    for name, value in {
        "_hf_peft_config_loaded": True,
        "peft_config": {"default": Adapter()},
        "get_adapter_state_dict": lambda **_: dict(weights),
        "active_adapters": lambda: ["default"],
    }.items():
        monkeypatch.setattr(model, name, value, raising=False)
    model.save_pretrained(tmp_path / "adapter")
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "adapter").iterdir()}
    assert not {"config.json", "model.safetensors", "pipeline_minigpt.py"} & found.keys()
    assert found["adapter_model.safetensors"] == found["adapter_config.json"]
