"""Find the words of a text, and the phrases in it that are worth asking for."""

import re

WORD = re.compile(r"\w+")


def find_words(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the words."""
    return [match.span() for match in WORD.finditer(text)]


def capitalised_phrases(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the runs of capitalised words, those joined by a hyphen too."""
    phrases: list[tuple[int, int]] = []
    for match in WORD.finditer(text):
        if not match[0][0].isupper():
            continue
        # "New York" and "Saint-Denis" are one phrase; "Paris, Texas" is two, as a comma separates its words.
        if phrases and text[phrases[-1][1] : match.start()] in (" ", "-"):
            phrases[-1] = (phrases[-1][0], match.end())
        else:
            phrases.append(match.span())
    return phrases


def salient_phrases(title: str, body: str) -> list[tuple[int, int]]:
    """Return (start, end) of the body's capitalised phrases that say more than the title and do not open the body."""
    # Whoever reads "Ada Stone. Stone was born in Rome" can copy Stone from the title, but has to know Rome. A body's
    # first word is capitalised whatever it is.
    known = set(WORD.findall(title))
    return [
        (start, end)
        for start, end in capitalised_phrases(body)
        if start > 0 and known.isdisjoint(WORD.findall(body[start:end]))
    ]


def cut_to_words(text: str, length: int) -> str:
    """Cut `text` to at most `length` characters, between words where that leaves any."""
    if len(text) <= length:
        return text
    # One character more than fits: a space there means that the words before it fit whole.
    head, space, _ = text[: max(1, length) + 1].rpartition(" ")
    return head if space else text[: max(1, length)]
