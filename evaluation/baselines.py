"""What a score must be held against: the most popular place, and the best that the documents allow."""

from collections import Counter
from collections.abc import Iterable, Sequence

from data_scripts.bios_folder import extract_name
from data_scripts.titles import split_title


def popular_places(places: Iterable[str], count: int | None = None) -> list[str]:
    """Return the `count` most frequent places, or all, by falling frequency, the alphabetically first among equals."""
    counts = Counter(places)
    return sorted(counts, key=lambda place: (-counts[place], place))[:count]


def ceiling(documents: Sequence[str], pairs: Sequence[tuple[str, str]]) -> float:
    """Return the share of (question, place) pairs whose place is in a document that the person is the title of."""
    names = [extract_name(question) for question, _ in pairs]
    people = set(names)
    by_title: dict[str, list[str]] = {}
    for document in documents:
        # The full stop of "Bo Lind Jr." is also the title's.
        by_title.setdefault(split_title(document, people)[0].rstrip("."), []).append(document)
    answerable = 0
    for name, (_, place) in zip(names, pairs, strict=True):
        answerable += any(place in document for document in by_title.get(name.rstrip("."), ()))
    return answerable / len(pairs)
