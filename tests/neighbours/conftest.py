"""Saved models of every attention variant with a tokenizer: what the neighbours are handed, by folder."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from data_scripts.synthetic_bios import invent
from modeling_minigpt import build_bpe_tokenizer
from tests.attention_variants import tiny_model

VARIANTS = ["vanilla", "linformer", "bigbird", "window", "performer", "gated_deltanet", "selected"]


def pytest_collection_modifyitems(items):
    """Mark every test of this folder."""
    for item in items:
        if "/tests/neighbours/" in str(item.path):
            item.add_marker("neighbours")


@pytest.fixture(scope="session")
def texts():
    """Biographies of invented people."""
    return invent(40, seed=0).documents


@pytest.fixture(scope="session")
def tokenizer(texts):
    """A small tokenizer."""
    return build_bpe_tokenizer(texts, 400, 64)


@pytest.fixture(scope="session")
def folders(tokenizer, tmp_path_factory):
    """Folders of saved models, by variant; every weight is random, none is zero."""
    root = tmp_path_factory.mktemp("models")
    for variant in VARIANTS:
        model = tiny_model(variant, vocab_size=len(tokenizer), max_position_embeddings=64, eos_token_id=1)
        model.save_pretrained(root / variant)
        tokenizer.save_pretrained(root / variant)
    return {variant: str(root / variant) for variant in VARIANTS}


@pytest.fixture
def load(folders):
    """Load a variant as anybody would."""
    return lambda variant="vanilla", **options: AutoModelForCausalLM.from_pretrained(folders[variant], **options)


@pytest.fixture
def batch(tokenizer, texts):
    """Two texts of different lengths with labels, padded on the left."""
    encoded = tokenizer([texts[0], texts[1][:40]], return_tensors="pt", padding=True)
    return {**encoded, "labels": encoded.input_ids.masked_fill(encoded.attention_mask == 0, -100)}


@pytest.fixture
def ids(tokenizer, texts):
    """One text, (1, T)."""
    return torch.tensor([tokenizer(texts[0]).input_ids[:24]])
