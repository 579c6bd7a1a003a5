"""Words of any script: where they begin and end, and whether a name is one of them.

Most scripts separate words by spaces; a word is then a run of letters, marks and digits. Han, kana, Thai and a few
others do not, so there every character (with its marks) is a word of its own, and a phrase is a run of such words.
"""

import re
import sys
from functools import lru_cache

import numpy as np
import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
INNER = rf"[[\w\p{{M}}\p{{N}}]--[{UNSPACED}]]"  # what goes on in one word; marks are vowels in many scripts
WORD = regex.compile(rf"(?V1){INNER}+|[{UNSPACED}]\p{{M}}*")
IS_UNSPACED = regex.compile(rf"(?V1)[{UNSPACED}]")
# What a character is, as bits.
SPACE, INNER_CHARACTER, UNSPACED_CHARACTER, MARK = 1, 2, 4, 8
AFTER_WORD = rf"[{INNER}\p{{M}}]"  # what goes on behind a phrase that is not whole
OUTSIDE = (rf"(?V1)(?<!{INNER})", rf"(?!{AFTER_WORD})")  # around a whole word
ASCII_WORD = re.compile(r"\w+", re.ASCII)  # the same words, where a text is ASCII, in a third of the time


def find_words(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the words."""
    return [match.span() for match in (ASCII_WORD if text.isascii() else WORD).finditer(text)]


@lru_cache(maxsize=1)
def character_classes() -> np.ndarray:
    """Return the bits of every code point; (1,114,112,), uint8."""
    every = np.arange(sys.maxunicode + 1, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    classes = np.zeros(len(every), np.uint8)
    classes[[number for number, character in enumerate(every) if character.isspace()]] = SPACE
    patterns = {INNER_CHARACTER: rf"{INNER}+", UNSPACED_CHARACTER: rf"[{UNSPACED}]+", MARK: r"\p{M}+"}
    for bit, pattern in patterns.items():
        for match in regex.finditer(f"(?V1){pattern}", every):
            classes[slice(*match.span())] |= bit
    return classes


def classify(text: str) -> np.ndarray:
    """Return the bits of each character; (characters,), uint8."""
    return character_classes()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]


def word_bounds(classes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether a word begins with each character, and whether one ends with it; both (characters,).

    These are the words of `find_words`, of many texts at once, each of them on its own:

        text     A d a .   北 京 1 9
        begins   1 0 0 0 0 1 1 1 0
        ends     0 0 1 0 0 1 1 0 1

    Args:
        classes: of all characters of the texts.
        starts: where each text begins, and where the last one ends.
    """
    inner = (classes & INNER_CHARACTER) > 0
    unspaced = (classes & UNSPACED_CHARACTER) > 0
    opens = np.zeros(len(classes) + 1, bool)
    opens[starts] = True
    if unspaced.any():
        # Marks belong to the unspaced character before them, with nothing but marks between.
        position = np.arange(len(classes))
        is_mark = (classes & MARK) > 0
        base = np.maximum.accumulate(np.where(is_mark & ~opens[:-1], 0, position))
        last = np.maximum.accumulate(np.where(unspaced, position, -1))
        attached = is_mark & ~opens[:-1] & (np.concatenate([[-1], last[:-1]]) >= base)
    else:
        attached = unspaced
    run = inner & ~attached
    begins = (unspaced & ~attached) | (run & (opens[:-1] | ~np.concatenate([[False], run[:-1]])))
    in_word = run | unspaced | attached
    goes_on = np.concatenate([in_word & ~begins & ~opens[:-1], [False]])
    return begins, in_word & ~goes_on[1:]


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
