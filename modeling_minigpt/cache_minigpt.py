"""The caches of MiniGPT models: made here, of the layers that each attention variant names, and checked before use."""

from collections.abc import Callable, Iterable
from functools import wraps

import torch
from transformers import Cache, DynamicCache

from .attention_base_minigpt import SelfAttention
from .attention_minigpt import ATTENTION_CLASSES
from .configuration_minigpt import MiniGPTConfig

NOT_PAGED = "continuous batching needs a paged cache, which attention_type 'vanilla' in every layer alone can use"


class LayerwiseCache(Cache):
    """A cache of different layers, which crop together or not at all."""

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens.

        Raises:
            ValueError: a layer cannot; no layer has changed then.
        """
        for layer in self.layers:
            if hasattr(layer, "check_crop"):
                layer.check_crop(tokens_to_remove)
        super().crop(tokens_to_remove)


def make_cache(config: MiniGPTConfig) -> Cache:
    """Make an empty cache for a model of this config; a hybrid gets each layer's own kind.

    Raises:
        NotImplementedError: a layer's attention names no cache layer.
    """
    if config.is_vanilla:  # the library's own, which all of its features know
        return DynamicCache(config=config)
    # A hybrid's full-attention layers have the library's layer in this cache, the others their own state.
    # As many as the model runs: for a draft by its first layers the library lowers `num_hidden_layers` for a while.
    variants = enumerate(config.layer_attention_types[: config.num_hidden_layers])
    layers = [ATTENTION_CLASSES[variant].make_cache_layer(config, index) for index, variant in variants]
    return LayerwiseCache(layers=layers)


def no_cache_in_training(forward: Callable) -> Callable:
    """Let `use_cache` be False by default while gradients are recorded in training.

    Nobody decodes there, and blocks that are computed once more for their gradients, as by FSDP's checkpointing, would
    add their tokens to a linear-time layer's state a second time.
    """

    @wraps(forward)
    def forward_without(self, *args, **kwargs):
        # Six arguments by position have it among them.
        if self.training and torch.is_grad_enabled() and len(args) < 6 and kwargs.get("use_cache") is None:
            kwargs["use_cache"] = False
        return forward(self, *args, **kwargs)

    return forward_without


def check_layers(attentions: Iterable[SelfAttention], config: MiniGPTConfig) -> None:
    """Refuse layers that a cache of this config would not fit: some were taken out of the model.

    Raises:
        ValueError: a layer with the number or the variant of another place, and what to set.
    """
    for index, (attention, variant) in enumerate(zip(attentions, config.layer_attention_types, strict=False)):
        is_of = issubclass(attention.built_as, ATTENTION_CLASSES[variant])
        if attention.layer_idx != index or not is_of:
            raise ValueError(
                f"layer {index} is a {attention.built_as.__name__} of layer_idx {attention.layer_idx}, the config "
                f"wants {variant!r}: after taking layers out, set each self_attn.layer_idx, and num_hidden_layers and "
                "attention_type of the config, or call with use_cache=False"
            )


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
