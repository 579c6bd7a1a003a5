"""People who occur nowhere: made-up names, recombined from the first and last names of the training questions."""

import random
from collections.abc import Iterable


def made_up_names(names: Iterable[str], documents: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """Return up to `count` different names, none of which is among `names` or stands in any document.

    Each takes its first word from one name and its last from another; fewer are returned where fewer exist.
    """
    names = sorted(set(names))
    parts = [name.split() for name in names if len(name.split()) > 1]
    firsts, lasts = sorted({part[0] for part in parts}), sorted({part[-1] for part in parts})
    taken, text = set(names), "\n".join(documents)
    rng = random.Random(seed)
    found: list[str] = []
    for _ in range(20 * count if firsts else 0):
        if len(found) == count:
            break
        name = f"{rng.choice(firsts)} {rng.choice(lasts)}"
        if name not in taken and name not in text:
            taken.add(name)
            found.append(name)
    return found
