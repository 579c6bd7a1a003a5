"""Bits stored, against a world that can be counted by hand: four people, a town (of four) and a hand (of two) each."""

import math
from types import SimpleNamespace

import pytest
import torch

from evaluation.stored_bits import Span, StoredBits, count_all_bits, count_bits, score_spans
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM

ENTROPIES = {"town": 2.0, "hand": 1.0}
# One token each: people 0 … 3, two prompts, four towns, two hands. A row is person, prompt, value, prompt, value.
TOWN, HAND = 4, 5
TOWNS = range(6, 10)
HANDS = range(10, 12)
ROWS = torch.tensor([[0, TOWN, 6, HAND, 10], [1, TOWN, 9, HAND, 10], [2, TOWN, 7, HAND, 11], [3, TOWN, 6, HAND, 10]])
SPANS = [span for row in range(4) for span in (Span("town", row, 2, 3), Span("hand", row, 4, 5))]


class World:
    """A model that gives each value after its prompt a probability of our choice, and the rest to other values.

    Args:
        probabilities: of the right town and hand of each person, (4, 2).
    """

    device = torch.device("cpu")

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def __call__(self, input_ids, use_cache):
        logits = torch.full((*input_ids.shape, 12), -1e9)
        for person, row in enumerate(input_ids.tolist()):
            for place, values, chance in zip((1, 3), (TOWNS, HANDS), self.probabilities[person], strict=True):
                for value in values:
                    share = chance if value == row[place + 1] else (1 - chance) / (len(values) - 1)
                    logits[person, place, value] = math.log(max(share, 1e-30))
        return SimpleNamespace(logits=logits)


def count(probabilities) -> dict[str, StoredBits]:
    """Return the bits that such a model stores."""
    log_probs = {"town": [], "hand": []}
    recalls = score_spans(World(probabilities), ROWS, SPANS)
    for span, recall in zip(SPANS, recalls, strict=True):
        log_probs[span.fact].append(recall.log_prob)
    return count_all_bits(log_probs, ENTROPIES, 4)


@pytest.mark.parametrize(
    ("probabilities", "town", "hand"),
    [
        ([(1.0, 1.0)] * 4, 8.0, 4.0),
        ([(0.25, 0.5)] * 4, 0.0, 0.0),
        # Lacking 0, 0, 0 and 3 of the towns' 8 bits, and 1, 1, 0 and 2 of the hands' 4.
        ([(1.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.125, 0.25)], 5.0, 0.0),
        # Surer of wrong values than one that has learned nothing.
        ([(0.0625, 0.25)] * 4, -8.0, -4.0),
    ],
    ids=["everything", "nothing", "some", "wrong"],
)
def test_a_tiny_world_by_hand(probabilities, town, hand):
    found = count(probabilities)
    assert found["town"].learned == pytest.approx(town, abs=1e-4)
    assert found["hand"].learned == pytest.approx(hand, abs=1e-4)
    assert found["values"].learned == pytest.approx(town + hand, abs=1e-4)
    assert (found["town"].offered, found["hand"].offered, found["values"].offered) == (8.0, 4.0, 12.0)
    assert {bits.plus_minus for bits in found.values()} == {0.0}


def test_names_are_counted_as_the_paper_counts_them():
    values = {"town": [0.0] * 4, "hand": [0.0] * 4}
    who_knows_all = {**values, "name": [-math.log(4)] * 4}  # one of the four comes next
    found = count_all_bits(who_knows_all, ENTROPIES, 4, names=64)
    assert found["name"].offered == 4 * math.log2(64 / 4) == 16.0
    assert found["name"].learned == pytest.approx(16.0)
    assert found["all"].learned == pytest.approx(12.0 + 16.0)
    nothing = {**values, "name": [-math.log(64)] * 4}
    assert count_all_bits(nothing, ENTROPIES, 4, names=64)["name"].learned == pytest.approx(0.0, abs=1e-9)


def test_a_sample_has_an_interval_and_everybody_has_none():
    log_probs = [-math.log(2) * bits for bits in (0.0, 1.0, 2.0, 1.0)]
    sample = count_bits(log_probs, 2.0, 400)
    assert (sample.offered, sample.learned) == (800.0, pytest.approx(400.0))
    deviation = math.sqrt(2 / 3)
    assert sample.plus_minus == pytest.approx(1.96 * 400 * deviation / 2 * math.sqrt(1 - 4 / 400))
    assert count_bits(log_probs, 2.0, 4).plus_minus == 0.0
    assert count_bits(log_probs[:1], 2.0, 4).plus_minus == 0.0


@pytest.mark.parametrize("log_probs", [[], [0.0] * 5], ids=len)
def test_nobody_and_more_than_there_are_cannot_be_counted(log_probs):
    with pytest.raises(ValueError, match=f"1 to 4 people, found {len(log_probs)}"):
        count_bits(log_probs, 1.0, 4)


def test_a_span_has_the_probability_of_its_tokens_one_after_the_other():
    torch.manual_seed(0)
    model = MiniGPTForCausalLM(MiniGPTConfig(vocab_size=12, hidden_size=16, num_attention_heads=2)).eval()
    ids = torch.randint(12, (2, 9))
    found = score_spans(model, ids, [Span("town", 0, 3, 6), Span("hand", 1, 1, 2)])
    expected = [0.0, 0.0]
    for number, (row, positions) in enumerate(((0, (3, 4, 5)), (1, (1,)))):
        for position in positions:
            with torch.no_grad():
                logits = model(ids[row : row + 1, :position]).logits[0, -1]
            expected[number] += logits.log_softmax(-1)[ids[row, position]].item()
    assert [recall.log_prob for recall in found] == pytest.approx(expected, abs=1e-4)


def test_a_value_is_likeliest_only_if_each_of_its_tokens_is():
    recalls = score_spans(World([(0.9, 0.9), (0.9, 0.2), (0.1, 0.9), (0.1, 0.2)]), ROWS, SPANS)
    assert [recall.is_likeliest for recall in recalls] == [True, True, True, False, False, True, False, False]
    # A prompt follows each town with probability 0 here, so town and prompt together are not.
    (longer,) = score_spans(World([(0.9, 0.9)] * 4), ROWS, [Span("town", 0, 2, 4)])
    assert not longer.is_likeliest


@pytest.mark.parametrize(("start", "end"), [(0, 2), (3, 3), (4, 6)])
def test_a_span_that_nothing_predicts_is_refused(start, end):
    with pytest.raises(ValueError, match=r"wanted a span within \[1, 5\] of its row"):
        score_spans(World([(1.0, 1.0)] * 4), ROWS, [Span("town", 0, start, end)])
