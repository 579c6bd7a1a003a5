"""Model folders whose files were tampered with: a model that answers, or one line; no code of theirs is run."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artifacts.loading import load_model, load_pipeline, start_from
from artifacts.run_folder import RunError, training_record
from artifacts.safe_loading import check_contained
from modeling_minigpt import MiniGPTConfig
from modeling_minigpt.confidence_file_minigpt import confidences_to_json
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import FEATURE_NAMES
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.fuzz.cases import (
    NAMES_OUTSIDE,
    assert_one_line,
    cases,
    json_values,
    numbers,
    paths_of,
    quickly,
    replaced,
    write_json,
)

FILES = [
    "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "facts.json",
    "confidence.json", "training.json",
]  # fmt: skip
HEAD = Head(dict.fromkeys(FEATURE_NAMES, 0.1), -0.5)
CONFIDENCE = Confidence(
    HEAD, HEAD, CalibrationScores([(0.9, 0.9, True), (0.9, 0.2, False)], [(0.1, 0.9)]),
    CalibrationScores([(0.9, 0.8, True)], [(0.01, 0.5)]),
    Certificate(0.05, 0.05, 0.5, 0.5, 0.4, 1, 1, 0, 1, 0),
)  # fmt: skip
STRANGE_KEYS = {
    "num_labels": 10**9, "id2label": {"0": "x"}, "quantization_config": {"quant_method": "gptq", "bits": 4},
    "attn_implementation": "flash_attention_2", "_attn_implementation": "nobody/kernel",
    "rope_scaling": {"type": "yarn"},
    "per_layer_config": {"0": {"hidden_size": 10**9}}, "torch_dtype": "float16", "dtype": "int8",
    "rope_theta": float("nan"),
    "output_attentions": True, "output_hidden_states": True, "return_dict": False, "is_encoder_decoder": True,
    "transformers_weights": "model.safetensors", "text_config": {"model_type": "gpt2"}, "head_dim": 3,
    "is_vanilla": False,
    "num_beams": 10**9, "validate_architecture": None, "__class__": "x", "tie_word_embeddings": True,
    "model_type": "llama",
    "hidden_size": 10**12, "num_hidden_layers": 10**9, "vocab_size": -5, "performer_features": 10**9,
    "norm_eps": math.inf,
    "attention_type": ["performer", "linformer"], "bigbird_block": 2**20, "window_size": 2**20,
    "max_position_embeddings": 1,
    "max_new_tokens": 10**9, "custom_generate": "nobody/code", "cache_implementation": "static",
    "chat_template": "{{ x }}",
    "added_tokens_decoder": {"5": {"content": "x"}}, "tokenizer_class": "LlamaTokenizer", "padding_side": "up",
    "model_input_names": [], "extra_special_tokens": {"x": "y"}, "eos_token": None, "mask_token": {"content": "⁇"},
}  # fmt: skip


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    """Return the folder that holds the model's folder; code and files there would be a thief's."""
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(scope="module")
def folder(run, outside) -> Path:
    """Return a copy of a finished model's folder, calibrated, in which all code but leaves a mark where it is run."""
    folder = shutil.copytree(run / "finetune", outside / "model")
    (folder / "confidence.json").write_text(confidences_to_json({"birthplace": CONFIDENCE}))
    canary = f"open({str(outside / 'mark')!r}, 'w').close()\n"
    for path in (*folder.glob("*.py"), folder / "evil.py", outside / "evil.py"):
        path.write_text(canary)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(folder / name, outside / name)
    return folder


@pytest.fixture(scope="module")
def originals(folder) -> dict[str, object]:
    """Return what the folder's JSON files hold."""
    return {name: json.loads((folder / name).read_text()) for name in FILES}


def load(folder: Path, outside: Path, starts: bool = True) -> bool:
    """Load and ask a model, and start another one from it; tell whether there was a model that answers."""
    before = {name: (folder / name).read_bytes() for name in FILES}
    answered = False
    try:
        with quickly():
            training_record(folder)
            pipeline = load_pipeline(folder)
            results = pipeline(["Ada Stone", "Where was Bo Li born?"], threshold=0.0)
            tokens = pipeline.tokenizer(["Ada Stone⁇"], return_tensors="pt")["input_ids"]
            assert torch.isfinite(pipeline.model(tokens).logits).all()
            assert all(math.isfinite(result["score"]) and 0.0 <= result["score"] <= 1.0 for result in results)
            answered = True
    except RunError as error:
        assert_one_line(error)
    try:
        with quickly():
            model = start_from(folder, MiniGPTConfig(**WANTED)) if starts else torch.nn.Identity()
            assert all(weight.isfinite().all() for weight in model.parameters())
    except RunError as error:
        assert_one_line(error)
    assert not (outside / "mark").exists()
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    return answered


WANTED = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
    "vocab_size": 400,
    "pad_token_id": 0, "eos_token_id": 1, "zero_init_residual": True,
}  # fmt: skip


