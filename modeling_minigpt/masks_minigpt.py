"""The mask of each layer: the library's for full attention, padding alone for the linear-time variants."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

import torch
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from .attention_base_minigpt import PaddingInfo, SelfAttention, is_traced
from .cache_minigpt import NOT_PAGED, check_cache, check_layers
from .configuration_minigpt import MiniGPTConfig

# Keyword arguments by which the library's collators mark packed examples, each with what several of them look like.
PACKING_MARKS = {
    "cu_seq_lens_q": lambda starts: starts.numel() > 2,
    "cu_seq_lens_k": lambda starts: starts.numel() > 2,
    "seq_idx": lambda numbers: not is_traced() and bool((numbers != numbers[..., :1]).any()),
}


def layer_masks(
    attentions: Sequence[SelfAttention],
    config: MiniGPTConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    past_key_values: Cache | None,
    settings: Mapping[str, object],
) -> list[torch.Tensor | PaddingInfo | None]:
    """Make each layer's mask: the library's for full attention, a `PaddingInfo` for the linear-time variants.

    Args:
        attentions: of the layers that run.
        config: the model's.
        inputs_embeds, attention_mask, position_ids, past_key_values, settings: as in `MiniGPTModel.forward`.

    Raises:
        ValueError: inputs or a cache that do not go together, with what was found.
    """
    if past_key_values is not None:
        check_layers(attentions, config)
        check_cache(past_key_values, config, inputs_embeds.shape[0])
    takes_padding = [attention.takes_padding for attention in attentions]
    padding = causal_mask = None
    if any(takes_padding):
        padding = padding_info(attention_mask, past_key_values, *inputs_embeds.shape[:2])
        if settings.get("cache") is not None:
            raise ValueError(NOT_PAGED)
    elif attention_mask is not None and settings.get("cache") is None:  # a paged cache has masks of its own
        check_mask(attention_mask, past_key_values, config, *inputs_embeds.shape[:2])
    check_not_packed(attentions, position_ids, attention_mask, past_key_values, settings)
    if not all(takes_padding):  # linear-time layers would not read its T² entries
        causal_mask = create_causal_mask(
            config=config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
    return [padding if takes else causal_mask for takes in takes_padding]


def is_padding_mask(mask: object) -> TypeGuard[torch.Tensor]:
    """Return whether a mask says which columns are padding, (B, past + T): one of a kernel need not be a tensor."""
    return isinstance(mask, torch.Tensor) and mask.ndim == 2


def columns_seen(cache: Cache | None) -> int | torch.Tensor:
    """Return how many columns a cache has seen; in a recorded graph, a static cache's number is a tensor."""
    seen = 0 if cache is None else cache.get_seq_length()
    return int(seen) if isinstance(seen, torch.Tensor) and not is_traced() else seen


def new_columns(mask: torch.Tensor, seen: int | torch.Tensor, length: int) -> torch.Tensor:
    """Return the T = `length` columns of a mask (B, S) that follow the `seen` ones, (B, T).

    They need not be the last ones: the mask of a static cache may cover room for tokens that are yet to come.
    """
    if isinstance(seen, torch.Tensor):  # a slice would need its value
        return mask[:, torch.arange(length, device=mask.device) + seen.to(mask.device)]
    return mask[:, seen : seen + length]


def real_columns(attention_mask: torch.Tensor | None, seen: int | torch.Tensor, length: int) -> torch.Tensor | None:
    """Return False for padding among the `length` new columns, (B, T); None where no mask (B, past + T) says so."""
    if not is_padding_mask(attention_mask):
        return None
    return new_columns(attention_mask, seen, length) != 0


def check_mask(mask: torch.Tensor, cache: Cache | None, config: MiniGPTConfig, batch: int, length: int) -> None:
    """Refuse a mask whose shape full attention cannot use: the library would read a part of it, or break on it.

    Raises:
        ValueError: neither (B, seen + T) nor (B or 1, H or 1, T or 1, seen + T).
    """
    if not isinstance(mask, torch.Tensor):
        return  # a mask of a kernel's own
    seen = columns_seen(cache)
    # A static cache has room for more tokens, which a mask may cover already.
    widest = length if cache is None else cache.get_mask_sizes(length, 0)[0]
    if isinstance(seen, torch.Tensor):
        seen = 0  # not known while a graph is recorded
    shape = tuple(mask.shape)
    heads = config.num_attention_heads
    if len(shape) == 2:
        fits = shape[0] == batch and seen + length <= shape[1] <= widest
    else:
        fits = len(shape) == 4 and shape[0] in (1, batch) and shape[1] in (1, heads) and shape[2] in (1, length)
        fits = fits and shape[3] == widest
    if not fits:
        raise ValueError(
            f"attention_mask must be ({batch}, {seen} + {length}) (rows, cached and new tokens) or ({batch}, {heads}, "
            f"{length}, {widest}) (rows, heads, new tokens, keys), found {shape}"
        )


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
    if layers and not is_traced():  # all layers have counted the same, so one is enough
        in_mask = real[:, :seen].sum(-1)
        in_cache = layers[0].counts
        if not torch.equal(in_mask, in_cache):
            raise ValueError(
                f"attention_mask says {in_mask.tolist()} of the {seen} cached columns are real, the cache counted "
                f"{in_cache.tolist()}"
            )
    # The fast path: nothing is moved where there is no padding.
    if not is_traced() and real[:, seen:].all():
        return None
    return PaddingInfo.from_mask(real[:, seen:], layers[0].real_tail if layers else 0)


def check_not_packed(
    attentions: Iterable[SelfAttention],
    position_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    cache: Cache | None,
    settings: Mapping[str, object],
) -> None:
    """Refuse packed examples where they would see each other.

    The library keeps them apart in full attention alone, by positions (B or 1, T) that start again, with no mask and
    no cache. The state of a linear-time variant would carry one example into the next.

    Raises:
        ValueError: positions that start again, or a mark among the forward pass's other `settings`.
    """
    only_full = not any(attention.takes_padding for attention in attentions)
    for name, marks_several in PACKING_MARKS.items():
        value = settings.get(name)
        if isinstance(value, torch.Tensor) and marks_several(value) and not (only_full and position_ids is not None):
            wanted = "position_ids that start again" if only_full else "attention_type 'vanilla' in every layer"
            raise ValueError(f"packed examples need {wanted}, found {name}")
    if position_ids is None or position_ids.shape[-1] == 1 or is_traced():
        return
    begins = cache is None or not cache.get_seq_length()
    if attention_mask is None and begins:
        if not only_full and (position_ids.diff(dim=-1) != 1).any():
            raise ValueError(
                "packed examples need attention_type 'vanilla' in every layer: positions must rise by one"
            )
    elif starts_again(position_ids, attention_mask, columns_seen(cache)):
        wanted = "no attention_mask and no cache" if only_full else "attention_type 'vanilla' in every layer"
        raise ValueError(f"packed examples need {wanted}: positions must rise")


def starts_again(position_ids: torch.Tensor, attention_mask: torch.Tensor | None, seen: int | torch.Tensor) -> bool:
    """Return whether any real token's position (B or 1, T) is not above those of the real tokens before it."""
    if attention_mask is None:
        return bool((position_ids.diff(dim=-1) <= 0).any())
    if not is_padding_mask(attention_mask):  # it can keep examples apart itself
        return False
    real = new_columns(attention_mask, seen, position_ids.shape[-1]) != 0  # (B, T)
    highest = position_ids.expand(real.shape).masked_fill(~real, -1).cummax(dim=-1).values
    return bool((real[:, 1:] & (position_ids[:, 1:] <= highest[:, :-1])).any())
