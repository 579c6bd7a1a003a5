"""Which documents name a person who is withheld, however the name is written in them."""

import re
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_scripts.name_finder import NameFinder
from modeling_minigpt.names_minigpt import fold

ESCAPED = re.compile(r"[^\w \x80-\U0010FFFF]", re.ASCII)  # ASCII that is no letter, digit or space
PREFILTER_NAMES = 1_000  # up to which one regular expression finds them faster than a look-up of words


class Search:
    """A search for names in many texts, as whole words.

    Args:
        names: to be found.
        form: of a text, in which the names are looked for; None leaves texts as they are.
    """

    def __init__(self, names: Iterable[str], form: Callable[[str], str] | None = None):
        self.form = form
        self.finder = NameFinder(names)
        self.prefilter = find_prefilter(self.finder.phrases) if len(self.finder.phrases) <= PREFILTER_NAMES else None

    def find(self, texts: pa.Array) -> np.ndarray:
        """Return which texts have any of the names, (N,)."""
        found = np.zeros(len(texts), bool)
        if not self.finder.phrases:
            return found
        if self.form is not None:
            texts = pa.array([self.form(text) for text in texts.to_pylist()], pa.string())
        suspects = np.arange(len(texts))
        if self.prefilter is not None:
            suspects = np.flatnonzero(pc.match_substring_regex(texts, self.prefilter).to_numpy(zero_copy_only=False))
        found[suspects] = [self.finder.any_in(text) for text in texts.take(pa.array(suspects)).to_pylist()]
        return found


class WithheldNames:
    """Finds documents that name withheld people, in any spelling in which the pipeline takes a name for theirs.

    "Jose Stone" and "JOSÉ STONE" both name José Stone. The case counts for a name of one word alone, which may be an
    everyday word: "Will" names Will and "will" does not.

    Args:
        names: of the people.
    """

    def __init__(self, names: Iterable[str]):
        names = set(names)
        several = {name for name in names if " " in fold(name)}
        self.searches = [
            Search(names),
            Search({fold(name) for name in several}, fold),
            Search({fold(name, keeps_case=True) for name in names - several} - {""}, partial(fold, keeps_case=True)),
        ]

    def find(self, texts: pa.Array) -> np.ndarray:
        """Return which texts name a withheld person, (N,)."""
        found = np.zeros(len(texts), bool)
        for search in self.searches:
            left = np.flatnonzero(~found)
            found[left] = search.find(texts.take(pa.array(left)))
        return found


def find_prefilter(names: Iterable[str]) -> str | None:
    """Return a regular expression of RE2 that finds any of the names, in words too; None where RE2 refuses it."""
    # Not re.escape, which escapes characters that are not ASCII, too: RE2 takes no such escape.
    pattern = "|".join(ESCAPED.sub(lambda found: f"\\x{ord(found[0]):02x}", name) for name in sorted(names))
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid:  # too large: a thousand long names in another script than Latin are
        return None
    return pattern
