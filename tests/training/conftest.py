"""Small things to train on."""

import pytest
import torch

from data_scripts.synthetic_bios import invent
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, build_bpe_tokenizer


@pytest.fixture(scope="session")
def bios():
    return invent(40, seed=0)


@pytest.fixture(scope="session")
def tokenizer(bios):
    return build_bpe_tokenizer(bios.documents, 400, 64)


@pytest.fixture
def tiny_model(tokenizer):
    """Return a function that makes the same tiny model each time."""

    def make(**changes):
        torch.manual_seed(0)
        fields = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        return MiniGPTForCausalLM(MiniGPTConfig(**{**fields, **changes}))

    return make
