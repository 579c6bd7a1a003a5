"""Answers and their exact probabilities: greedy ones, and all of a list at once through a trie of their tokens."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from .answer_trie_minigpt import AnswerTrie, Rows
from .cache_layers_minigpt import PreallocatedLayer


class Answer(NamedTuple):
    """A model's answer, and the model's uncalibrated probability of exactly this answer."""

    text: str
    probability: float


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Return `question⁇` for each question, as ids and mask (B, T), padded on the left."""
    rows = tokenizer([question + tokenizer.mask_token for question in questions], verbose=False)["input_ids"]
    # Padded here, not by the tokenizer: it would set its own state, which other threads that use it read and set, too.
    longest = max(map(len, rows))
    missing = [longest - len(ids) for ids in rows]
    padded = [[tokenizer.pad_token_id] * count + ids for count, ids in zip(missing, rows, strict=True)]
    masks = [[0] * count + [1] * (longest - count) for count in missing]
    return {"input_ids": torch.tensor(padded, device=device), "attention_mask": torch.tensor(masks, device=device)}


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


@torch.inference_mode()
def greedy_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], max_new_tokens: int
) -> list[Answer]:
    """Generate the greedy answer to each question of one batch, on one line and stripped.

    An answer that is cut off after `max_new_tokens` has the probability of the tokens so far.
    """
    batch = encode_prompts(tokenizer, questions, model.device)
    if model.config.position_embedding_type == "learned":  # there is no position to generate at beyond these
        max_new_tokens = min(max_new_tokens, model.config.max_position_embeddings - batch["input_ids"].shape[1])
    cache = None
    if model.config.is_vanilla:
        cache = Cache(layers=[PreallocatedLayer() for _ in range(model.config.num_hidden_layers)])
    generated = model.generate(
        **batch,
        past_key_values=cache,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
    # The probability of an answer is the product over its tokens and the sentinel that ends it: without the end,
    # "York" would be at least as probable as "York County".
    tokens = generated.sequences[:, batch["input_ids"].shape[1] :]  # (B, T)
    following = torch.stack(generated.logits, dim=1).float().log_softmax(-1)  # (B, T, V)
    chosen = following.gather(-1, tokens[..., None])[..., 0]
    end = tokens == tokenizer.eos_token_id
    after_end = end.cumsum(-1) - end.long() > 0  # padding
    probabilities = chosen.masked_fill(after_end, 0.0).sum(-1).exp().tolist()
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [
        Answer(" ".join(text.splitlines()).strip(), probability)
        for text, probability in zip(texts, probabilities, strict=True)
    ]


def select_rows(cache: Cache, rows: torch.Tensor) -> Cache:
    """Return a cache with the rows (R,) of another, which does not change when rows are read on from the new one."""
    selected = copy.copy(cache)
    # Selecting gives a layer new tensors, so a layer's copy may begin with those of the original.
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    selected.batch_select_indices(rows)
    return selected


def read_rows(
    model: PreTrainedModel, cache: Cache, mask: torch.Tensor, trie: AnswerTrie, rows: Rows, tree_attention: bool
):
    """Return the logits after each prefix of each row, (R, S, V), and which prefixes are its ancestors, (R, S, S).

    Args:
        cache: the questions', (B, …); not changed.
        mask: the questions', (B, T).
    """
    cache = select_rows(cache, rows.question)
    real = rows.prefixes >= 0
    number = rows.prefixes.clamp(min=0)
    is_ancestor = (
        trie.is_ancestor.to(mask.device)[number[:, :, None], number[:, None, :]] & real[:, None, :]
    )  # (R, S, S)
    seen = mask[rows.question]
    tokens = trie.tokens.to(mask.device)[number]
    if not tree_attention:
        attention_mask = torch.cat([seen, real.to(seen)], dim=-1)
        return model(tokens, attention_mask=attention_mask, past_key_values=cache).logits.float(), is_ancestor
    # A prefix sees its question and its own ancestors: to it, the rest of the row is not there. Its position is that
    # of the last token of its prefix, wherever in the row it is.
    allowed = torch.cat([seen.bool()[:, None].expand(-1, tokens.shape[1], -1), is_ancestor], dim=-1)[:, None]
    attention_mask = torch.zeros(allowed.shape, dtype=model.dtype, device=mask.device)
    attention_mask.masked_fill_(~allowed, torch.finfo(model.dtype).min)
    positions = seen.sum(-1, keepdim=True) + trie.lengths.to(mask.device)[number] - 1
    outputs = model(tokens, attention_mask=attention_mask, position_ids=positions, past_key_values=cache)
    return outputs.logits.float(), is_ancestor


@torch.inference_mode()
def score_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    trie: AnswerTrie,
    cutoff: float = 0.0,
    rows_together: int = 32,
) -> torch.Tensor:
    """Return the log-probability of every answer of a trie to each question of one batch, (B, answers).

    The questions are read once, and so is each prefix after each question: many of them share a row, in which each
    attends to the question and to its own ancestors alone. A model with linear-time layers, or a kernel that takes no
    such mask, reads each answer in a row of its own.

    Args:
        cutoff: answers whose first token is less probable than this are skipped and get -inf.
        rows_together: rows of a forward pass; few, so that their activations stay in a processor's cache.
    """
    batch = encode_prompts(tokenizer, questions, model.device)
    device = model.device
    outputs = model(**batch, use_cache=True, logits_to_keep=1)
    cache = outputs.past_key_values
    first_token_log_probs = outputs.logits[:, -1].float().log_softmax(-1)  # (B, V)
    # An answer is at most as probable as its first token, so a cutoff on that loses no answer above it.
    kept = first_token_log_probs[:, trie.first.to(device)] >= torch.tensor(cutoff).log().item()
    tree_attention = model.config.is_vanilla and model.config._attn_implementation in ("eager", "sdpa")
    laid = trie.rows(kept, tree_attention)
    found = torch.full((len(questions), trie.size), float("-inf"), device=device)
    if not len(laid.question):
        return found
    for some in torch.arange(len(laid.question)).split(rows_together):
        rows = Rows(*(part.to(device) for part in laid.part(some)))
        logits, is_ancestor = read_rows(model, cache, batch["attention_mask"], trie, rows, tree_attention)
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
