"""How large a model is, and whether this machine can hold it, before any of it is made."""

import os

from modeling_minigpt import MiniGPTConfig


def count_parameters(config: MiniGPTConfig) -> int:
    """Return about how many numbers a model's weights and feature tables are, without making any."""
    width, layers = config.hidden_size, config.num_hidden_layers
    embeddings = width * config.vocab_size * (1 if config.tie_word_embeddings else 2)
    if config.position_embedding_type == "learned":
        embeddings += width * config.max_position_embeddings
    blocks = layers * width * (4 * width + 2 * config.intermediate_size)
    kinds, heads = config.layer_attention_types, config.num_attention_heads
    features = kinds.count("performer") * width * config.performer_features
    slots = kinds.count("linformer") * max(heads * config.linformer_segment, width) * config.linformer_slots
    return embeddings + blocks + features + slots


def check_fits(config: MiniGPTConfig) -> None:
    """Raise ValueError where this machine's memory cannot hold the float32 weights of a model."""
    wanted = 4 * count_parameters(config)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else wanted
    if wanted > there:
        raise ValueError(f"its weights take {wanted / 1e9:,.1f} GB, this machine has {there / 1e9:,.1f} GB")
