"""Tiny MiniGPTs for the package's tests: two layers, width 32, every weight random, so that no part is silent."""

import pytest
import torch

from modeling_minigpt import MiniGPTConfig, build_character_tokenizer
from tests.attention_variants import disturbed_model

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
VARIANTS = {
    "rotary": {},
    "learned": {
        "position_embedding_type": "learned",
        "norm_type": "layernorm",
        "qk_norm": False,
        "hidden_act": "gelu",
        "use_bias": True,
    },
}


@pytest.fixture
def tiny_config():
    """Make a tiny config of a variant, with overrides."""

    def make(variant="rotary", **overrides):
        return MiniGPTConfig(**{**TINY, **VARIANTS[variant], **overrides})

    return make


@pytest.fixture
def tiny_model(tiny_config):
    """Make a tiny model in evaluation mode, its zeros and ones disturbed so that every parameter counts."""

    def make(variant="rotary", **overrides):
        return disturbed_model(tiny_config(variant, **overrides))

    return make


@pytest.fixture(params=VARIANTS)
def variant(request):
    """Name each of the two architectures: today's and the practical's."""
    return request.param


@pytest.fixture
def model(tiny_model, variant):
    """A tiny model of each variant."""
    return tiny_model(variant)


@pytest.fixture
def tokens():
    """Draw token ids of a given shape, none of them the padding."""

    def draw(*shape, seed=0):
        return torch.randint(2, TINY["vocab_size"], shape, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture
def character_tokenizer():
    """A character tokenizer that fits in the tiny vocabulary."""
    return build_character_tokenizer(["Ada Vell was born in Nork.", "Where was Ada Vell born?"], max_length=32)
