"""Invented people whose values are all equally likely, so that what a model knows of them can be counted in bits.

In the manner of bioS (Allen-Zhu and Li 2024, arXiv 2404.05405, section 2.2): a pronoun, a birth date, a birthplace, a
university, a field, an employer and the employer's city, each in a sentence of its own.

    Ana Brido Melez studied at Stalton College . She was born on 3 May 1977 . She worked for Dragate Mills . …

Person n is a pure function of (seed, n), and so is each version of the biography: other wordings, another order. The
name is n's place in a permutation of all names, so no two people share one and no list of people is stored. At the
paper's sizes the values have 47.6 bits per person; the employer's city follows from the employer and has none.

No word before a value depends on it, not even an article, and no value is the beginning of another one of its kind:
the probability of its tokens is that of the value.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import permutations
from math import log2, prod
from typing import NamedTuple

import numpy as np

from configuration.data_schema import DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.counter_random import derive_keys, integers, output
from data_scripts.permutations import keyed_permutation
from data_scripts.sources.base import InventedSource, Person
from data_scripts.sources.bios import EMPLOYERS, INSTITUTE_ENDINGS
from data_scripts.synthetic_bios import MONTHS, PLACE_ENDINGS, invent_word
from modeling_minigpt.relations_minigpt import Relation

DAYS = 28  # of every month
FIRST_YEAR = 1900
PRONOUNS = ("He", "She")
UNIVERSITIES = ("{} College", "{} University")
FIELD_ENDINGS = ("istics", "nomics", "ography", "ology", "ometry")
LAST_NAME_ENDINGS = ("", "", "son", "ez", "ov")
NAME = "name"
PRONOUN = "pronoun"
# Each sentence is a subject, one of these, and the value.
PREDICATES = {
    "birthdate": (
        "was born on", "began life on", "came into the world on", "saw first light on", "has the birth date",
        "was a child of", "took the first breath on", "has a birthday since",
    ),
    "birthplace": (
        "was born in", "came from", "is a native of", "hails from", "has roots in", "grew up in",
        "spent childhood in", "had a first home in",
    ),
    "studied": (
        "studied at", "graduated from", "was educated at", "took a degree at", "was a student of", "attended",
        "was taught at", "passed the exams of",
    ),
    "field": (
        "majored in", "specialised in", "chose the subject", "was trained in", "has a degree in", "focused on",
        "learned all about", "wrote a thesis on",
    ),
    "worked": (
        "worked for", "was employed by", "had a post at", "earned a living at", "made a career at",
        "was on the staff of", "served", "joined",
    ),
    "workplace": (
        "worked in", "had an office in", "commuted to", "moved for work to", "had a desk in", "did business in",
        "spent working days in", "was stationed in",
    ),
}  # fmt: skip
WORDINGS = 8  # of each sentence
RELATIONS = (PRONOUN, *PREDICATES)
ORDERS = np.array(list(permutations(PREDICATES)))  # of sentences
EMPLOYER_FIRST = np.array(
    [order for order in permutations(PREDICATES) if order.index("worked") < order.index("workplace")]
)
# Whose bits a value's are: with the employer its city is known, and with the city a part of the employer.
COUNTED_WITH = {"workplace": "worked"}
# Each names the random numbers of one thing among those of the same seed.
NAME_STREAM, VALUE_STREAM, WORDING_STREAM, CITY_STREAM = range(4)


class Sizes(NamedTuple):
    """How many there are of each kind; by default as many as in the paper."""

    firsts: int = 400
    middles: int = 400
    lasts: int = 1000
    years: int = 200
    cities: int = 200
    universities: int = 300
    fields: int = 100
    employers: int = 263


PAPER = Sizes()


class Piece(NamedTuple):
    """A part of a biography, separated from the others by a space.

    Attributes:
        text: one or several words.
        fact: whose value it is, "name" or a relation; None for words that are no value.
    """

    text: str
    fact: str | None = None


def invent_values(count: int, make: Callable[[], str]) -> list[str]:
    """Return `count` different results of `make()`, none of which begins with another one."""
    found: dict[str, None] = {}  # a dict as an ordered set
    beginnings: set[str] = set()
    while len(found) < count:
        value = make()
        prefixes = {value[:end] for end in range(1, len(value) + 1)}
        if value not in beginnings and not prefixes & found.keys():
            found[value] = None
            beginnings |= prefixes
    return list(found)


@lru_cache(maxsize=4)
def invent_lists(seed: int, sizes: Sizes) -> dict[str, list[str]]:
    """Invent the parts of names and the values of all relations but dates, by "firsts", …, "employers"."""
    rng = random.Random(f"uniform bios {seed}")

    def invent_institute(forms: Sequence[str]) -> str:
        return rng.choice(forms).format(invent_word(rng, 1) + rng.choice(INSTITUTE_ENDINGS))

    return {
        "firsts": invent_values(sizes.firsts, lambda: invent_word(rng, 2)),
        "middles": invent_values(sizes.middles, lambda: invent_word(rng, 2)),
        "lasts": invent_values(sizes.lasts, lambda: invent_word(rng, 2) + rng.choice(LAST_NAME_ENDINGS)),
        "cities": invent_values(sizes.cities, lambda: invent_word(rng, 1) + rng.choice(PLACE_ENDINGS)),
        "universities": invent_values(sizes.universities, lambda: invent_institute(UNIVERSITIES)),
        "fields": invent_values(sizes.fields, lambda: invent_word(rng, 1) + rng.choice(FIELD_ENDINGS)),
        "employers": invent_values(sizes.employers, lambda: invent_institute(EMPLOYERS)),
    }


class Population:
    """All people of a seed: whoever is asked for is invented then and there.

    Args:
        seed: of names, values and wordings.
        sizes: how many names and values there are.
        orders: of sentences, (orders, 6) relations, all as likely; `EMPLOYER_FIRST` never says the employer's city
            before the employer, from which it follows.

    Attributes:
        names: how many people can have a name of their own.
    """

    def __init__(self, seed: int, sizes: Sizes = PAPER, orders: np.ndarray = ORDERS):
        self.seed = seed
        self.sizes = sizes
        self.orders = orders
        self.names = prod(sizes[:3])
        self.lists = invent_lists(seed, sizes)

    @cached_property
    def choices(self) -> dict[str, int]:
        """How many values each relation draws from, all as likely; the employer's city is not drawn."""
        sizes = self.sizes
        return {
            PRONOUN: len(PRONOUNS),
            "birthdate": DAYS * len(MONTHS) * sizes.years,
            "birthplace": sizes.cities,
            "studied": sizes.universities,
            "field": sizes.fields,
            "worked": sizes.employers,
        }

    @property
    def entropies(self) -> dict[str, float]:
        """The entropy of each relation's value, in bits per person."""
        return {relation: log2(count) for relation, count in self.choices.items()}

    def phrases(self) -> list[str]:
        """Return all names, values and predicates: every word of any biography is in one of them."""
        years = range(FIRST_YEAR, FIRST_YEAR + self.sizes.years)
        predicates = [text for texts in PREDICATES.values() for text in texts]
        numbers = map(str, [*range(1, DAYS + 1), *years])
        return [
            *PRONOUNS,
            *predicates,
            ".",
            *MONTHS,
            *numbers,
            *(text for texts in self.lists.values() for text in texts),
        ]

    def draw(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Return which value of each relation the people have, (N,) each, in [0, choices)."""
        keys = derive_keys(self.seed, np.array([VALUE_STREAM]), numbers)
        # Number i of each person is relation i's.
        return {relation: integers(count, keys, i) for i, (relation, count) in enumerate(self.choices.items())}

    def facts(self, numbers: np.ndarray) -> list[dict[str, str]]:
        """Return the people's names and values, by "name" and the relations' names.

        Args:
            numbers: people, (N,), each less than `names`.

        Raises:
            ValueError: a number that has no name.
        """
        if np.any(numbers >= self.names):
            raise ValueError(f"wanted people of numbers below {self.names}, found {numbers.max()}")
        lists = self.lists
        drawn = self.draw(numbers)
        places = keyed_permutation(numbers, self.names, self.seed, NAME_STREAM, 0)
        rest, first = np.divmod(places, self.sizes.firsts)
        last, middle = np.divmod(rest, self.sizes.middles)
        months, day = np.divmod(drawn["birthdate"], DAYS)
        year, month = np.divmod(months, len(MONTHS))
        employer_keys = derive_keys(self.seed, np.array([CITY_STREAM]), drawn["worked"])
        indices = {
            "first": first, "middle": middle, "last": last, **drawn,
            "day": 1 + day, "month": month, "year": FIRST_YEAR + year,
            "workplace": integers(self.sizes.cities, employer_keys, 0),
        }  # fmt: skip
        columns = {name: column.tolist() for name, column in indices.items()}
        people = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return [
            {
                NAME: " ".join(lists[f"{part}s"][person[part]] for part in ("first", "middle", "last")),
                PRONOUN: PRONOUNS[person[PRONOUN]],
                "birthdate": f"{person['day']} {MONTHS[person['month']]} {person['year']}",
                "birthplace": lists["cities"][person["birthplace"]],
                "studied": lists["universities"][person["studied"]],
                "field": lists["fields"][person["field"]],
                "worked": lists["employers"][person["worked"]],
                "workplace": lists["cities"][person["workplace"]],
            }
            for person in people
        ]

    def layouts(self, numbers: np.ndarray, versions: np.ndarray) -> list[dict[str, int]]:
        """Return which predicate says each fact in a version of each biography, in the order of its sentences.

        Versions differ in order. Of `WORDINGS` versions one after the other, from version 0 on, no two say a fact in
        the same words.

        Args:
            numbers: people, (N,).
            versions: from 0, (N,).
        """
        keys = derive_keys(self.seed, np.array([WORDING_STREAM]), numbers)
        orders = self.orders[integers(len(self.orders), output(keys, 2 * versions), 0)]  # (N, 6)
        rounds = output(keys, 2 * (versions // WORDINGS) + 1)
        starts = integers(WORDINGS, rounds[:, None], np.arange(len(PREDICATES)))  # (N, 6)
        wordings = dict(zip(PREDICATES, ((starts + versions[:, None]) % WORDINGS).T.tolist(), strict=True))
        return [
            {relation: wordings[relation][place] for relation in order} for place, order in enumerate(orders.tolist())
        ]

    def biographies(self, numbers: np.ndarray, versions: np.ndarray) -> list[list[Piece]]:
        """Return a version of each person's biography; arguments as of `layouts`."""
        layouts = self.layouts(numbers, versions)
        return [write_biography(*parts) for parts in zip(self.facts(numbers), layouts, strict=True)]


def write_biography(facts: dict[str, str], wordings: dict[str, int]) -> list[Piece]:
    """Return a biography of the facts in the order of `wordings`, which chooses one of each fact's predicates."""
    subject = Piece(facts[NAME], NAME)
    pieces = []
    for number, (relation, wording) in enumerate(wordings.items()):
        # The pronoun is a value where it is said first; later ones repeat it.
        pronoun = Piece(facts[PRONOUN], PRONOUN if number == 1 else None)
        predicate = Piece(PREDICATES[relation][wording])
        pieces += [pronoun if number else subject, predicate, Piece(facts[relation], relation), Piece(".")]
    return pieces


def join_pieces(pieces: Sequence[Piece]) -> str:
    """Return the text of a biography."""
    return " ".join(piece.text for piece in pieces)


class BiosUniformSource(InventedSource):
    """Invent `data.people` people with `data.wordings` versions of their biographies.

    Raises:
        DataError: a relation that has no values here, or more people than names.
    """

    def __init__(self, data: DataArguments, relations: Sequence[Relation], seed: int, sizes: Sizes = PAPER):
        self.people = data.people
        self.wordings = data.wordings
        self.seed = seed
        self.sizes = sizes
        self.relations = tuple(relation.name for relation in relations)
        for name in self.relations:
            if name not in RELATIONS:
                raise DataError(f"source bios_uniform: no relation {name!r}; it has {', '.join(RELATIONS)}")
        if self.people > prod(sizes[:3]):
            raise DataError(f"source bios_uniform: wanted at most {prod(sizes[:3]):,} people, found {self.people:,}")

    def describe(self) -> dict:
        """Return the source, its licence, and what its people depend on."""
        return {
            "source": "bios_uniform", "license": "apache-2.0", "people": self.people, "wordings": self.wordings,
            "seed": self.seed,
        }  # fmt: skip

    def read(self, part: int) -> Iterator[Person]:
        """Yield the people of a part."""
        population = Population(self.seed, self.sizes)
        numbers = self.numbers(part)
        layouts = [population.layouts(numbers, np.full_like(numbers, version)) for version in range(self.wordings)]
        people = zip(numbers.tolist(), population.facts(numbers), zip(*layouts, strict=True), strict=True)
        for number, facts, versions in people:
            name = facts[NAME]
            documents = [f"{name}. {join_pieces(write_biography(facts, layout))}" for layout in versions]
            answers = {relation: (facts[relation],) for relation in self.relations}
            yield Person(f"bios_uniform-{number}", name, documents, answers)
