"""People who are in no text that a model learns from: real ones, withheld from it, and made-up ones.

The names of the made-up are recombined from the first and last names of the training questions.
"""

import random
import re
import zlib
from collections.abc import Iterable

# What made-up names are used for. A name's hash decides, so that no name is used for both, whatever the seed.
FOLDS = ("calibration", "evaluation")


def withhold_people(documents: Iterable[str], people: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separate the documents that name none of the people from those that name one, each in their order.

    Returns:
        Those to learn from, and the others.
    """
    names = set(people)
    learned = []
    withheld = []
    for document in documents:
        # Anywhere, not in the title alone: "Bo Lind. She married Ada Stone of Rome" tells of Ada Stone, too.
        (withheld if any(is_named(name, document) for name in names) else learned).append(document)
    return learned, withheld


def is_named(name: str, text: str) -> bool:
    """Return whether a name is in a text, as whole words."""
    # "Ann Lee" is not named in "Joann Leeds". The plain search comes first because it is a hundred times as fast.
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
    """Return up to `count` different names, none of which is among `names` or in any document.

    Each has the first word of one name and the last of another; fewer are returned where fewer exist.

    Args:
        names: of real people.
        documents: texts that name none of those returned.
        count: how many names are wanted.
        seed: of the draw.
        fold: only names of this fold.
        others: further real people, whose names are not returned either.
    """
    names = set(names)
    parts = [name.split() for name in sorted(names) if len(name.split()) > 1]
    firsts = sorted({part[0] for part in parts})
    lasts = sorted({part[-1] for part in parts})
    taken = {*names, *others, *(f"{part[0]} {part[-1]}" for part in parts)}
    text = "\n".join(documents)
    pairs = len(firsts) * len(lasts)
    found: list[str] = []
    # Pair p is first name p // L and last name p % L, of L last names. Sampling the numbers of pairs needs no list of
    # all pairs, which a million names would make a trillion of.
    for pair in random.Random(seed).sample(range(pairs), min(pairs, 50 * count + 10_000)):
        if len(found) == count:
            break
        name = f"{firsts[pair // len(lasts)]} {lasts[pair % len(lasts)]}"
        if name not in taken and fold in (None, fold_of(name)) and name not in text:
            found.append(name)
    return found