@pytest.fixture
def tamper(folder, outside, monkeypatch):
    """Return a function that loads the folder with other bytes in one file, and puts back what that held."""
    model = load_model(folder)

    def tamper(name: str, content: bytes) -> bool:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        weighs = name in ("config.json", "generation_config.json", "model.safetensors")
        try:
            with monkeypatch.context() as patch:
                if not weighs:  # the model is as it was, and need not be made again
                    patch.setattr("artifacts.loading.load_model", lambda path: check_contained(path) or model)
                return load(folder, outside, starts=weighs)
        finally:
            (folder / name).write_bytes(before)

    return tamper


def test_the_folder_that_is_tampered_with_is_whole(folder, outside):
    assert load(folder, outside)


@cases(300)
@given(data=st.data(), name=st.sampled_from(FILES), value=json_values | numbers)
def test_one_other_value_in_a_json_file(tamper, originals, data, name, value):
    path = data.draw(st.sampled_from([(), *paths_of(originals[name])]))
    changed = replaced(originals[name], path, value) if path else value
    tamper(name, json.dumps(changed).encode())


@cases(80)
@given(data=st.data(), value=st.sampled_from([math.nan, math.inf, -math.inf, 1e300, 10**400, "1", None, True, []]))
def test_one_other_number_in_the_confidence(tamper, originals, data, value):
    values = originals["confidence.json"]
    parts = ("known", "correct", "certificate")
    inner = [path for path in paths_of(values) if path[3:] and path[2] in parts]
    path = data.draw(st.sampled_from(inner))
    tamper("confidence.json", json.dumps(replaced(values, path, value)).encode())


@cases(60)
@given(
    name=st.sampled_from(["config.json", "tokenizer_config.json", "generation_config.json"]),
    keys=st.lists(st.sampled_from(sorted(STRANGE_KEYS)), min_size=1, max_size=2, unique=True),
)
def test_strange_keys_in_a_json_file(tamper, originals, name, keys):
    added = {**originals[name], **{key: STRANGE_KEYS[key] for key in keys}}
    tamper(name, json.dumps(added).encode())


@cases(100)
@given(
    name=st.sampled_from([*FILES, "model.safetensors"]),
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
    cut=st.booleans(),
)
def test_a_byte_or_the_end_of_a_file_lost(folder, tamper, name, place, byte, cut):
    content = bytearray((folder / name).read_bytes())
    at = int(place * min(len(content), 3000))  # where the weights' file has its header
    if cut:
        del content[at:]
    else:
        content[at] = byte
    tamper(name, bytes(content))


NAMING = {
    "auto_map": ("config.json", lambda name: {"auto_map": {"AutoModelForCausalLM": f"{name}.Model"}}),
    "auto_map of another repository": (
        "config.json",
        lambda name: {"auto_map": {"AutoConfig": f"nobody/{name}--evil.C"}},
    ),
    "tokenizer's auto_map": (
        "tokenizer_config.json",
        lambda name: {"auto_map": {"AutoTokenizer": [f"{name}.T", None]}},
    ),
    "pipeline": ("config.json", lambda name: {"custom_pipelines": {"birthplace-qa": {"impl": f"{name}.P"}}}),
    "weights": ("config.json", lambda name: {"transformers_weights": name}),
    "weight_map": ("model.safetensors.index.json", lambda name: {"weight_map": {"lm_head.weight": name}}),
    "tokenizer_file": ("tokenizer_config.json", lambda name: {"tokenizer_file": name}),
    "vocab_file": ("tokenizer_config.json", lambda name: {"vocab_file": name}),
    "tokenizer files": ("tokenizer_config.json", lambda name: {"fast_tokenizer_files": ["tokenizer.json", name]}),
    "adapter": ("adapter_config.json", lambda name: {"base_model_name_or_path": name, "peft_type": "LORA"}),
    "kernel": ("config.json", lambda name: {"attn_implementation": f"nobody/{name}"}),
    "generate": ("generation_config.json", lambda name: {"custom_generate": f"nobody/{name}"}),
}


@cases(100)
@given(
    kind=st.sampled_from(sorted(NAMING)), outer=st.sampled_from(NAMES_OUTSIDE[:6]) | st.just("../model.safetensors")
)
def test_files_outside_the_folder_are_refused_by_name(folder, outside, originals, kind, outer):
    file, make = NAMING[kind]
    path = folder / file
    before = path.read_bytes() if path.exists() else None
    write_json(path, {**originals.get(file, {}), **make(outer)})
    try:
        for loading in (load_pipeline, lambda path: start_from(path, MiniGPTConfig(**WANTED))):
            with pytest.raises(RunError) as caught, quickly():
                loading(folder)
            message = assert_one_line(caught.value)
            assert file in message
            assert "outside" in message or " names " in message
    finally:
        path.write_bytes(before) if before is not None else path.unlink()
    assert not (outside / "mark").exists()


@cases(20)
@given(
    name=st.sampled_from([*FILES, "model.safetensors"]), linked=st.sampled_from(["config.json", "missing", "evil.py"])
)
def test_a_link_out_of_the_folder_is_refused(folder, outside, name, linked):
    before = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).symlink_to(outside / linked)
    try:
        with pytest.raises(RunError, match="outside the folder"):
            load_pipeline(folder)
    finally:
        (folder / name).unlink()
        (folder / name).write_bytes(before)
