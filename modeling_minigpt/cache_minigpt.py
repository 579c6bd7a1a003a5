"""The caches of MiniGPT models: made here, from the layers of `cache_layers_minigpt`, and checked before use."""

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from .attention_base_minigpt import PaddingInfo
from .block_sparse_minigpt import BlockPattern
from .cache_layers_minigpt import FullBlockCache, LinformerCache, PerformerCache, RecentBlockCache, layer_signature
from .configuration_minigpt import MiniGPTConfig


def make_layer(config: MiniGPTConfig, layer_idx: int) -> CacheLayerMixin:
    """Return an empty cache layer for layer `layer_idx` of a model."""
    variant = config.layer_attention_types[layer_idx]
    if variant == "vanilla":
        return DynamicLayer()
    if variant == "linformer":
        return LinformerCache(config, layer_idx)
    if variant == "performer":
        return PerformerCache(config, layer_idx)
    closed = BlockPattern.from_config(config, layer_idx).closed
    return (RecentBlockCache if closed else FullBlockCache)(config, layer_idx)


def is_croppable(config: MiniGPTConfig, layer_idx: int) -> bool:
    """Say whether a layer's cache can forget any number of its last tokens again, as assisted decoding asks of it."""
    return isinstance(make_layer(config, layer_idx), (DynamicLayer, FullBlockCache))


def make_cache(config: MiniGPTConfig) -> Cache:
    """Return an empty cache for a model of this config; hybrids get a layer of each layer's kind."""
    if config.is_vanilla:
        return DynamicCache(config=config)
    return Cache(layers=[make_layer(config, index) for index in range(config.num_hidden_layers)])


def check_cache(cache: Cache, config: MiniGPTConfig, batch: int) -> None:
    """Refuse a cache that was not made for such a model or for such a batch.

    Raises:
        ValueError: wrong kind or number of layers, or another number of rows; the message names both.
    """
    layers = getattr(cache, "layers", None)
    if not config.is_vanilla and (layers is None or len(layers) != config.num_hidden_layers):
        found = type(cache).__name__ + ("" if layers is None else f" of {len(layers)} layers")
        raise ValueError(
            f"attention_type {config.attention_type!r} with {config.num_hidden_layers} layers decodes with a cache of "
            f"its own (make_cache(config)), found {found}"
        )
    for index, layer in enumerate((layers or [])[: config.num_hidden_layers]):  # the library's are made lazily
        wanted, found = layer_signature(config, index), getattr(layer, "signature", None)
        if wanted != found:
            described = type(layer).__name__ if found is None else found
            raise ValueError(f"layer {index} wants a cache layer for {wanted or 'vanilla'}, found {described}")
        tensor = getattr(layer, "keys", None) if found is None else layer.counts
        rows = tensor.shape[0] if tensor is not None and tensor.ndim in (1, 4) and tensor.numel() else batch
        if rows != batch:
            raise ValueError(f"the cache holds {rows} rows, found a batch of {batch}")


def padding_info(
    attention_mask: torch.Tensor | None, cache: Cache | None, batch: int, length: int
) -> PaddingInfo | None:
    """Return where the T new tokens' real ones are, for the linear-time variants; None where all are real.

    Raises:
        ValueError: a mask that is not (B, seen + T), or one that contradicts what the cache has seen.
    """
    seen = 0 if cache is None else cache.get_seq_length()
    layers = [layer for layer in cache.layers if hasattr(layer, "counts")] if seen else []
    if attention_mask is None:
        if layers and layers[0].padded:
            raise ValueError(f"the cache holds padded rows: give their attention_mask, ({batch}, {seen} + {length})")
        return None
    if tuple(attention_mask.shape) != (batch, seen + length):
        raise ValueError(
            f"attention_mask must be ({batch}, {seen} + {length}) (rows, cached and new tokens) for a linear-time "
            f"variant, found {tuple(attention_mask.shape)}"
        )
    real = attention_mask != 0
    if layers:
        told, held = real[:, :seen].sum(-1), layers[0].counts
        if not torch.equal(told, held):
            raise ValueError(
                f"attention_mask says {told.tolist()} of the {seen} cached columns are real, the cache counted "
                f"{held.tolist()}"
            )
    return None if real[:, seen:].all() else PaddingInfo.from_mask(real[:, seen:])


def check_not_packed(
    position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, cache: Cache | None
) -> None:
    """Raise ValueError for positions that start again inside a row, the library's sign of packed examples.

    Patterns and running sums would carry one example into the next.
    """
    if position_ids is None or attention_mask is not None or (cache is not None and cache.get_seq_length()):
        return
    if (position_ids.diff(dim=-1) != 1).any():
        raise ValueError("packed examples need attention_type 'vanilla' in every layer: positions must rise by one")
