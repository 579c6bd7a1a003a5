"""MiniGPTConfig: shipped presets, refusals that name the values, and a save that loads back equal."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM
from modeling_minigpt.attention_base_minigpt import MiniGPTHeadRMSNorm

PRESETS = Path(__file__).parents[2] / "configuration" / "models"

REFUSED = {
    "heads-not-dividing-width": ({"num_attention_heads": 5}, ["hidden_size (32)", "num_attention_heads (5)"]),
    "odd-rotary-head": ({"hidden_size": 36}, ["even head width", "9"]),
    "unknown-attention": ({"attention_type": "telepathic"}, ["attention_type", "vanilla", "'telepathic'"]),
    "unknown-norm": ({"norm_type": "batchnorm"}, ["norm_type", "rmsnorm, layernorm", "'batchnorm'"]),
    "unknown-positions": (
        {"position_embedding_type": "sinus"},
        ["position_embedding_type", "rotary, learned", "'sinus'"],
    ),
    "unknown-scaling": ({"rope_parameters": {"rope_type": "yawn"}}, ["rope_type", "linear, dynamic, yarn", "'yawn'"]),
    "scaling-without-factor": (
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0}},
        ["rope_parameters", "yarn", "factor"],
    ),
    "dropout-of-one": ({"attention_dropout": 1.0}, ["attention_dropout", "[0, 1)", "1.0"]),
    "negative-dropout": ({"residual_dropout": -0.1}, ["residual_dropout", "[0, 1)", "-0.1"]),
    "large-dropout": ({"embedding_dropout": 10.0}, ["embedding_dropout", "[0, 1)", "10.0"]),
    "no-layers": ({"num_hidden_layers": 0}, ["num_hidden_layers", "at least 1", "0"]),
    "no-heads": ({"num_attention_heads": 0}, ["num_attention_heads", "at least 1", "0"]),
    "empty-vocabulary": ({"vocab_size": 0}, ["vocab_size", "at least 1", "0"]),
    "empty-mlp": ({"intermediate_size": 0}, ["intermediate_size", "at least 1", "0"]),
    "width-as-text": ({"hidden_size": "32"}, ["hidden_size", "int", "'32'"]),
}


def read_preset(name: str) -> dict:
    """Return the fields of a shipped preset."""
    return json.loads((PRESETS / f"{name}.json").read_text(encoding="utf-8"))


def test_seed_preset_has_the_parameters_of_the_practical():
    model = MiniGPTForCausalLM(MiniGPTConfig(**read_preset("minigpt-seed"), vocab_size=256))
    assert model.num_parameters() == 3_323_392


def test_seed_preset_builds_the_parts_of_the_practical():
    model = MiniGPTForCausalLM(MiniGPTConfig(**read_preset("minigpt-seed"), vocab_size=64))
    block = model.model.layers[0]
    assert model.model.embed_positions.weight.shape == (128, 256)
    assert len(model.model.layers) == 4
    assert model.config.num_attention_heads == 8
    assert {type(norm) for norm in (block.input_layernorm, block.post_attention_layernorm, model.model.norm)} == {
        nn.LayerNorm
    }
    assert block.mlp.act_fn(torch.tensor(1.0)) == nn.functional.gelu(torch.tensor(1.0))
    linears = [module for module in model.model.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 4 * 6
    assert all(linear.bias is not None for linear in linears)
    assert {block.dropout.p, model.model.dropout.p, block.self_attn.attention_dropout} == {0.1}
    assert isinstance(block.self_attn.q_norm, nn.Identity)


def test_modern_preset_builds_the_modern_parts():
    model = MiniGPTForCausalLM(MiniGPTConfig(**read_preset("minigpt"), vocab_size=64))
    block = model.model.layers[0]
    assert model.model.embed_positions is None
    assert type(block.input_layernorm) is type(model.model.norm) is nn.RMSNorm
    assert type(block.self_attn.q_norm) is type(block.self_attn.k_norm) is MiniGPTHeadRMSNorm
    assert block.mlp.act_fn(torch.tensor([-3.0, 3.0])).tolist() == [0.0, 9.0]
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_presets_hold_only_known_fields(path):
    assert set(read_preset(path.stem)) <= set(MiniGPTConfig.__dataclass_fields__)


@pytest.mark.parametrize(("fields", "mentions"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_values_are_refused_with_the_values(tiny_config, fields, mentions):
    with pytest.raises(StrictDataclassError) as refusal:
        tiny_config(**fields)
    assert [text for text in mentions if text not in str(refusal.value)] == []


def test_unknown_activation_is_refused_at_construction(tiny_config):
    with pytest.raises(StrictDataclassError, match="hidden_act"):
        tiny_config(hidden_act="reluu")


def test_empty_context_is_refused(tiny_config):
    with pytest.raises(StrictDataclassError, match="max_position_embeddings"):
        tiny_config("learned", max_position_embeddings=0)


def test_learned_positions_allow_an_odd_head_width(tiny_config):
    assert tiny_config("learned", hidden_size=36).head_dim == 9


def test_rope_theta_changes_the_wavelengths(tiny_config):
    slow, fast = (
        MiniGPTForCausalLM(tiny_config(rope_parameters={"rope_type": "default", "rope_theta": theta}))
        for theta in (10000.0, 100.0)
    )
    assert slow.model.rotary_emb.inv_freq[-1] < fast.model.rotary_emb.inv_freq[-1]


def test_mlp_is_four_widths_unless_said(tiny_config):
    assert tiny_config().intermediate_size == 128
    assert tiny_config(intermediate_size=48).intermediate_size == 48


def test_saved_config_loads_back_equal(tmp_path, tiny_config, variant):
    config = tiny_config(variant, residual_dropout=0.25, tie_word_embeddings=True)
    config.save_pretrained(tmp_path)
    assert MiniGPTConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_auto_map_names_the_three_classes(tmp_path, tiny_config):
    tiny_config().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_minigpt.MiniGPTConfig",
        "AutoModel": "modeling_minigpt.MiniGPTModel",
        "AutoModelForCausalLM": "modeling_minigpt.MiniGPTForCausalLM",
    }
