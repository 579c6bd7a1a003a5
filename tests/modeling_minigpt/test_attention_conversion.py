"""A pretrained vanilla checkpoint loads into every other variant: what fits is taken, what is new is named."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from modeling_minigpt import MiniGPTForCausalLM
from tests.attention_variants import SIZE, VARIANTS, assert_equal, draw_tokens, tiny_config, tiny_model

GATED_DELTANET = [
    "convolution",
    "decay_bias",
    "beta_proj.weight",
    "decay_proj.weight",
    "gate_proj.weight",
    "o_norm.weight",
]
CONSTANT = ("decay_bias", "o_norm.weight", "summary_gate.weight")  # where every number starts the same
NEW = {  # by variant and layer
    "linformer": {0: ["slot_logits"], 1: ["slot_logits"]},
    "linformer-content": {0: ["slot_proj.weight"], 1: ["slot_proj.weight"]},
    "performer": {0: ["features"], 1: ["features"]},
    "selected-summary": {0: ["summary_gate.weight"], 1: ["summary_gate.weight"]},
    "hybrid": {1: ["slot_logits"]},
    "gated_deltanet": {0: GATED_DELTANET, 1: GATED_DELTANET},
    "gated_deltanet-heads": {0: GATED_DELTANET, 1: GATED_DELTANET},
    "hybrid-gated_deltanet": {1: GATED_DELTANET},
}
# Tokens over which a variant is full attention: two segments, or as many blocks as a row lists; else none.
EXACT = {
    "linformer": 2 * SIZE,
    "linformer-content": 2 * SIZE,
    "hybrid": 2 * SIZE,
    "window": 13,
    "bigbird": 5 * SIZE,
    "bigbird-reservoir": 5 * SIZE,
    "selected": 4 * SIZE,
    "selected-summary": 2 * SIZE,
    "bigbird+selected": 4 * SIZE,
}


@pytest.fixture
def checkpoint(tmp_path):
    """Save a vanilla model; return it and its folder."""
    vanilla = tiny_model("vanilla")
    vanilla.save_pretrained(tmp_path)
    return vanilla, tmp_path


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_that_fit_are_taken_and_new_ones_are_named(checkpoint, variant, caplog):
    vanilla, folder = checkpoint
    model, loading = MiniGPTForCausalLM.from_pretrained(folder, config=tiny_config(variant), output_loading_info=True)
    new = {f"model.layers.{layer}.self_attn.{name}" for layer, names in NEW.get(variant, {}).items() for name in names}
    assert loading["missing_keys"] == new
    assert not loading["unexpected_keys"]
    for name, weight in vanilla.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    for name in new:  # a constant at first, or drawn; a gate of summaries starts at zero
        weight = model.state_dict()[name]
        assert weight.isfinite().all()
        assert (weight.std() == 0) == name.endswith(CONSTANT)
        assert weight.any() != name.endswith("summary_gate.weight")
    assert ("MISSING" in caplog.text) == bool(new)
    assert all(name in caplog.text for names in NEW.get(variant, {}).values() for name in names)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_converted_model_says_the_same_where_its_attention_is_full(checkpoint, variant):
    vanilla, folder = checkpoint
    model = MiniGPTForCausalLM.from_pretrained(folder, config=tiny_config(variant)).eval()
    exact, ids = EXACT.get(variant, 0), draw_tokens(2, 8 * SIZE)
    with torch.no_grad():
        converted, wanted = model(ids).logits, vanilla(ids).logits
    assert_equal(converted[:, :exact], wanted[:, :exact])
    assert not torch.allclose(converted[:, exact:], wanted[:, exact:], atol=1e-3)


def test_a_keyword_chooses_the_attention_of_a_checkpoint(checkpoint):
    vanilla, folder = checkpoint
    model = AutoModelForCausalLM.from_pretrained(folder, attention_type=["vanilla", "window"], window_size=5)
    assert model.config.layer_attention_types == ["vanilla", "window"]
    assert torch.equal(model.model.layers[1].self_attn.q_proj.weight, vanilla.model.layers[1].self_attn.q_proj.weight)
