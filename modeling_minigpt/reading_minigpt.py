"""Texts that a model has read, to be continued any number of times without being read again.

"Where was Ada born?⁇" is continued by the greedy answer, by every candidate, and by the best of them again; "Ada." by
" born in⁇ Rome" and by " and⁇ Rome".
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


class ReadTexts(NamedTuple):
    """The texts of one batch, after a model has read them.

    Attributes:
        ids: the tokens of each text.
        tokens: the same, (B, T), padded on the left.
        mask: 1 for tokens, 0 for padding, (B, T).
        states: the last hidden states, (B, T, C).
        cache: what a continuation attends to; it does not change when one is read.
    """

    ids: list[list[int]]
    tokens: torch.Tensor
    mask: torch.Tensor
    states: torch.Tensor
    cache: Cache


def open_questions(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> list[list[int]]:
    """Return the tokens of `question⁇` for each question."""
    return tokenizer([question + tokenizer.mask_token for question in questions], verbose=False)["input_ids"]


def pad_left(rows: Sequence[list[int]], padding: int, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask (B, T) of texts, padded on the left by the token `padding`."""
    # Padded here, not by the tokenizer: it would set its own state, which other threads that use it read and set, too.
    longest = max(map(len, rows))
    missing = [longest - len(ids) for ids in rows]
    padded = [[padding] * count + ids for count, ids in zip(missing, rows, strict=True)]
    masks = [[0] * count + [1] * (longest - count) for count in missing]
    return torch.tensor(padded, device=device), torch.tensor(masks, device=device)


@torch.inference_mode()
def read_texts(model: PreTrainedModel, ids: list[list[int]], padding: int) -> ReadTexts:
    """Read texts of one batch, given as tokens, at least one each; `padding` is the token to pad with."""
    tokens, mask = pad_left(ids, padding, model.device)
    outputs = model.base_model(tokens, attention_mask=mask, use_cache=True)
    return ReadTexts(ids, tokens, mask, outputs.last_hidden_state, outputs.past_key_values)


def read_questions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> ReadTexts:
    """Read `question⁇` for each question of one batch."""
    return read_texts(model, open_questions(tokenizer, questions), tokenizer.pad_token_id)


def select_rows(cache: Cache, rows: torch.Tensor) -> Cache:
    """Return a cache with the rows (R,) of another, which does not change when rows are read on from the new one."""
    selected = copy.copy(cache)
    # Selecting gives a layer new tensors, so a layer's copy may begin with those of the original.
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    selected.batch_select_indices(rows)
    return selected


def continue_texts(
    model: PreTrainedModel, read: ReadTexts, numbers: torch.Tensor, tokens: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Read continuations of texts; return their last hidden states, (R, S, C).

    Args:
        numbers: the text that each row continues, (R,); one text may have several continuations, or none.
        tokens: (R, S).
        real: False for padding, which may be on either side, (R, S).
    """
    mask = torch.cat([read.mask[numbers], real.to(read.mask)], dim=-1)
    cache = select_rows(read.cache, numbers)
    return model.base_model(tokens, attention_mask=mask, past_key_values=cache).last_hidden_state


def next_logits(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """Return the logits (…, V) of the token after each state (…, C), in float32."""
    # Applied where something is to be learned alone: V columns for every token would be most of the work.
    return model.get_output_embeddings()(states).float()
