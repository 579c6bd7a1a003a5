"""Model folders: what names files outside itself, or is no model that answers, is refused by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts.loading import load_model, load_pipeline, load_tokenizer, start_from
from artifacts.run_folder import RunError, training_record
from artifacts.safe_loading import check_contained
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM


@pytest.fixture
def folder(run, tmp_path):
    return shutil.copytree(run / "finetune", tmp_path / "model")


def change_candidates(folder, candidates):
    """Give the only relation of a model's folder other candidates."""
    values = json.loads((folder / "facts.json").read_text())
    values["relations"][0]["candidates"] = candidates
    (folder / "facts.json").write_text(json.dumps(values))


def change(folder, name, **changes):
    path = folder / name
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


NAMING = {
    "auto_map": ("config.json", {"auto_map": {"AutoModel": "../evil.Model"}}, "auto_map names '../evil.Model'"),
    "repository": ("config.json", {"auto_map": {"AutoModel": "a/b--evil.M"}}, "auto_map names 'a/b--evil.M'"),
    "list": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["/e.T", None]}}, "auto_map names '/e.T'"),
    "pipeline": ("config.json", {"custom_pipelines": {"x": {"impl": "a--b.P"}}}, "impl names 'a--b.P'"),
    "kernel": ("config.json", {"attn_implementation": "a/kernel"}, "attn_implementation names 'a/kernel'"),
    "weights": ("config.json", {"transformers_weights": "/x.safetensors"}, "names '/x.safetensors'"),
    "index": ("model.safetensors.index.json", {"weight_map": {"lm_head.weight": "../x"}}, "weight_map names '../x'"),
    "tokenizer": ("tokenizer_config.json", {"tokenizer_file": "../tokenizer.json"}, "tokenizer_file names '../tok"),
    "files": ("tokenizer_config.json", {"fast_tokenizer_files": ["a", "https://b/c"]}, "names 'https://b/c'"),
    "adapter": ("adapter_config.json", {"base_model_name_or_path": "../base"}, "names '../base'"),
}


@pytest.mark.parametrize(("name", "changes", "wanted"), NAMING.values(), ids=NAMING)
def test_json_that_names_files_outside_the_folder_is_refused(folder, name, changes, wanted):
    change(folder, name, **changes)
    for load in (load_model, load_tokenizer, lambda path: start_from(path, MiniGPTConfig())):
        with pytest.raises(RunError) as caught:
            load(folder)
        assert str(caught.value).startswith(f"{folder / name}: ")
        assert wanted in str(caught.value)


def test_files_of_the_folder_may_be_named(folder):
    change(folder, "tokenizer_config.json", tokenizer_file="tokenizer.json", vocab_file="more/vocab.json")
    change(folder, "model.safetensors.index.json", weight_map={"lm_head.weight": "model.safetensors"})
    assert load_pipeline(folder)("Ada Stone", threshold=0.0)["reason"] is None


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(folder, tmp_path):
    shutil.move(folder / "model.safetensors", folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    load_model(folder)
    shutil.move(folder / "weights", tmp_path / "weights")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "weights")
    with pytest.raises(RunError, match=r"model\.safetensors: links to .*, which is outside the folder"):
        load_model(folder)


def test_a_snapshot_of_the_hubs_cache_links_to_its_blobs(run, tmp_path):
    repository = tmp_path / "models--a--b"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    shutil.copytree(run / "finetune", repository / "blobs")
    for path in (repository / "blobs").iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    load_pipeline(snapshot)


def test_a_loaded_tokenizer_is_saved_as_it_was(run, tmp_path):
    load_tokenizer(run / "finetune").save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (run / "finetune" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["", "no\0model", "x" * 5000, "a/../b"])
def test_a_name_that_is_no_folder_is_refused(name):
    check_contained(name)
    with pytest.raises(RunError):
        load_model(name)


def broken(**changes):
    return lambda folder: change(folder, "config.json", **changes)


def spoil_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][3, 3] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def nest(folder):
    (folder / "config.json").write_text("[" * 100_000)


def skip_a_number(folder):
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["vocab"][max(values["model"]["vocab"], key=values["model"]["vocab"].get)] = 10**9
    (folder / "tokenizer.json").write_text(json.dumps(values))


def overflow(folder):
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"].fill_(3e38)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


TAMPERING = {
    "nesting": (nest, "not JSON"),
    "layers": (broken(num_hidden_layers=9_999), "describes 9999 layers"),
    "endless layers": (broken(num_hidden_layers=10**9), "num_hidden_layers must be at most 10000"),
    "width": (broken(hidden_size=1_000), "weights, but 23 tensors with"),
    "memory": (broken(hidden_size=2**30), "no model that can be loaded"),
    "dtype": (broken(dtype="int8"), "dtype must be one of float32"),
    "eps": (broken(norm_eps=float("nan")), "norm_eps must be in [0, 1e6], found nan"),
    "token": (broken(eos_token_id=10**20), "eos_token_id must be in the vocabulary of 400"),
    "rotation": (broken(rope_parameters={"rope_theta": 0.0}), "rope_theta must be a number from 1"),
    "weight": (spoil_weight, "lm_head.weight contains values that are not finite"),
    "overflow": (overflow, "the model's outputs are not finite"),
    "numbering": (skip_a_number, "are not numbered from 0 to 399"),
    "longest answer": (
        lambda folder: change(folder, "generation_config.json", max_new_tokens="many"),
        "no model that can be loaded",
    ),
    "mask": (lambda folder: change(folder, "tokenizer_config.json", mask_token=None), "mask_token is None"),
    "twice": (lambda folder: change_candidates(folder, ["A", "A"]), "1 and 2 are the same"),
    "long place": (lambda folder: change_candidates(folder, ["A b " * 900]), "tokens long, the"),
    "confidence": (
        lambda folder: (folder / "confidence.json").write_text("{}"),
        "confidence.json is not what it should be",
    ),
}


@pytest.mark.parametrize(("tamper", "wanted"), TAMPERING.values(), ids=TAMPERING)
def test_a_folder_that_is_no_model_that_answers_is_refused_in_one_line(folder, tamper, wanted):
    tamper(folder)
    with pytest.raises(RunError) as caught:
        load_pipeline(folder)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(run, folder):
    config = MiniGPTConfig(vocab_size=300, hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    MiniGPTForCausalLM(config).save_pretrained(folder)
    with pytest.raises(RunError, match="the tokenizer has 400 tokens, the model 300"):
        load_pipeline(folder)


def test_settings_that_are_not_a_minigpts_change_nothing(run, folder):
    asked = ["Ada Stone", "Bo Li"]
    expected = load_pipeline(run / "finetune")(asked, threshold=0.0)
    change(folder, "config.json", is_encoder_decoder=True, num_labels=10**9, output_hidden_states=True, num_beams=7)
    change(folder, "generation_config.json", num_beams=10**6, num_return_sequences=9, do_sample=True, temperature=9.0)
    assert load_pipeline(folder)(asked, threshold=0.0) == expected
    change(folder, "generation_config.json", max_new_tokens=10**9)
    assert load_model(folder).generation_config.max_new_tokens is None


@pytest.mark.parametrize(
    ("text", "wanted"), [("[]", "wanted an object"), ("{", "cannot be read"), ("[" * 10**5, "cannot be read")]
)
def test_a_training_record_that_is_none_is_refused(tmp_path, text, wanted):
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(RunError, match=wanted):
        training_record(tmp_path)
