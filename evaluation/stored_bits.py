"""How many bits of facts a model stores, counted as in "Physics of Language Models: Part 3.3".

The count is that of Allen-Zhu and Li 2024 (arXiv 2404.05405, section 3).

A value that is drawn from n equally likely ones has log2(n) bits. A model that gives it the probability p after its
prompt still lacks -log2(p) of them: it has learned the difference. Over all people, that is

    learned bits = people x (entropy of the value - mean of -log2 p(value))

Names are counted alike. They are drawn from N0 and each belongs to one person, so a model that knows all N of them,
but not which comes next, has learned N x log2(N0 / N) bits.

p is read from the tokens of the value: the product of each one's probability after all that is before it. It is not
normalised over the relation's candidates, so what a model gives to texts that are no value counts as not learned, and
the result is a lower bound of the one with candidates. It may be below 0: that model is surer of wrong values than one
that has learned nothing. All of this is independent of how the model was trained.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from modeling_minigpt import MiniGPTForCausalLM


class Span(NamedTuple):
    """Tokens of a batch that say a value.

    Attributes:
        fact: whose value it is, as "birthplace".
        row: of the batch.
        start, end: its first token's position in the row, at least 1, and the one after its last.
    """

    fact: str
    row: int
    start: int
    end: int


class SpanScore(NamedTuple):
    """How probable a span is to a model.

    Attributes:
        log_prob: of all its tokens after what is before them, in nats.
        is_likeliest: whether each token is the likeliest one: greedy decoding would give this very value.
    """

    log_prob: float
    is_likeliest: bool


@dataclass(frozen=True)
class StoredBits:
    """What a model has learned of one relation's values, or of several together.

    Attributes:
        offered: bits that the values of all people have.
        learned: those of them that the model has learned.
        plus_minus: reach of the 95 % interval of `learned` where a sample of the people was scored; 0 for all.
    """

    offered: float
    learned: float
    plus_minus: float

    def __add__(self, other: "StoredBits") -> "StoredBits":
        """Add independent values; their errors are of the same people and add up at most."""
        return StoredBits(
            self.offered + other.offered, self.learned + other.learned, self.plus_minus + other.plus_minus
        )


@torch.inference_mode()
def score_spans(model: MiniGPTForCausalLM, input_ids: torch.Tensor, spans: Sequence[Span]) -> list[SpanScore]:
    """Score each span of a batch by the probabilities that a model gives to its tokens.

    Args:
        input_ids: (B, T), padded on the right.
        spans: values in it.

    Raises:
        ValueError: a span that is empty, or at the start of its row, where nothing predicts it.
    """
    for span in spans:
        if not 1 <= span.start < span.end <= input_ids.shape[1]:
            raise ValueError(f"wanted a span within [1, {input_ids.shape[1]}] of its row, found {span}")
    logits = model(input_ids.to(model.device), use_cache=False).logits[:, :-1].float()  # (B, T - 1, V)
    targets = input_ids[:, 1:].to(model.device)
    chosen = logits.gather(-1, targets[..., None])[..., 0]
    log_probs = (chosen - logits.logsumexp(-1)).double().cpu()  # (B, T - 1): at t of the token t + 1
    is_likeliest = (logits.argmax(-1) == targets).cpu()
    found = []
    for span in spans:
        own = (span.row, slice(span.start - 1, span.end - 1))
        found.append(SpanScore(log_probs[own].sum().item(), bool(is_likeliest[own].all())))
    return found


def count_bits(log_probs: Sequence[float], entropy: float, people: int) -> StoredBits:
    """Return what a model has learned of a relation.

    Args:
        log_probs: of the right value of each person who was scored, all or a sample, in nats.
        entropy: of the value, in bits per person.
        people: in all.

    Raises:
        ValueError: nobody was scored, or more than there are.
    """
    scored = len(log_probs)
    if not 1 <= scored <= people:
        raise ValueError(f"wanted log-probabilities of 1 to {people} people, found {scored}")
    losses = torch.tensor(log_probs, dtype=torch.float64) / -math.log(2)
    deviation = losses.std().item() if scored > 1 else 0.0
    # The error of a mean over a sample without repetition vanishes where the sample is everybody.
    error = deviation * math.sqrt((1 / scored) * (1 - scored / people))
    return StoredBits(people * entropy, people * (entropy - losses.mean().item()), 1.96 * people * error)


def count_all_bits(
    log_probs: Mapping[str, Sequence[float]], entropies: Mapping[str, float], people: int, names: int | None = None
) -> dict[str, StoredBits]:
    """Return what a model has learned of each relation, of all "values" together, and with names of "all".

    Args:
        log_probs: by relation, and "name" where names are counted, as of `count_bits`.
        entropies: by relation, in bits per person.
        people: in all.
        names: how many names there are to draw from, at least `people`; None does not count names.
    """
    found = {relation: count_bits(log_probs[relation], entropy, people) for relation, entropy in entropies.items()}
    values = sum(found.values(), start=StoredBits(0.0, 0.0, 0.0))
    if names is None:
        return {**found, "values": values}
    drawn = count_bits(log_probs["name"], math.log2(names), people)
    name = StoredBits(people * math.log2(names / people), drawn.learned, drawn.plus_minus)
    return {**found, "values": values, "name": name, "all": values + name}
