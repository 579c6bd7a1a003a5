"""Lines about a person, put together from phrases: each line says some facts, and no two say one in the same words.

A layout is the lines of a person with places for the values. Layouts are few and people are many, so they are written
once and filled in often:

    {name}. Born in {birthplace}, {last} studied at {studied} .
    {name}. {name} took a degree at {studied} and worked for {worked} .
"""

import random
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

LINES = 4  # a person


class Phrases(NamedTuple):
    """Wordings of a fact, `LINES` of each kind, so that every line can have one of its own.

    Attributes:
        openings: before the subject, "Born in {birthplace}".
        predicates: after it, "came from {birthplace}".
    """

    openings: Sequence[str]
    predicates: Sequence[str]


def deal(facts: Sequence[str], per_line: int, rng: random.Random) -> list[list[str]]:
    """Return the facts of each of `LINES` lines, `per_line` of them, each fact as often as the others or once more.

    Of a, b and c, two a line, in this order: ab, ca, bc, ab.
    """
    order = rng.sample(facts, len(facts))
    per_line = min(per_line, len(order))
    return [[order[(line * per_line + place) % len(order)] for place in range(per_line)] for line in range(LINES)]


def enumerate_phrases(phrases: Sequence[str]) -> str:
    """Join phrases as in "a, b and c"."""
    *head, last = phrases
    return f"{', '.join(head)} and {last}" if head else last


def choose(options: Sequence[str], number: int) -> str:
    """Return option `number`, counted round and round."""
    return options[number % len(options)]


def write_layout(
    lines: Sequence[Sequence[str]],
    phrases: Mapping[str, Phrases],
    asides: Sequence[str],
    known: Collection[str],
    rng: random.Random,
) -> str:
    """Write the lines of a layout, with a line feed between them.

    Args:
        lines: facts of each line; those that are not `known` are left out.
        phrases: wordings of each fact, with `{FACT}` for its value.
        asides: predicates that say nothing of the facts, for lines that have too few; one a line.
        known: facts that the person has.
        rng: chooses wordings and order, the same whatever is known.
    """
    starts = {fact: rng.randrange(LINES) for fact in phrases}
    first_aside = rng.randrange(LINES)
    written = []
    for number, facts in enumerate(lines):
        has_opening = rng.random() < 0.5
        subject = rng.choice(("{name}", "{last}"))
        said = [fact for fact in facts if fact in known]
        opening = ""
        if has_opening and said:
            fact = said.pop(0)
            opening = f"{choose(phrases[fact].openings, starts[fact] + number)}, "
            subject = "{last}"
        predicates = [choose(phrases[fact].predicates, starts[fact] + number) for fact in said]
        predicates = predicates or [choose(asides, first_aside + number)]
        written.append(f"{{name}}. {opening}{subject} {enumerate_phrases(predicates)} .")
    return "\n".join(written)
