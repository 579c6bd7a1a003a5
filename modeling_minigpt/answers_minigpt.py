"""Answers and their exact probabilities: greedy ones, and all of a list at once through a trie of their tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from .answer_trie_minigpt import AnswerTrie, Rows
from .cache_layers_minigpt import PreallocatedLayer
from .reading_minigpt import (
    ReadTexts,
    continue_texts,
    next_logits,
    open_questions,
    pad_left,
    read_questions,
    select_rows,
)


class Answer(NamedTuple):
    """A model's answer, and the model's uncalibrated probability of exactly this answer."""

    text: str
    probability: float


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Return `question⁇` for each question, as ids and mask (B, T), padded on the left."""
    ids, mask = pad_left(open_questions(tokenizer, questions), tokenizer.pad_token_id, device)
    return {"input_ids": ids, "attention_mask": mask}


def find_unknown_character(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    """Return the first character that a tokenizer cannot write, as one of characters cannot; None if it writes all."""
    # Half of a character, as broken programs send: no tokenizer takes it as text.
    if surrogate := next((character for character in text if "\ud800" <= character <= "\udfff"), None):
        return surrogate
    try:
        tokenizer(text, verbose=False)
    except Exception as error:
        # The Rust library raises the base class itself for a token out of its vocabulary. All else is no fault of the
        # text and must not be taken for one.
        if type(error) is not Exception:
            raise
        unknown = (
            (character for character in text if find_unknown_character(tokenizer, character)) if text[1:] else text
        )
        return next(iter(unknown), None)
    return None


def copy_for_generation(model: PreTrainedModel, read: ReadTexts, max_new_tokens: int) -> Cache | None:
    """Return a cache that tokens may be added to one by one; None where cached texts may not grow as long."""
    rotary = model.base_model.rotary_emb
    if rotary is not None and rotary.limit is not None and read.tokens.shape[1] + max_new_tokens > rotary.limit:
        return None
    if not model.config.is_vanilla:
        return select_rows(read.cache, torch.arange(len(read.ids), device=read.tokens.device))
    cache = Cache(layers=[PreallocatedLayer() for _ in read.cache.layers])
    for index, layer in enumerate(read.cache.layers):
        cache.update(layer.keys, layer.values, index)
    return cache


def generate_greedily(
    model: PreTrainedModel, read: ReadTexts, max_new_tokens: int, end: int, padding: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Continue each text by the most probable token until `end`, or to the last if the model is set not to end.

    Returns:
        The tokens up to the end, then padding, (B, S); and the sum of their log-probabilities, the end's included.
    """
    cache = copy_for_generation(model, read, max_new_tokens)
    tokens = read.tokens
    mask = read.mask
    length = tokens.shape[1]
    logits = next_logits(model, read.states[:, -1])  # (B, V)
    log_probs = torch.zeros_like(logits[:, 0])  # in float32, whatever torch's default is
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    never_stops = model.generation_config.eos_token_id is None
    while True:
        token = logits.argmax(-1, keepdim=True)  # (B, 1)
        chosen = logits.log_softmax(-1).gather(-1, token)[:, 0]
        log_probs += chosen.masked_fill(ended, 0.0)
        tokens = torch.cat([tokens, token.masked_fill(ended[:, None], padding)], dim=-1)
        ended = ended | (token[:, 0] == end)
        if tokens.shape[1] - length >= max_new_tokens or (ended.all() and not never_stops):
            return tokens[:, length:], log_probs
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        new = tokens if cache is None else tokens[:, -1:]
        outputs = model.base_model(new, attention_mask=mask, past_key_values=cache, use_cache=cache is not None)
        logits = next_logits(model, outputs.last_hidden_state[:, -1])


@torch.inference_mode()
def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    max_new_tokens: int,
    read: ReadTexts | None = None,
) -> list[Answer]:
    """Generate the greedy answer to each question of one batch, on one line and stripped.

    An answer that is cut off after `max_new_tokens` has the probability of the tokens so far. `read` are the
    questions, where they have been read.
    """
    read = read or read_questions(model, tokenizer, questions)
    if model.config.position_embedding_type == "learned":  # there is no position to generate at beyond these
        max_new_tokens = min(max_new_tokens, model.config.max_position_embeddings - read.tokens.shape[1])
    # The probability of an answer is the product over its tokens and the sentinel that ends it: without the end,
    # "York" would be at least as probable as "York County".
    tokens, log_probs = generate_greedily(model, read, max_new_tokens, tokenizer.eos_token_id, tokenizer.pad_token_id)
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [
        Answer(" ".join(text.splitlines()).strip(), probability)
        for text, probability in zip(texts, log_probs.exp().tolist(), strict=True)
    ]


def log_cutoff(cutoff: float) -> float:
    """Return the log-probability of a cutoff, rounded to float32 as those of tokens are; -inf for 0."""
    return torch.tensor(cutoff, dtype=torch.float32).log().item()


def read_rows(model: PreTrainedModel, read: ReadTexts, trie: AnswerTrie, rows: Rows, tree_attention: bool):
    """Return the logits after each prefix of each row, (R, S, V), and which prefixes are its ancestors, (R, S, S)."""
    real = rows.prefixes >= 0
    number = rows.prefixes.clamp(min=0)
    tokens = trie.tokens.to(number.device)[number]
    is_ancestor = (
        trie.is_ancestor.to(number.device)[number[:, :, None], number[:, None, :]] & real[:, None, :]
    )  # (R, S, S)
    if not tree_attention:
        return next_logits(model, continue_texts(model, read, rows.question, tokens, real)), is_ancestor
    # A prefix sees its question and its own ancestors: to it, the rest of the row is not there. Its position is that
    # of the last token of its prefix, wherever in the row it is.
    seen = read.mask[rows.question]
    allowed = torch.cat([seen.bool()[:, None].expand(-1, tokens.shape[1], -1), is_ancestor], dim=-1)[:, None]
    attention_mask = torch.zeros(allowed.shape, dtype=model.dtype, device=number.device)
    attention_mask.masked_fill_(~allowed, torch.finfo(model.dtype).min)
    outputs = model.base_model(
        tokens,
        attention_mask=attention_mask,
        position_ids=seen.sum(-1, keepdim=True) + trie.lengths.to(number.device)[number] - 1,
        past_key_values=select_rows(read.cache, rows.question),
    )
    return next_logits(model, outputs.last_hidden_state), is_ancestor


@torch.inference_mode()
def score_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    trie: AnswerTrie,
    cutoff: float = 0.0,
    rows_together: int = 32,
    read: ReadTexts | None = None,
) -> torch.Tensor:
    """Return the log-probability of every answer of a trie to each question of one batch, (B, answers).

    The questions are read once, and so is each prefix after each question: many of them share a row, in which each
    attends to the question and to its own ancestors alone. A model with linear-time layers, or a kernel that takes no
    such mask, reads each answer in a row of its own.

    Args:
        cutoff: answers whose first token is less probable than this are skipped and get -inf.
        rows_together: rows of a forward pass; few, so that their activations stay in a processor's cache.
        read: the questions, where they have been read.
    """
    read = read or read_questions(model, tokenizer, questions)
    device = model.device
    first_token_log_probs = next_logits(model, read.states[:, -1]).log_softmax(-1)  # (B, V)
    # An answer is at most as probable as its first token, so a cutoff on that loses no answer above it.
    kept = first_token_log_probs[:, trie.first.to(device)] >= log_cutoff(cutoff)
    tree_attention = model.config.is_vanilla and model.config._attn_implementation in ("eager", "sdpa")
    laid = trie.rows(kept, tree_attention)
    found = first_token_log_probs.new_full((len(questions), trie.size), float("-inf"))
    if not len(laid.question):
        return found
    for some in torch.arange(len(laid.question)).split(rows_together):
        rows = Rows(*(part.to(device) for part in laid.part(some)))
        logits, is_ancestor = read_rows(model, read, trie, rows, tree_attention)
        total = logits.logsumexp(-1)  # (R, S)
        number = rows.prefixes.clamp(min=0)
        row = torch.arange(len(some), device=device)[:, None]
        token = trie.tokens.to(device)[number]
        parent = rows.parents.clamp(min=0)
        step = torch.where(
            rows.parents < 0,
            first_token_log_probs[rows.question[:, None], token],
            logits[row, parent, token] - total[row, parent],
        )  # the log-probability of a prefix's last token
        # Summed along the path of each prefix, and then the end token. A matrix product, as paths differ in length.
        scores = (is_ancestor.float() @ step[..., None])[..., 0] + logits[..., trie.end] - total
        answer = torch.where(rows.prefixes < 0, -1, trie.answers.to(device)[number])
        question = rows.question[:, None].expand_as(answer)
        # Prefixes that are no whole answer were read for their descendants alone.
        found[question[answer >= 0], answer[answer >= 0]] = scores[answer >= 0]
    return found
