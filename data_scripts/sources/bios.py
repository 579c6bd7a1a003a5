"""Invented people with any number of facts: each person is a pure function of the seed, the size and their number.

As in bioS (Allen-Zhu and Li 2023, arXiv 2309.14316), a person has several lines that say the same facts in different
words. Answers are drawn with weights 1 / (rank + 3), so that popular ones exist, as in real data; years alone are
equally likely. Each fact of a person is missing from the lines with probability `SILENT_FRACTION`, so the best
possible score, the ceiling, is known and below one.
"""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from configuration.data_schema import DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.counter_random import derive_keys, integers, uniform
from data_scripts.sources.base import InventedSource, Person
from data_scripts.sources.sentences import Phrases, deal, write_layout
from data_scripts.synthetic_bios import PLACE_ENDINGS, SILENT_FRACTION, TRADES, invent_distinct, invent_word
from modeling_minigpt.relations_minigpt import Relation

LAYOUTS = 64  # a set of known facts; enough for every order of the facts and wording to occur
# Place names of one syllable are 13,000; beyond these many, most draws would be names that exist.
MAX_SHORT_PLACES = 4_000
# Unlike those of places, so that no university or employer gives a birthplace away.
INSTITUTE_ENDINGS = ("bridge", "combe", "dale", "field", "gate", "hurst", "ridge", "stead", "well", "wood")
UNIVERSITIES = ("University of {}", "{} College")
EMPLOYERS = ("{} Bank", "{} Mills", "{} Press", "{} Railways", "{} Shipping", "{} Steel")
YEARS = range(1820, 1991)
PEOPLE_STREAM = 0  # names the random numbers of people among those of the same seed

PHRASES = {
    "birthplace": Phrases(
        ("Born in {birthplace}", "Born at {birthplace}", "A native of {birthplace}", "By birth from {birthplace}"),
        ("was born in {birthplace}", "was born at {birthplace}", "came from {birthplace}",
         "was a native of {birthplace}"),
    ),
    "studied": Phrases(
        ("Educated at {studied}", "A graduate of {studied}", "After studies at {studied}", "A student of {studied}"),
        ("studied at {studied}", "was educated at {studied}", "took a degree at {studied}",
         "graduated from {studied}"),
    ),
    "worked": Phrases(
        ("Employed by {worked}", "On the staff of {worked}", "In the service of {worked}", "Hired by {worked}"),
        ("worked for {worked}", "was employed by {worked}", "earned a living at {worked}", "had a post at {worked}"),
    ),
    "profession": Phrases(
        ("By profession {profession}", "By trade {profession}", "Known as {profession}",
         "After training as {profession}"),
        ("worked as {profession}", "was {profession}", "became {profession}", "had a career as {profession}"),
    ),
    "year": Phrases(
        ("A child of {year}", "Of the births of {year}", "Baptised in {year}", "First seen in {year}"),
        ("was born in {year}", "came into the world in {year}", "had {year} as the year of birth",
         "was entered as a birth of {year}"),
    ),
    "hand": Phrases(
        ("Writing with the {hand} hand", "With a skilled {hand} hand", "Using the {hand} hand",
         "A {hand}-hand writer"),
        ("wrote with the {hand} hand", "used the {hand} hand", "preferred the {hand} hand",
         "had a stronger {hand} hand"),
    ),
}  # fmt: skip
ASIDES = (
    "is remembered to this day", "had a long life", "was known far and wide", "is the subject of a book",
)  # fmt: skip


class Pool(NamedTuple):
    """The answers of a relation, the most popular first.

    Attributes:
        answers: each alone in a tuple, as people have them.
        said: as sentences say them.
        chances: cumulative probabilities.
    """

    answers: list[tuple[str, ...]]
    said: list[str]
    chances: np.ndarray


class World(NamedTuple):
    """What people are put together from: number n has name `factor * n + offset`, of all pairs of first and last."""

    firsts: list[str]
    lasts: list[str]
    factor: int
    offset: int
    pools: dict[str, Pool]


