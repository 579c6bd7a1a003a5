"""The texts of `capacity`: biographies of equally likely values and questions about them, as tokens in packed rows.

A token is a word: spelling names and values in pieces would take a small model's room, and the first thing to learn
would be which pieces follow each other. A row is `⁇text⁇text⁇…`, as long as the longest text of its batch: a biography
mostly has a row of its own, and questions share one. Every token of a biography is learned, of a question only its
answer. Batches are pure functions of (seed, step): in each epoch every person is seen once, in an order of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from data_scripts.batches import IGNORE_INDEX
from data_scripts.permutations import permute
from data_scripts.sources.bios_uniform import (
    EMPLOYER_FIRST,
    NAME,
    ORDERS,
    PAPER,
    Piece,
    Population,
    Sizes,
    write_biography,
)
from evaluation.stored_bits import Span

ROW = 80  # tokens at most
BATCH = 24  # biographies of a step: a small model needs many steps, after 1,000 exposures, too
QUESTION_BATCH = 96  # questions of a step that has nothing else: about as many tokens
QUESTION_PASSES = 8  # over all questions that are trained on after the biographies
PAD, SENTINEL = range(2)  # the tokens that are no words
# Names and values to draw from. Each is a token here, and the embeddings of the paper's 2,663 would be most of a small
# model. But where many people share a first or last name, nothing follows from it alone, and a model takes long to
# begin to tell them apart: with the "few" names for 1,830 people, 30 of 100 exposures.
FEW = Sizes(firsts=30, middles=30, lasts=60, years=100, cities=32, universities=32, fields=16, employers=32)
SHORT = Sizes(firsts=100, middles=100, lasts=250, years=100, cities=64, universities=64, fields=32, employers=64)
LISTS = {"few": FEW, "short": SHORT, "paper": PAPER}
QUESTIONS = {
    "birthdate": "When was {name} born ?",
    "birthplace": "Where was {name} born ?",
    "studied": "Which college did {name} attend ?",
    "field": "Which subject did {name} choose ?",
    "worked": "Which employer did {name} have ?",
    "workplace": "In which city did {name} work ?",
}
BIOGRAPHY_STREAM, QUESTION_STREAM = range(2)  # name the orders of an epoch


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        attention: the variant.
        width, layers: of the model.
        people: how many it learns of.
        exposures: how often it sees a biography of each.
        wordings: versions of a biography that are seen in turn; None for a new one at every exposure.
        questions: when questions about half of the people are trained on: "after" the biographies, or "mixed" with
            them; None for never.
        seed: of weights, people and order.
        precision: "bf16" for autocast to bfloat16 while training, or "no"; bits are counted in float32 always.
    """

    attention: str
    width: int
    layers: int
    people: int
    exposures: int
    wordings: int | None = None
    questions: str | None = None
    seed: int = 0
    precision: str = "no"

    @property
    def steps(self) -> int:
        """Steps over the biographies."""
        return -(-self.people * self.exposures // BATCH)

    @property
    def asked(self) -> int:
        """How many people questions are trained on about: the first half."""
        return self.people // 2

    @property
    def question_steps(self) -> int:
        """Steps over questions after the biographies."""
        if self.questions != "after":
            return 0
        return -(-self.asked * len(QUESTIONS) * QUESTION_PASSES // QUESTION_BATCH)

    def version(self, exposures: np.ndarray) -> np.ndarray:
        """Return which version of a biography is seen at each exposure, from 0."""
        return exposures if self.wordings is None else exposures % self.wordings


class Text(NamedTuple):
    """A text as tokens.

    Attributes:
        ids: its tokens, the last one a sentinel.
        first_target: the first token that is learned.
        spans: the values that it says, as (fact, start, end) in `ids`.
    """

    ids: list[int]
    first_target: int
    spans: list[tuple[str, int, int]]


class Rows(NamedTuple):
    """Packed texts.

    Attributes:
        input_ids: (R, T), padded on the right.
        labels: the same, without what is not learned.
        spans: the values that each text says.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    spans: list[list[Span]]

    @property
    def batch(self) -> dict[str, torch.Tensor]:
        """What a model learns from."""
        return {"input_ids": self.input_ids, "labels": self.labels}


class Writer:
    """Write the biographies of a population, and questions about it, as tokens.

    Args:
        seed: of the population.
        people: those that are written about.
        lists: how many names and values there are.
        employer_first: whether no biography says the employer's city before the employer.

    Attributes:
        ids: the token of each word; the vocabulary has `PAD` and `SENTINEL` besides.
    """

    def __init__(self, seed: int, people: int, lists: Sizes = SHORT, employer_first: bool = False):
        self.population = Population(seed, lists, EMPLOYER_FIRST if employer_first else ORDERS)
        self.people = people
        texts = [*self.population.phrases(), *(question.format(name="") for question in QUESTIONS.values())]
        words = dict.fromkeys(word for text in texts for word in text.split())  # a dict as an ordered set
        self.ids = {word: SENTINEL + number for number, word in enumerate(words, start=1)}

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self.ids) + 2

    @cached_property
    def facts(self) -> list[dict[str, str]]:
        """The facts of all people."""
        return self.population.facts(np.arange(self.people))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return [self.ids[word] for word in text.split()]

    def join(self, pieces: Sequence[Piece]) -> Text:
        """Return pieces and a sentinel as one text, of which everything is learned."""
        ids: list[int] = []
        spans = []
        for piece in pieces:
            tokens = self.encode(piece.text)
            if piece.fact is not None:
                spans.append((piece.fact, len(ids), len(ids) + len(tokens)))
            ids += tokens
        return Text([*ids, SENTINEL], 0, spans)

    def biographies(self, numbers: np.ndarray, versions: np.ndarray) -> list[Text]:
        """Return a version of each person's biography."""
        layouts = self.population.layouts(numbers, versions)
        return [
            self.join(write_biography(self.facts[number], layout))
            for number, layout in zip(numbers.tolist(), layouts, strict=True)
        ]

    def question(self, number: int, relation: str) -> Text:
        """Return a question about a person, `question⁇answer⁇`; its span ends with the answer's sentinel."""
        facts = self.facts[number]
        asked = [*self.encode(QUESTIONS[relation].format(name=facts[NAME])), SENTINEL]
        ids = [*asked, *self.encode(facts[relation]), SENTINEL]
        return Text(ids, len(asked), [(relation, len(asked), len(ids))])

    def pack(self, texts: Sequence[Text]) -> Rows:
        """Put whole texts into rows as long as the longest, each into the first that has room.

        Raises:
            ValueError: a text that no model reads whole.
        """
        longest = 1 + max(len(text.ids) for text in texts)
        if longest > ROW:
            raise ValueError(f"wanted a text of less than {ROW} tokens, found {longest - 1}")
        rows: list[list[int]] = []
        spans = []
        places = []
        for text in texts:
            row = next((row for row, ids in enumerate(rows) if len(ids) + len(text.ids) <= longest), len(rows))
            if row == len(rows):
                rows.append([SENTINEL])
            start = len(rows[row])
            rows[row] += text.ids
            places.append((row, start, start + text.first_target))
            spans.append([Span(fact, row, start + first, start + end) for fact, first, end in text.spans])
        input_ids = torch.full((len(rows), longest), PAD)
        for row, ids in enumerate(rows):
            input_ids[row, : len(ids)] = torch.tensor(ids)
        labels = input_ids.masked_fill(input_ids == PAD, IGNORE_INDEX)
        for row, start, first_target in places:
            labels[row, start:first_target] = IGNORE_INDEX
        return Rows(input_ids, labels, spans)


def draw(first: int, end: int, size: int, seed: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `size` examples are drawn at places `first` … `end` - 1 of a stream, and each one's epoch."""
    epochs, places = np.divmod(np.arange(first, end), size)
    drawn = np.empty_like(places)
    for epoch in np.unique(epochs).tolist():
        drawn[epochs == epoch] = permute(places[epochs == epoch], size, seed, stream, epoch)
    return drawn, epochs


class Lessons:
    """The batches of a case: number `step` is biographies, with as many questions where those are mixed in.

    Behind the steps over biographies are those over questions alone.
    """

    def __init__(self, case: Case, writer: Writer):
        self.case = case
        self.writer = writer

    def __len__(self) -> int:
        return self.case.steps + self.case.question_steps

    def biographies(self, step: int) -> list[Text]:
        """Return the biographies of a step."""
        case = self.case
        end = min((step + 1) * BATCH, case.people * case.exposures)
        people, epochs = draw(step * BATCH, end, case.people, case.seed, BIOGRAPHY_STREAM)
        return self.writer.biographies(people, case.version(epochs))

    def questions(self, step: int, count: int) -> list[Text]:
        """Return the questions of a step that has `count` of them."""
        size = self.case.asked * len(QUESTIONS)
        drawn, _ = draw(step * count, (step + 1) * count, size, self.case.seed, QUESTION_STREAM)
        people, relations = np.divmod(drawn, len(QUESTIONS))
        names = list(QUESTIONS)
        return [
            self.writer.question(person, names[relation])
            for person, relation in zip(people.tolist(), relations.tolist(), strict=True)
        ]

    def __getitem__(self, step: int) -> Rows:
        if step >= self.case.steps:
            return self.writer.pack(self.questions(step - self.case.steps, QUESTION_BATCH))
        texts = self.biographies(step)
        if self.case.questions == "mixed":
            texts += self.questions(step, BATCH)
        return self.writer.pack(texts)
