"""What a score must be held against: the most popular place, and the best that the documents allow."""

from collections import Counter
from collections.abc import Iterable, Sequence

from data_scripts.bios_folder import extract_name


def popular_places(places: Iterable[str], count: int | None = None) -> list[str]:
    """Return the `count` most frequent places, or all, by falling frequency, the alphabetically first among equals."""
    counts = Counter(places)
    return sorted(counts, key=lambda place: (-counts[place], place))[:count]


def ceiling(documents: Sequence[str], pairs: Sequence[tuple[str, str]]) -> float:
    """Return the share of (question, place) pairs whose place is in a document that begins with the name."""
    by_first_word: dict[str, list[str]] = {}
    for document in documents:
        by_first_word.setdefault(document.split(" ", 1)[0].rstrip("."), []).append(document)
    answerable = 0
    for question, place in pairs:
        name = extract_name(question)
        candidates = by_first_word.get(name.split(" ", 1)[0].rstrip("."), [])
        answerable += any(document.startswith(f"{name}. ") and place in document for document in candidates)
    return answerable / len(pairs)
