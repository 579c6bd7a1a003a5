"""Saved folders load by the Auto classes, with the package imported or from the code saved beside the weights."""

import ast
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, MiniGPTModel

PROMPT = "Where was Ada Vell born?"
ALLOWED_IMPORTS = {"torch", "transformers", "huggingface_hub", "tokenizers", *sys.stdlib_module_names}
SAVERS = ["causal-lm", "base-model"]

# What someone without the package runs; the finder makes sure that an installed one is not used in secret.
STRANGER = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_minigpt":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

found, tensors = {}, {}
for saver in sys.argv[2:]:
    folder = f"{sys.argv[1]}/{saver}"
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    inputs = tokenizer("Where was Ada Vell born?", return_tensors="pt")
    trunk = AutoModel.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    found[saver] = {
        "classes": [type(thing).__name__ for thing in (config, trunk, model)],
        "modules": [type(thing).__module__ for thing in (config, trunk, model)],
        "ids": inputs.input_ids[0].tolist(),
        "generated": model.generate(**inputs, max_new_tokens=5, do_sample=False)[0].tolist(),
    }
    with torch.no_grad():
        tensors[f"{saver}.hidden"] = trunk(**inputs).last_hidden_state
        tensors[f"{saver}.head-hidden"] = model.model(**inputs).last_hidden_state
        tensors[f"{saver}.logits"] = model(**inputs).logits
assert "modeling_minigpt" not in sys.modules
save_file(tensors, "tensors.safetensors")
json.dump(found, open("found.json", "w"))
"""


@pytest.fixture
def save(tiny_model, character_tokenizer, tmp_path):
    """Save a tiny model, or its trunk alone, with its tokenizer; return the folder and the model."""

    def write(saver, variant="rotary"):
        model = tiny_model(variant)
        folder = tmp_path / "models" / saver
        (model if saver == "causal-lm" else model.model).save_pretrained(folder)
        character_tokenizer.save_pretrained(folder)
        return folder, model

    return write


@pytest.mark.parametrize("saver", SAVERS)
def test_auto_classes_load_once_the_package_is_imported(save, tokens, saver, variant):
    folder, model = save(saver, variant)
    ids = tokens(2, 7)
    assert type(AutoConfig.from_pretrained(folder)) is MiniGPTConfig
    trunk = AutoModel.from_pretrained(folder)
    assert type(trunk) is MiniGPTModel
    assert torch.equal(trunk(ids).last_hidden_state, model.model(ids).last_hidden_state)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert type(loaded) is MiniGPTForCausalLM
    assert torch.equal(loaded.model(ids).last_hidden_state, model.model(ids).last_hidden_state)
    if saver == "causal-lm":
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_tokenizer_loads_beside_the_model(save, character_tokenizer):
    folder, _ = save("causal-lm")
    assert AutoTokenizer.from_pretrained(folder)(PROMPT).input_ids == character_tokenizer(PROMPT).input_ids


def test_folder_serves_the_text_generation_pipeline(save, character_tokenizer):
    folder, model = save("causal-lm")
    generator = pipeline("text-generation", model=str(folder), device="cpu")
    written = generator(PROMPT, max_new_tokens=5, do_sample=False)[0]["generated_text"]
    inputs = character_tokenizer(PROMPT, return_tensors="pt")
    wanted = model.generate(**inputs, max_new_tokens=5, do_sample=False, eos_token_id=1)[0]
    assert written.startswith(PROMPT)
    assert written == character_tokenizer.decode(wanted, skip_special_tokens=True)


def test_a_stranger_loads_the_same_model_from_the_folder(save, character_tokenizer, tmp_path):
    models = {saver: save(saver)[1] for saver in SAVERS}
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "TRANSFORMERS_"))
    }
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    run = subprocess.run(
        [sys.executable, "-c", STRANGER, str(tmp_path / "models"), *SAVERS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    tensors = load_file(tmp_path / "tensors.safetensors")
    inputs = character_tokenizer(PROMPT, return_tensors="pt")
    for saver, model in models.items():
        assert found[saver]["classes"] == ["MiniGPTConfig", "MiniGPTModel", "MiniGPTForCausalLM"]
        assert all(module.startswith("transformers_modules.") for module in found[saver]["modules"])
        assert found[saver]["ids"] == inputs.input_ids[0].tolist()
        hidden = model.model(**inputs).last_hidden_state
        assert torch.equal(tensors[f"{saver}.hidden"], hidden)
        assert torch.equal(tensors[f"{saver}.head-hidden"], hidden)
    assert torch.equal(tensors["causal-lm.logits"], models["causal-lm"](**inputs).logits)
    generated = models["causal-lm"].generate(**inputs, max_new_tokens=5, do_sample=False)[0].tolist()
    assert found["causal-lm"]["generated"] == generated


@pytest.mark.parametrize("saver", SAVERS)
def test_saved_code_is_complete_and_asks_for_little(save, saver):
    folder, _ = save(saver)
    files = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in folder.glob("*.py")}
    assert {"attention_minigpt", "configuration_minigpt", "modeling_minigpt"} <= files.keys()
    for stem, tree in files.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED_IMPORTS, stem
            elif isinstance(node, ast.ImportFrom) and node.level:
                assert (node.level, node.module in files) == (1, True), f"{stem} imports {node.module}"
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in ALLOWED_IMPORTS, stem


@pytest.mark.parametrize("saver", SAVERS)
def test_saved_config_maps_every_auto_class(save, saver):
    folder, _ = save(saver)
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    assert auto_map.keys() == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    for name in auto_map.values():
        module, class_name = name.split(".")
        assert f"class {class_name}(" in (folder / f"{module}.py").read_text(encoding="utf-8")
