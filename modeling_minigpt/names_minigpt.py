"""The names of the people that a model was trained on, found again however they are typed: `names.txt`.

"jose garcia" is José García where no other name of training is written so without its case, accents and marks. Where
two are, it is not known which one is meant, and the name is asked as it was typed.
"""

import unicodedata
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from .questions_minigpt import PLAIN_MARKS, normalise

NAMES_FILE = "names.txt"
CHUNK = 1 << 20  # characters of names that are folded together
# Marks of these combining classes are not accents: with them か is が, and a nukta or a virama is another letter.
LETTER_CLASSES = (7, 8, 9)


def fold(text: str, keeps_case: bool = False) -> str:
    """Return the normal form of names, one a line: those that differ in what people leave out have the same.

    "José García", "jose  garcia" and "JOSE GARCÍA" become "jose garcia"; "J.-L. O’Neil" becomes "j l o'neil".

    Args:
        text: the names, or a text that is searched for them.
        keeps_case: whether names that differ in case have different forms.
    """
    # `str.replace` of the few characters that occur is several times as fast as `str.translate` or a pattern.
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        for mark in {mark for mark in set(text) if unicodedata.combining(mark) not in (0, *LETTER_CLASSES)}:
            text = text.replace(mark, "")
        for typed, plain in PLAIN_MARKS.items():
            text = text.replace(chr(typed), plain)
    text = (text if keeps_case else text.casefold()).replace("-", " ").replace(".", " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.replace("\n ", "\n").replace(" \n", "\n").strip(" ")


class NameIndex:
    """Names of training, found by their normal form.

    One string holds all names, and the look-up is built when it is first needed: sorted 64-bit hashes of the normal
    forms, and where in the string each name begins. A million names take 60 MB.

    Args:
        text: the names, one a line, in NFC, as `names.txt` has them.
    """

    def __init__(self, text: str):
        self.text = text if not text or text.endswith("\n") else text + "\n"

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "NameIndex":
        """Return an index of names; white space in one, a line end too, becomes a space.

        Raises:
            ValueError: one text, which would be the names of its letters.
        """
        if isinstance(names, str):
            raise ValueError(f"names must be a list of texts, found the text {names!r:.80}")
        return cls("".join(f"{normalise(name)}\n" for name in names))

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text}  # another process has other hashes

    @cached_property
    def table(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The hashes of all normal forms in ascending order, and the position of each one's name; int64, (N,)."""
        hashes: list[torch.Tensor] = []
        starts: list[torch.Tensor] = []
        start = 0
        while start < len(self.text):
            end = self.text.index("\n", min(start + CHUNK, len(self.text) - 1)) + 1
            part = self.text[start : end - 1]
            lengths = [len(name) + 1 for name in part.split("\n")]
            hashes.append(torch.tensor(list(map(hash, fold(part).split("\n")))))
            starts.append(torch.tensor(list(accumulate(lengths[:-1], initial=start))))
            start = end
        found, order = torch.cat(hashes or [torch.zeros(0, dtype=torch.long)]).sort()
        return found, torch.cat(starts or [torch.zeros(0, dtype=torch.long)])[order]

    def find(self, name: str) -> list[str]:
        """Return the names of training that have a name's normal form, each once."""
        form = fold(name)
        hashes, starts = self.table
        first, last = (int(torch.searchsorted(hashes, hash(form), right=right)) for right in (False, True))
        found = []
        for start in starts[first:last].tolist():
            known = normalise(self.text[start : self.text.index("\n", start)])
            if fold(known) == form:  # hashes may be equal by chance
                found.append(known)
        return list(dict.fromkeys(found))

    def has(self, name: str) -> bool:
        """Return whether a normalised name is one of training, or another spelling of one or more."""
        return any(self.find(name))  # an empty name is none

    def match(self, name: str) -> str | None:
        """Return the name of training that a normalised name is another spelling of.

        None where the name is one of training itself, or is no other spelling of any, or of more than one.
        """
        found = self.find(name)
        return found[0] if len(found) == 1 and found[0] != name else None
