"""Answers and their exact probabilities: greedy ones, and all of a list at once through a trie of their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Answer(NamedTuple):
    """What a model answers, and the probability that it gives this answer to be the whole one: not calibrated."""

    text: str
    probability: float


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Return `question⁇` for each question, as ids and mask (B, T), padded on the left."""
    prompts = [question + tokenizer.mask_token for question in questions]
    return tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(device)


@torch.inference_mode()
def greedy_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], max_new_tokens: int
) -> list[Answer]:
    """Return the greedy answer to each question of one batch, on one line and stripped.

    An answer that is cut off after `max_new_tokens` has the probability of what was said.
    """
    batch = encode_prompts(tokenizer, questions, model.device)
    generated = model.generate(
        **batch,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
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


@dataclass(frozen=True)
class Level:
    """The prefixes of one length in an `AnswerTrie`.

    Attributes:
        tokens: the last token of each, (N,).
        parents: which prefix of the level above each continues, (N,); all 0 in the first level.
        answers: which answer each is, whole, (N,); -1 for none.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    answers: torch.Tensor


class AnswerTrie:
    """Answers as a trie of tokens, so that what they begin with alike is read once.

    Args:
        answers: texts; as a model's answers they stand after the sentinel and before another.
        tokenizer: the model's.

    Raises:
        ValueError: no answers, an empty one, or two that have the same tokens.
    """

    def __init__(self, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase):
        if not answers:
            raise ValueError("found no answers to score")
        self.size, self.end = len(answers), tokenizer.eos_token_id
        numbers: dict[tuple[int, ...], int] = {}
        for number, (answer, ids) in enumerate(zip(answers, tokenizer(list(answers))["input_ids"], strict=True)):
            if not answer.strip():
                raise ValueError(f"answer {number + 1} is empty")
            if numbers.setdefault(tuple(ids), number) != number:
                raise ValueError(f"answers {numbers[tuple(ids)] + 1} and {number + 1} are the same: {answer!r}")
        self.levels: list[Level] = []
        above: dict[tuple[int, ...], int] = {(): 0}
        for length in range(1, max(map(len, numbers)) + 1):
            prefixes = sorted({ids[:length] for ids in numbers if len(ids) >= length})
            self.levels.append(
                Level(
                    tokens=torch.tensor([prefix[-1] for prefix in prefixes]),
                    parents=torch.tensor([above[prefix[:-1]] for prefix in prefixes]),
                    answers=torch.tensor([numbers.get(prefix, -1) for prefix in prefixes]),
                )
            )
            above = {prefix: number for number, prefix in enumerate(prefixes)}


@torch.inference_mode()
def score_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    trie: AnswerTrie,
    cutoff: float = 1e-4,
) -> torch.Tensor:
    """Return the log-probability of every answer of a trie to each question of one batch, (B, answers).

    The questions are read once. Each level of the trie is then one forward pass over all its prefixes, which go on
    from their parents' rows of the cache.

    Args:
        cutoff: a prefix less probable than this is not followed, and the answers that begin with it get -inf; 0 to
            follow all, at a cost of questions × prefixes tokens.
    """
    batch = encode_prompts(tokenizer, questions, model.device)
    count, device, least = len(questions), model.device, torch.tensor(cutoff).log().item()
    outputs, mask = model(**batch, use_cache=True, logits_to_keep=1), batch["attention_mask"]
    found = torch.full((count, trie.size), float("-inf"), device=device)
    rows = torch.arange(count, device=device)[:, None]  # (B, prefixes above): where the cache holds each; -1: nowhere
    reached = torch.zeros(count, 1, device=device)  # (B, prefixes above): their log-probabilities
    following = outputs.logits[:, -1].float().log_softmax(-1)  # (rows, V)
    for level in trie.levels:
        tokens, parents, answers = (part.to(device) for part in (level.tokens, level.parents, level.answers))
        sources = rows[:, parents]  # (B, N)
        reached = reached[:, parents] + following[sources.clamp(min=0), tokens]
        kept = (sources >= 0) & (reached > least)
        if not kept.any():
            break
        question, prefix = kept.nonzero(as_tuple=True)
        outputs.past_key_values.batch_select_indices(sources[kept])
        mask = torch.nn.functional.pad(mask[sources[kept]], (0, 1), value=1)  # and the prefixes' last tokens
        outputs = model(tokens[prefix][:, None], attention_mask=mask, past_key_values=outputs.past_key_values)
        following = outputs.logits[:, -1].float().log_softmax(-1)
        whole = answers[prefix] >= 0
        found[question[whole], answers[prefix][whole]] = (reached[kept] + following[:, trie.end])[whole]
        rows = torch.full_like(sources, -1)
        rows[kept] = torch.arange(len(prefix), device=device)
    return found
