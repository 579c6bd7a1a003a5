"""Whether a model in memory may have changed, at a cost that every call can pay: no digest, a look at each tensor.

A digest reads all weights. A key reads 64 numbers of each; only where it differs is the digest computed again.
"""

from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from .fingerprint_minigpt import digest, function_fields

SAMPLED = 64  # numbers of each tensor


class ModelKey(NamedTuple):
    """What differs where a model has changed; equal keys mean that it very probably has not.

    Attributes:
        tensors: of each parameter and buffer, where it is in memory, its version and its number format.
        samples: a sum over some numbers of each, as bits. Writing through `tensor.data`, as the merge of an adapter
            does, raises no version, and tensors of `torch.inference_mode` have none.
        function: a digest of what in the config changes the function.
    """

    tensors: tuple[tuple[int, int | None, torch.dtype], ...]
    samples: tuple[int, ...]
    function: str


@torch.no_grad()
def sample_bits(tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Return the float32 sum of `SAMPLED` evenly spaced numbers of each tensor, as its bits."""
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        if tensor.is_meta:
            continue
        with suppress(RuntimeError, TypeError):  # of a subclass without these functions, which has no digest either
            one = tensor.reshape(-1)[:: max(1, tensor.numel() // SAMPLED)].sum(dtype=torch.float32)
            by_device.setdefault(one.device, []).append(one)
    # As bits, for NaN differs from itself.
    return tuple(chain.from_iterable(torch.stack(some).view(torch.int32).tolist() for some in by_device.values()))


def model_key(model: PreTrainedModel) -> ModelKey:
    """Return a model's key."""
    tensors = [*model.parameters(), *model.buffers()]
    places = tuple(
        (one.data_ptr(), None if one.is_inference() else one._version, one.dtype) for one in tensors if not one.is_meta
    )
    function = digest(function_fields(model.config), model.generation_config.max_new_tokens)
    return ModelKey(places, sample_bits(tensors), function)
