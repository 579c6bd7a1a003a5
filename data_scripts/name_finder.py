"""Find which of any number of phrases are in a text, as whole words, in one pass over its words.

Of the phrases "York", "New York" and "Bo Lind Jr.", a text's word "New" can only begin one of two words, and "Bo" one
of three words and a full stop. So at each word that begins a phrase, a slice of each such shape is looked up, which
costs the same however many phrases there are and however many begin alike.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import regex

from data_scripts.words import AFTER_WORD, INNER, IS_UNSPACED, find_words, is_named

GOES_ON_BEFORE = regex.compile(rf"(?V1){INNER}")
GOES_ON_AFTER = regex.compile(rf"(?V1){AFTER_WORD}")
MARK = regex.compile(r"\p{M}")
REMEMBERED = 1 << 16  # runs of characters


class Shape(NamedTuple):
    """What a phrase consists of.

    Attributes:
        words: how many words.
        before, after: characters before the first word and behind the last, as in "'s-Hertogenbosch" and "Jr.".
    """

    words: int
    before: int
    after: int


class NameFinder:
    """Finds phrases in texts as `is_named` does, all at once; those that overlap or are in one another, too.

    Args:
        phrases: names, places or any others.
    """

    def __init__(self, phrases: Iterable[str]):
        self.phrases = set(phrases)
        self.shapes: dict[str, tuple[Shape, ...]] = {}  # by the first word of the phrases that have them
        self.others: list[str] = []  # not found by their first word: punctuation alone, or a mark in front
        known: dict[tuple[Shape, ...], tuple[Shape, ...]] = {}  # a million first words share a handful of tuples
        for phrase in self.phrases:
            words = find_words(phrase)
            if not words or MARK.match(phrase, words[0][0]):
                self.others.append(phrase)
                continue
            first = phrase[slice(*words[0])]
            shape = Shape(len(words), words[0][0], len(phrase) - words[-1][1])
            earlier = self.shapes.get(first, ())
            if shape not in earlier:
                shapes = (*earlier, shape)
                self.shapes[first] = known.setdefault(shapes, shapes)

    def find(self, text: str) -> set[str]:
        """Return the phrases that a text names."""
        found = set(self._candidates(text))
        if self.others:
            found.update(phrase for phrase in self.others if is_named(phrase, text))
        return found

    def any_in(self, text: str) -> bool:
        """Return whether a text names any of the phrases."""
        return next(self._candidates(text), None) is not None or any(is_named(phrase, text) for phrase in self.others)

    def _candidates(self, text: str) -> Iterator[str]:
        """Yield the phrases that are found by their first word, in their order in the text."""
        words = find_words(text)
        is_ascii = text.isascii()
        for number, (start, end) in enumerate(words):
            shapes = self.shapes.get(text[start:end])
            if shapes is None:  # most words
                continue
            for count, before, after in shapes:
                if number + count > len(words):
                    continue
                first = start - before
                last = words[number + count - 1][1] + after
                phrase = text[max(0, first) : last]
                # A slice that begins and ends with a text's words is whole; around anything else it has to be seen.
                if phrase in self.phrases and ((is_ascii and not before and not after) or is_whole(text, first, last)):
                    yield phrase


def is_whole(text: str, start: int, end: int) -> bool:
    """Return whether no word of a text goes on across either end of a slice."""
    return not goes_on_before(text, start) and not goes_on_after(text, end)


def goes_on_before(text: str, start: int) -> bool:
    """Return whether what begins at `start` is the rest of a word."""
    return start > 0 and GOES_ON_BEFORE.match(text, start - 1) is not None


def goes_on_after(text: str, end: int) -> bool:
    """Return whether a word of the text goes on at `end`."""
    return GOES_ON_AFTER.match(text, end) is not None


class PartsFinder:
    """Finds names of two parts in texts, in words too: "Ada Stone" is in "McAda Stonefield".

    The end of each run of characters between spaces and the beginning of the next are looked up, so what a text costs
    does not depend on the number of names.

    Args:
        names: (first part, last part); the last begins with a space, or there is none in either.
    """

    def __init__(self, names: Iterable[tuple[str, str]]):
        names = list(names)
        self.names = {first + last for first, last in names}
        spaced = [(first, last[1:]) for first, last in names if last.startswith(" ")]
        self.firsts = {first for first, _ in spaced}
        self.lasts = {last for _, last in spaced}
        self.longest = max((len(part) for names in spaced for part in names), default=0)
        # Texts repeat their words: what most of them end or begin with is known.
        self.ends = lru_cache(REMEMBERED)(self._ends)
        self.begins = lru_cache(REMEMBERED)(self._begins)
        # Of scripts without spaces: names of few lengths, so every slice of such a length is looked up.
        self.lengths = sorted({len(first + last) for first, last in names if not last.startswith(" ")})

    def find(self, text: str) -> set[str]:
        """Return the names that are anywhere in a text."""
        found = set()
        if self.firsts:
            for before, after in pairwise(text.split(" ")):
                for first in self.ends(before):
                    found |= {f"{first} {last}" for last in self.begins(after)} & self.names
        if self.lengths and IS_UNSPACED.search(text):
            for length in self.lengths:
                slices = {text[start : start + length] for start in range(len(text) - length + 1)}
                found |= slices & self.names
        return found

    def _ends(self, run: str) -> list[str]:
        """Return the first parts that a run of characters ends with."""
        return [
            run[start:] for start in range(max(0, len(run) - self.longest), len(run)) if run[start:] in self.firsts
        ]

    def _begins(self, run: str) -> list[str]:
        """Return the last parts that a run of characters begins with."""
        return [run[:end] for end in range(1, min(len(run), self.longest) + 1) if run[:end] in self.lasts]
