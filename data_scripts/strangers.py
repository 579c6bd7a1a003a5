"""Made-up people, who are in no text: their names are put together from those of the training questions."""

import random
import zlib
from collections.abc import Iterable
from itertools import chain

from data_scripts.name_finder import PartsFinder
from data_scripts.words import name_parts
from modeling_minigpt.names_minigpt import fold as fold_spelling

# What made-up names are used for. A name's hash decides, so that no name is used for both, whatever the seed.
FOLDS = ("calibration", "evaluation")


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
    """Return up to `count` different names, none of which is in any document, or among `names` in any spelling.

    Each has the first part of one name and the last of another; fewer are returned where fewer exist.

    Args:
        names: of real people.
        documents: texts that name none of those returned.
        count: how many names are wanted.
        seed: of the draw.
        fold: only names of this fold.
        others: further real people, whose names are not returned either.
    """
    names = set(names)
    parts = [part for part in map(name_parts, sorted(names)) if part is not None]
    firsts = sorted({first for first, _ in parts})
    lasts = sorted({last for _, last in parts})
    taken = {*map(fold_spelling, chain(names, others)), *(fold_spelling(first + last) for first, last in parts)}
    pairs = len(firsts) * len(lasts)
    # Pair p is first name p // L and last name p % L, of L last names. Sampling the numbers of pairs needs no list of
    # all pairs, which a million names would make a trillion of.
    drawn = random.Random(seed).sample(range(pairs), min(pairs, 50 * count + 10_000))
    made = {}
    for pair in drawn:
        first, last = firsts[pair // len(lasts)], lasts[pair % len(lasts)]
        if fold_spelling(first + last) not in taken and fold in (None, fold_of(first + last)):
            made.setdefault(first + last, (first, last))
    finder = PartsFinder(made.values())
    named = {name for document in documents for name in finder.find(document)}
    return [name for name in made if name not in named][:count]
