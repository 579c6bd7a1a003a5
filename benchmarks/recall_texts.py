"""The texts of `attention_recall`: four tasks of associative recall, each a function that writes one text.

- people: biographies, `NAME PLACE word … STOP`, with no name twice, and questions in between, `ASK NAME PLACE`.
- several: each person has a place, a profession and a year, in any order, `NAME BORN PLACE word … NAME SINCE YEAR
  word … NAME WORKS PROFESSION word … STOP`. The question, `ASK NAME BORN`, has a name that is in two other facts too.
- similar: as people, with a first and a last name, `FIRST LAST PLACE word … STOP`. In a long text each of the 16 first
  and 16 last names belongs to some seven people: one name alone leads to the right place once in seven times.
- mqar: multi-query associative recall in the form of Zoology (Arora et al. 2023, arXiv 2312.04927, section 4): first
  `KEY VALUE` pairs, then words, and among them `KEY VALUE` once more for each key, near or far by a power law.

Questions are about what the text has said before, once. An answer is in the text, after its question: the model learns
from it, and later questions are never about the same.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

ASK, STOP = range(2)
WORDS = range(2, 34)
PLACES = range(34, 66)
NAMES = range(66, 322)
FIRST_NAMES = NAMES[:16]
LAST_NAMES = NAMES[16:32]
PROFESSIONS = range(322, 354)
YEARS = range(354, 386)
BORN, WORKS, SINCE = range(386, 389)
ATTRIBUTES = {BORN: PLACES, WORKS: PROFESSIONS, SINCE: YEARS}
MAX_PAIRS = 128
LONGEST_QUESTION = 3  # tokens before the answer
POWER = 0.01  # of the distances of mqar: the density of distance x is ∝ x^(POWER - 1), Zoology's default


@dataclass(frozen=True)
class Fact:
    """Something that a text says and that can be asked.

    Attributes:
        question: the tokens that ask for it.
        answer: the token that answers.
        position: where the text says it: the position of `answer`, counted from the start of the text.
    """

    question: tuple[int, ...]
    answer: int
    position: int


@dataclass
class Text:
    """A text and what can be asked of it.

    Attributes:
        ids: its tokens, (T,).
        answers: position of each token that answers a question in the text: position of the same token in the fact.
        open: the facts that no question in the text is about.
    """

    ids: np.ndarray
    answers: dict[int, int] = field(default_factory=dict)
    open: list[Fact] = field(default_factory=list)


def write_biographies(
    rng: np.random.Generator,
    length: int,
    biographies: Iterator[tuple[list[int], list[Fact]]],
    question_share: float = 0.4,
) -> Text:
    """Write biographies and questions about them until there are `length` tokens.

    A question is as likely near as far, in octaves, and there is one at most about each fact.

    Args:
        biographies: the tokens of each and its facts, with positions counted from its own start.
        question_share: how often a question comes next rather than a biography.
    """
    ids: list[int] = []
    answers = {}
    facts: list[Fact] = []
    while len(ids) < length:
        if len(facts) > 1 and rng.random() < question_share:
            back = min(len(facts), math.floor((len(facts) + 1) ** rng.random()))  # log-uniform over 1 … all
            fact = facts.pop(-back)
            answers[len(ids) + len(fact.question)] = fact.position
            ids += [*fact.question, fact.answer]
        else:
            tokens, said = next(biographies)
            facts += [Fact(fact.question, fact.answer, len(ids) + fact.position) for fact in said]
            ids += tokens
    return Text(
        ids=np.array(ids[:length]),
        answers={position: source for position, source in answers.items() if position < length},
        open=[fact for fact in facts if fact.position < length],
    )


def some_words(rng: np.random.Generator, most: int) -> list[int]:
    """Return up to `most` words, any number as likely."""
    return rng.choice(WORDS, size=rng.integers(most + 1)).tolist()


def write_people(rng: np.random.Generator, length: int) -> Text:
    """Write a text of one place a person: about a hundred people in a long one, up to length / 64 words each."""

    def biographies():
        for name in rng.permutation(NAMES).tolist():
            place = int(rng.choice(PLACES))
            yield [name, place, *some_words(rng, length // 64), STOP], [Fact((ASK, name), place, 1)]

    return write_biographies(rng, length, biographies())


def write_several(rng: np.random.Generator, length: int) -> Text:
    """Write a text of three facts a person, up to length / 192 words after each."""

    def biographies():
        for name in rng.permutation(NAMES).tolist():
            tokens: list[int] = []
            facts = []
            for attribute in rng.permutation(list(ATTRIBUTES)).tolist():
                value = int(rng.choice(ATTRIBUTES[attribute]))
                facts.append(Fact((ASK, name, attribute), value, len(tokens) + 2))
                tokens += [name, attribute, value, *some_words(rng, length // 192)]
            yield [*tokens, STOP], facts

    return write_biographies(rng, length, biographies())


def write_similar(rng: np.random.Generator, length: int) -> Text:
    """Write a text of people with two names, each of which they share with others: 16 × 16 names in all."""

    def biographies():
        for number in rng.permutation(len(FIRST_NAMES) * len(LAST_NAMES)).tolist():
            first = FIRST_NAMES[number // len(LAST_NAMES)]
            last = LAST_NAMES[number % len(LAST_NAMES)]
            place = int(rng.choice(PLACES))
            tokens = [first, last, place, *some_words(rng, length // 64), STOP]
            yield tokens, [Fact((ASK, first, last), place, 2)]

    return write_biographies(rng, length, biographies())


def write_mqar(rng: np.random.Generator, length: int) -> Text:
    """Write up to 128 pairs of a key and a value, one for 16 tokens of the text, then every key with its value again.

    Behind the pairs the text is cut into places of two tokens. The n-th of them gets a question with a probability
    ∝ n^(a - 1), a = 0.01, which is nearly as often in every octave; the others are words. Zoology does not show the
    answers in the text. Here they are, as in the other tasks: no key is asked for twice.
    """
    pairs = min(MAX_PAIRS, length // 16)
    keys = rng.permutation(NAMES)[:pairs]
    values = rng.choice(PLACES, size=pairs)
    ids = rng.choice(WORDS, size=length)
    ids[: 2 * pairs : 2] = keys
    ids[1 : 2 * pairs : 2] = values
    free = (length - 2 * pairs) // 2
    density = np.arange(1, free + 1) ** (POWER - 1)
    places = rng.choice(free, size=pairs, replace=False, p=density / density.sum()) if pairs else np.zeros(0, int)
    questions = 2 * pairs + 2 * places
    ids[questions] = keys
    ids[questions + 1] = values
    return Text(ids=ids, answers={int(at) + 1: 2 * pair + 1 for pair, at in enumerate(questions)})


@dataclass(frozen=True)
class Task:
    """A task of recall.

    Attributes:
        write: writes a text of some length in tokens.
        vocabulary: how many tokens there are.
        choices: how many values an answer may have, all as likely.
        what: the task in some words.
        in_one_pass: whether a model is scored by the questions in a text, rather than by one more at its end.
    """

    write: Callable[[np.random.Generator, int], Text]
    vocabulary: int
    choices: int
    what: str
    in_one_pass: bool = False


TASKS = {
    "people": Task(write_people, NAMES.stop, len(PLACES), "one place a person"),
    "mqar": Task(
        write_mqar, NAMES.stop, len(PLACES), "keys and values first, then every key once (Arora et al. 2023)", True
    ),
    "several": Task(write_several, SINCE + 1, len(PLACES), "a place, a profession and a year for each person"),
    "similar": Task(write_similar, NAMES.stop, len(PLACES), "one place a person; first and last names are shared"),
}


def batch_of(task: str, rng: np.random.Generator, rows: int, length: int) -> dict[str, torch.Tensor]:
    """Return `rows` texts as `{"input_ids", "labels"}` (B, T), with labels at the answers only."""
    texts = [TASKS[task].write(rng, length) for _ in range(rows)]
    ids = torch.from_numpy(np.stack([text.ids for text in texts]))
    labels = torch.full_like(ids, -100)
    for row, text in enumerate(texts):
        answers = list(text.answers)
        labels[row, answers] = ids[row, answers]
    return {"input_ids": ids, "labels": labels}
