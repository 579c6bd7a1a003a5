"""The size of a model, known before any of it is allocated."""

import time

import pytest

from configuration.model_size import HUGE, check_fits, count_parameters
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM

CONFIGS = {
    "modern": {},
    "tied": {"tie_word_embeddings": True},
    "learned": {"position_embedding_type": "learned", "norm_type": "layernorm", "use_bias": True},
    "variants": {"attention_type": ["linformer", "performer", "bigbird", "linformer"]},
    "gated_deltanet": {"attention_type": "gated_deltanet"},
    "content": {"attention_type": "linformer", "linformer_slot_type": "content"},
}


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_count_is_that_of_the_real_model(fields):
    config = MiniGPTConfig(hidden_size=32, num_attention_heads=4, vocab_size=50, **fields)
    model = MiniGPTForCausalLM(config)
    features = sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith("features"))
    assert count_parameters(config) == model.num_parameters() + features


@pytest.mark.parametrize(
    ("fields", "gigabytes"),
    [
        ({"num_hidden_layers": 10_000, "hidden_size": 4096}, "8,053.5"),
        ({"attention_type": "performer", "performer_features": 2**20, "hidden_size": 2**20}, "228,715.6"),
        ({"attention_type": "linformer", "linformer_segment": 2**20, "linformer_slots": 2**20,
          "hidden_size": 2**30, "num_attention_heads": 2**29,
          "intermediate_size": 64}, f"{4 * HUGE / 1e9:,.1f}"),
    ],
    ids=["layers", "features", "beyond-64-bits"],
)  # fmt: skip
def test_a_model_that_cannot_fit_is_refused_at_once(fields, gigabytes):
    config = MiniGPTConfig(**fields)
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"its weights take {gigabytes} GB, this machine has"):
        check_fits(config)
    assert time.monotonic() - start < 2
