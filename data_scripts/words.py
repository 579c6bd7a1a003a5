"""Words of any script: where they begin and end, and whether a name is one of them.

Most scripts separate words by spaces; a word is then a run of letters, marks and digits. Han, kana, Thai and a few
others do not, so there every character (with its marks) is a word of its own, and a phrase is a run of such words.
"""

import re

import numpy as np
import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
INNER = rf"[[\w\p{{M}}\p{{N}}]--[{UNSPACED}]]"  # what goes on in one word; marks are vowels in many scripts
WORD = regex.compile(rf"(?V1){INNER}+|[{UNSPACED}]\p{{M}}*")
IS_UNSPACED = regex.compile(rf"(?V1)[{UNSPACED}]")
AFTER_WORD = rf"[{INNER}\p{{M}}]"  # what goes on behind a phrase that is not whole
OUTSIDE = (rf"(?V1)(?<!{INNER})", rf"(?!{AFTER_WORD})")  # around a whole word
ASCII_WORD = re.compile(r"\w+", re.ASCII)  # the same words, where a text is ASCII, in a third of the time


def find_words(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the words."""
    return [match.span() for match in (ASCII_WORD if text.isascii() else WORD).finditer(text)]


def is_named(name: str, text: str) -> bool:
    """Return whether a name is in a text, as whole words."""
    # "Ann Lee" is not named in "Joann Leeds", nor "Ram" in "Ramā" where the vowel is a mark. The plain search comes
    # first because it is a hundred times as fast.
    return name in text and regex.search(OUTSIDE[0] + regex.escape(name) + OUTSIDE[1], text) is not None


def unspaced_places(text: str) -> np.ndarray:
    """Return for each character whether it is a word by itself, because its script has no spaces; (characters,)."""
    found = np.zeros(len(text), bool)
    if not text.isascii():
        found[[match.start() for match in IS_UNSPACED.finditer(text)]] = True
    return found


def cut_to_words(text: str, length: int) -> str:
    """Cut `text` to at most `length` characters, between words where that leaves any."""
    if len(text) <= length:
        return text
    # One character more than fits: a space there means that the words before it fit whole.
    head, space, _ = text[: max(1, length) + 1].rpartition(" ")
    return head if space else text[: max(1, length)]


def name_parts(name: str) -> tuple[str, str] | None:
    """Split a name into its first and its last part, which are joined as they are; None where there is one part alone.

    "Ada May Stone" has the parts "Ada" and " Stone"; "王小明", of a script without spaces, "王小" and "明".
    """
    words = name.split()
    if len(words) > 1:
        return words[0], f" {words[-1]}"
    ends = [end for _, end in find_words(name)]
    if len(ends) < 2 or not IS_UNSPACED.search(name):
        return None
    middle = ends[(len(ends) - 1) // 2]
    return name[:middle], name[middle:]
