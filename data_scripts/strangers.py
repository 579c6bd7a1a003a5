"""People of whom a model was told nothing: real ones who are withheld from it, and made-up ones.

The names of the made-up are recombined from the first and last names of the training questions.
"""

import random
from collections.abc import Iterable


def withhold_people(documents: Iterable[str], people: Iterable[str]) -> tuple[list[str], list[str]]:
    """Part documents, in their order, into those that name none of the people anywhere and those that name one."""
    names, kept, withheld = set(people), [], []
    for document in documents:
        (withheld if any(name in document for name in names) else kept).append(document)
    return kept, withheld


def made_up_names(names: Iterable[str], documents: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """Return up to `count` different names, none of which is among `names` or stands in any document.

    Each takes its first word from one name and its last from another; fewer are returned where fewer exist.
    """
    names = set(names)
    parts = [name.split() for name in sorted(names) if len(name.split()) > 1]
    firsts, lasts = sorted({part[0] for part in parts}), sorted({part[-1] for part in parts})
    taken = {*names, *(f"{part[0]} {part[-1]}" for part in parts)}
    text = "\n".join(documents)
    pairs = len(firsts) * len(lasts)
    found: list[str] = []
    for pair in random.Random(seed).sample(range(pairs), min(pairs, 50 * count + 10_000)):
        if len(found) == count:
            break
        name = f"{firsts[pair // len(lasts)]} {lasts[pair % len(lasts)]}"
        if name not in taken and name not in text:
            found.append(name)
    return found