def invent_answers(relation: str, seed: int, places: int) -> list[str]:
    """Invent all answers of a relation, in order of popularity."""
    rng = random.Random(f"bios {seed} {relation}")
    syllables = 1 if places <= MAX_SHORT_PLACES else 2

    def invent_institute(forms: Sequence[str]) -> str:
        return rng.choice(forms).format(invent_word(rng, syllables) + rng.choice(INSTITUTE_ENDINGS))

    match relation:
        case "birthplace":
            return invent_distinct(places, lambda: invent_word(rng, syllables) + rng.choice(PLACE_ENDINGS))
        case "studied":
            return invent_distinct(places // 2, lambda: invent_institute(UNIVERSITIES))
        case "worked":
            return invent_distinct(places // 2, lambda: invent_institute(EMPLOYERS))
        case "profession":
            return rng.sample(TRADES, len(TRADES))
        case "year":
            return [str(year) for year in YEARS]
    return rng.sample(("left", "right"), 2)


def say(relation: str, answer: str) -> str:
    """Return an answer with the article that a sentence needs."""
    if relation == "profession":
        return f"an {answer}" if answer[0] in "aeiou" else f"a {answer}"
    return f"the {answer}" if answer.startswith("University of") else answer


@lru_cache(maxsize=4)
def invent_world(seed: int, people: int, places: int) -> World:
    """Invent names and answers; 33 pairs of names a person, and names that more people share the more there are.

    800 people have 99 first and 269 last names, 100 million have 35,000 and 95,000.
    """
    rng = random.Random(f"bios {seed}")
    firsts = invent_distinct(max(8, round(3.5 * people**0.5)), lambda: invent_word(rng, 2))
    lasts = invent_distinct(
        max(12, round(9.5 * people**0.5)), lambda: invent_word(rng, 2) + rng.choice(("", "", "son", "ez", "ov"))
    )
    pairs = len(firsts) * len(lasts)
    # A factor without a divisor in common with the number of pairs: no two people have one pair.
    factor = rng.randrange(pairs // 4, pairs)
    while gcd(factor, pairs) > 1:
        factor += 1
    pools = {}
    for relation in PHRASES:
        answers = invent_answers(relation, seed, places)
        ranks = np.arange(len(answers))
        weights = np.ones(len(answers)) if relation == "year" else 1 / (ranks + 3)
        said = [say(relation, answer) for answer in answers]
        chances = np.cumsum(weights) / weights.sum()
        chances[-1] = 1.0  # rounded, it may be a little less, and no number below one may be above it
        pools[relation] = Pool([(answer,) for answer in answers], said, chances)
    return World(firsts, lasts, factor, rng.randrange(pairs), pools)


@lru_cache(maxsize=2**14)
def find_layout(relations: tuple[str, ...], code: int) -> str:
    """Return layout `code >> len(relations)` for people whose relation i is known where bit i of the code is set."""
    known = {relation for bit, relation in enumerate(relations) if code >> bit & 1}
    rng = random.Random(f"bios layout {code >> len(relations)}")
    per_line = max(2, (len(relations) + 1) // 2)  # so each is in two lines
    phrases = {relation: PHRASES[relation] for relation in relations}
    return write_layout(deal(relations, per_line, rng), phrases, ASIDES, known, rng)


class BiosSource(InventedSource):
    """Invent `data.people` people, among `data.places` places and half as many universities and employers.

    Raises:
        DataError: a relation that has no answers or sentences here.
    """

    def __init__(self, data: DataArguments, relations: Sequence[Relation], seed: int):
        self.people = data.people
        self.places = data.places
        self.seed = seed
        self.relations = tuple(relation.name for relation in relations)
        for name in self.relations:
            if name not in PHRASES:
                raise DataError(f"source bios: no relation {name!r}; it has {', '.join(PHRASES)}")

    def describe(self) -> dict:
        """Return the source, its licence, and what its people depend on."""
        return {
            "source": "bios", "license": "apache-2.0", "people": self.people, "places": self.places, "seed": self.seed,
        }  # fmt: skip

    def read(self, part: int) -> Iterator[Person]:
        """Yield the people of a part."""
        world = invent_world(self.seed, self.people, self.places)
        numbers = self.numbers(part)
        keys = derive_keys(self.seed, np.array([PEOPLE_STREAM]), numbers)
        codes = integers(LAYOUTS, keys, 0) << len(self.relations)
        answers = []
        said = []
        for bit, relation in enumerate(self.relations):
            pool = world.pools[relation]
            # Of a relation's own, so that facts are the same whatever else is asked.
            number = 1 + 2 * list(PHRASES).index(relation)
            drawn = np.searchsorted(pool.chances, uniform(keys, number), side="right").tolist()
            answers.append([pool.answers[place] for place in drawn])
            said.append([pool.said[place] for place in drawn])
            codes |= (uniform(keys, number + 1) >= SILENT_FRACTION).astype(np.int64) << bit
        pairs = (numbers * world.factor + world.offset) % (len(world.firsts) * len(world.lasts))
        firsts = (pairs % len(world.firsts)).tolist()
        lasts = (pairs // len(world.firsts)).tolist()
        facts = zip(zip(*answers, strict=True), zip(*said, strict=True), strict=True)
        people = zip(numbers.tolist(), firsts, lasts, codes.tolist(), facts, strict=True)
        for number, first, last, code, (right, phrases) in people:
            values = dict(zip(self.relations, phrases, strict=True))
            values["last"] = world.lasts[last]
            values["name"] = name = f"{world.firsts[first]} {world.lasts[last]}"
            documents = find_layout(self.relations, code).format_map(values).split("\n")
            yield Person(f"bios-{number}", name, documents, dict(zip(self.relations, right, strict=True)))
