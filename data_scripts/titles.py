"""Find where a biography's title ends, though names have full stops of their own.

James A. Smith. He was born in Rome .            James A. Smith | He was born in Rome .
Henry V. Henry V was born in Monmouth .          Henry V | Henry V was born in Monmouth .
Gen. John Smith. Born in Rome, he was a poet .   Gen. John Smith | Born in Rome, …
Bo Lind Jr. He was born in Rome .                Bo Lind Jr | He was born in Rome .
"""

from collections.abc import Iterable, Set

import regex

from data_scripts.words import UNSPACED, WORD

STOP = regex.compile(rf"(?V1)(?<=\S)(?:\. |[。．]\s*(?=\S)|\.(?=[{UNSPACED}]))")
MAX_TITLE = 500  # characters of a known name, so that a document's length does not count twice
SENTENCE_END = regex.compile(r"\s*(?:\.(?:\s|$)|[。．])")
# After these a full stop may be the word's own; so it may after an initial, a single letter.
ABBREVIATIONS = frozenset(
    ["dr", "jr", "sr", "mr", "ms", "mrs", "st", "gen", "col", "capt", "prof", "rev", "hon", "lt", "sgt", "maj", "fr"]
)
PARTICLES = frozenset(
    ["a", "af", "al", "and", "av", "bin", "da", "das", "de", "dei", "del", "della", "den", "der", "di", "do", "dos",
     "du", "e", "el", "ibn", "la", "le", "of", "ter", "the", "und", "van", "von", "y", "zu"]
)  # fmt: skip


def ends_with_abbreviation(title: str) -> bool:
    """Return whether a text ends with an initial or an abbreviation, whose full stop may be its own."""
    last = WORD.findall(title)[-1:]
    return bool(last) and ((len(last[0]) == 1 and last[0].isalpha()) or last[0].casefold() in ABBREVIATIONS)


def begins_sentence(text: str) -> bool:
    """Return whether a text begins with a sentence rather than with more of a name.

    A sentence has words in lower case that no name has; where nothing is a capital, it has four words.
    """
    end = SENTENCE_END.search(text)
    words = WORD.findall(text[: end.start()] if end else text)
    if not any(word[0].isupper() for word in words):
        return len(words) > 3
    return any(word[0].islower() and word not in PARTICLES for word in words)


def repeats(title: str, text: str) -> bool:
    """Return whether a text begins with its title, as whole words; an initial says nothing, as in "J. J. Abbott"."""
    return len(title) > 1 and text.startswith(title) and WORD.match(text, len(title)) is None


def split_title(document: str, names: Set[str] = frozenset()) -> tuple[str, str]:
    """Split a biography into its title and its body; the title is empty where there is none.

    The title is the longest of `names` that the text begins with, before a full stop: with "John A" among them, too,
    "John A. Smith (politician). He was …" is about the politician. Without one it ends at the first full stop that is
    not an abbreviation's, or after which the text repeats the title or begins a sentence.
    """
    stops = list(STOP.finditer(document))
    if names:
        for stop in reversed([stop for stop in stops if stop.start() <= MAX_TITLE]):
            title = document[: stop.start()]
            if title in names or f"{title}." in names:
                return title, document[stop.end() :]
    for stop in stops:
        title = document[: stop.start()]
        body = document[stop.end() :]
        if repeats(title, body):
            return title, body
        # "Gen. John Smith. He was …": one word, and then a name with a stop of its own.
        may_go_on = ends_with_abbreviation(title) or (stop is not stops[-1] and WORD.fullmatch(title) is not None)
        if not may_go_on or begins_sentence(body):
            return title, body
    # Initials alone, as in "J. R": then the first full stop is as good as any.
    title, stop, body = document.partition(". ")
    return (title, body) if stop else ("", document)


def titles_to_know(documents: Iterable[str], titles: Iterable[str], names: Set[str]) -> set[str]:
    """Return the titles that documents do not show by themselves, of documents whose titles are known.

    Args:
        documents: biographies.
        titles: of each.
        names: those known to `split_title` already.
    """
    pairs = zip(documents, titles, strict=True)
    return {title for document, title in pairs if split_title(document, names)[0].rstrip(".") != title.rstrip(".")}
