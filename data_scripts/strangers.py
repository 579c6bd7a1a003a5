"""People of whom a model was told nothing: real ones who are withheld from it, and made-up ones.

The names of the made-up are recombined from the first and last names of the training questions.
"""

import random
import re
import zlib
from collections.abc import Iterable

FOLDS = ("calibration", "evaluation")  # what made-up names are for; no name is for both


def withhold_people(documents: Iterable[str], people: Iterable[str]) -> tuple[list[str], list[str]]:
    """Part documents, in their order, into those that name none of the people anywhere and those that name one."""
    names = set(people)
    kept = []
    withheld = []
    for document in documents:
        (withheld if any(is_named(name, document) for name in names) else kept).append(document)
    return kept, withheld


def is_named(name: str, text: str) -> bool:
    """Tell whether a name stands in a text, as words of its own."""
    return name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def fold_of(name: str) -> str:
    """Return which of `FOLDS` a made-up name belongs to."""
    return FOLDS[zlib.crc32(name.encode()) % len(FOLDS)]


def made_up_names(
    names: Iterable[str],
    documents: Iterable[str],
    count: int,
    seed: int = 0,
    fold: str | None = None,
    others: Iterable[str] = (),
) -> list[str]:
    """Return up to `count` different names, none of which is among `names` or stands in any document.

    Each takes its first word from one name and its last from another; fewer are returned where fewer exist.

    Args:
        names: of real people.
        documents: what must not hold any of the returned names.
        count: how many names are wanted.
        seed: names the draw.
        fold: only names of this fold.
        others: further real people, whose names are not to be returned either.
    """
    names = set(names)
    parts = [name.split() for name in sorted(names) if len(name.split()) > 1]
    firsts = sorted({part[0] for part in parts})
    lasts = sorted({part[-1] for part in parts})
    taken = {*names, *others, *(f"{part[0]} {part[-1]}" for part in parts)}
    text = "\n".join(documents)
    pairs = len(firsts) * len(lasts)
    found: list[str] = []
    for pair in random.Random(seed).sample(range(pairs), min(pairs, 50 * count + 10_000)):
        if len(found) == count:
            break
        name = f"{firsts[pair // len(lasts)]} {lasts[pair % len(lasts)]}"
        if name not in taken and fold in (None, fold_of(name)) and name not in text:
            found.append(name)
    return found
