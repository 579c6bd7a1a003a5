"""The caches of MiniGPT models: made here, of the layers that each attention variant names, and checked before use."""

import torch
from transformers import Cache, DynamicCache

from .attention_base_minigpt import PaddingInfo
from .attention_minigpt import ATTENTION_CLASSES
from .configuration_minigpt import MiniGPTConfig


def make_cache(config: MiniGPTConfig) -> Cache:
    """Make an empty cache for a model of this config; a hybrid gets each layer's own kind.

    Raises:
        NotImplementedError: a layer's attention names no cache layer.
    """
    if config.is_vanilla:  # the library's own, which all of its features know
        return DynamicCache(config=config)
    # A hybrid's full-attention layers have the library's layer in this cache, the others their own state.
    variants = enumerate(config.layer_attention_types)
    return Cache(layers=[ATTENTION_CLASSES[variant].make_cache_layer(config, index) for index, variant in variants])


def check_cache(cache: Cache, config: MiniGPTConfig, batch: int) -> None:
    """Refuse a cache that was not made for such a model or for such a batch.

    Raises:
        ValueError: wrong kind or number of layers, or another number of rows; the message names both.
    """
    layers = getattr(cache, "layers", None)
    if not config.is_vanilla and (layers is None or len(layers) != config.num_hidden_layers):
        described = type(cache).__name__ + ("" if layers is None else f" of {len(layers)} layers")
        raise ValueError(
            f"attention_type {config.attention_type!r} with {config.num_hidden_layers} layers decodes with a cache of "
            f"its own (make_cache(config)), found {described}"
        )
    # The library's caches make their layers as they need them, so there may be fewer.
    for index, (variant, layer) in enumerate(zip(config.layer_attention_types, layers or [], strict=False)):
        wanted = ATTENTION_CLASSES[variant].cache_signature(config, index)
        found = getattr(layer, "signature", None)
        if wanted != found:
            actual = type(layer).__name__ if found is None else found
            raise ValueError(f"layer {index} wants a cache layer for {wanted or variant}, found {actual}")
        # A layer that has seen nothing yet has no rows.
        tensor = getattr(layer, "keys", None) if found is None else layer.counts
        rows = tensor.shape[0] if tensor is not None and tensor.ndim in (1, 4) and tensor.numel() else batch
        if rows != batch:
            raise ValueError(f"the cache has {rows} rows, found a batch of {batch}")


def padding_info(
    attention_mask: torch.Tensor | None, cache: Cache | None, batch: int, length: int
) -> PaddingInfo | None:
    """Find the real ones among T new tokens, for the linear-time variants; None where all of them are real.

    Raises:
        ValueError: a mask that is not (B, seen + T), or one that contradicts what the cache has seen.
    """
    seen = 0 if cache is None else cache.get_seq_length()
    layers = []
    if cache is not None and seen:
        layers = [layer for layer in cache.layers if hasattr(layer, "counts")]
    if attention_mask is None:
        if layers and layers[0].padded:
            raise ValueError(f"the cache has padded rows: give their attention_mask, ({batch}, {seen} + {length})")
        return None
    if tuple(attention_mask.shape) != (batch, seen + length):
        raise ValueError(
            f"attention_mask must be ({batch}, {seen} + {length}) (rows, cached and new tokens) for a linear-time "
            f"variant, found {tuple(attention_mask.shape)}"
        )
    real = attention_mask != 0
    if layers:  # all layers have counted the same, so one is enough
        in_mask = real[:, :seen].sum(-1)
        in_cache = layers[0].counts
        if not torch.equal(in_mask, in_cache):
            raise ValueError(
                f"attention_mask says {in_mask.tolist()} of the {seen} cached columns are real, the cache counted "
                f"{in_cache.tolist()}"
            )
    # The fast path: nothing is moved where there is no padding.
    return None if real[:, seen:].all() else PaddingInfo.from_mask(real[:, seen:])


def check_not_packed(
    position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, cache: Cache | None
) -> None:
    """Raise ValueError for positions that start again inside a row, the library's sign of packed examples.

    The state of a linear-time variant would carry one example into the next.
    """
    if position_ids is None or attention_mask is not None or (cache is not None and cache.get_seq_length()):
        return
    if (position_ids.diff(dim=-1) != 1).any():
        raise ValueError("packed examples need attention_type 'vanilla' in every layer: positions must rise by one")
