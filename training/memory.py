"""Memory: freed blocks kept in the process or given back to the kernel, and models that this machine cannot hold."""

import ctypes
import os
import sys

from modeling_minigpt import MiniGPTConfig

# glibc's mallopt parameters (malloc.h)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def glibc(name: str):
    """Return a function of glibc's malloc; None elsewhere than on glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


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


def give_back_freed_memory() -> None:
    """Return freed memory to the kernel once, so that what is resident is in use."""
    trim = glibc("malloc_trim")
    if trim is not None:
        trim(0)


def keep_freed_memory(top_pad_mib: int = 256) -> bool:
    """Tell glibc to serve large blocks from the heap and never to shrink it; return whether that took.

    By default glibc maps each activation anew and unmaps it when freed, and the page faults cost about a quarter of a
    CPU training step. Elsewhere than on glibc this does nothing. The peak of memory stays; it is only not given back.
    """
    mallopt = glibc("mallopt")
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, top_pad_mib * 2**20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
