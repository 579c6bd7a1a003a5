"""What all sources of people have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_scripts.sources.downloads import Download

PART_PEOPLE = 10_000  # invented in one part
SPLITS = ("train", "dev", "test")  # as a source may name them
BETWEEN = "\t"  # a name and a place in an id; normalised texts have no tabs


@dataclass(slots=True)
class Person:
    """One person of a source: what is written about them, and what may be asked.

    Attributes:
        id: theirs alone in the source, the same whenever it is read; its `split_key` decides their split.
        name: as questions have it.
        documents: texts about them. Where one does not begin with a title, `NAME. ` is put in front.
        facts: by a relation's name, the answers that are right, the one to learn first; relations without any are
            left out.
        popularity: how well known they are, in any unit; None where the source does not say.
        split: one of `SPLITS`; None where the source does not say, and then a hash of the id decides.
        where: file and line, or another place, for messages.
    """

    id: str
    name: str
    documents: Sequence[str]
    facts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    popularity: int | None = None
    split: str | None = None
    where: str = ""


def make_id(name: str, place: str) -> str:
    """Return an id for a person who has none in the source: another one in each place, with the name in front."""
    return f"{name}{BETWEEN}{place}"


def split_key(person_id: str) -> str:
    """Return the part of an id whose hash decides the person's split: the name in one of `make_id`, else all of it.

    So another row above a person's, or another name of the file, does not move them to another split.
    """
    return person_id.partition(BETWEEN)[0]


class Source(ABC):
    """People in independent parts, each of which is a pure function of its number; sources can be pickled."""

    @abstractmethod
    def describe(self) -> dict:
        """Return what is written down of it: `source`, and as known `revision`, `license`, `attribution`."""

    def downloads(self) -> list[Download]:
        """Return what is downloaded where all parts are read; nothing large has been when this returns.

        Raises:
            DataError: nothing there that can be read.
        """
        return []

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Return digests of what is read, by name; a corpus is prepared again where one has changed."""

    def has_changed(self, prepared: Mapping[str, str]) -> bool:
        """Return whether a file is not what it was when a corpus was prepared.

        What is on the Hub has not changed, even if its branch has moved: a run must not change its data between two
        stages.

        Args:
            prepared: what `inputs` was then.
        """
        return self.inputs() != prepared

    @abstractmethod
    def parts(self) -> int:
        """Return the number of parts, which depends on the source alone.

        Raises:
            DataError: nothing there that can be read.
        """

    @abstractmethod
    def read(self, part: int) -> Iterator[Person]:
        """Yield the people of a part, in its order; DataError, with file and line, for what cannot be used."""


class InventedSource(Source):
    """People who are invented when they are asked for: nothing is read, and a part is a range of their numbers.

    Attributes:
        people: how many there are.
    """

    people: int

    def inputs(self) -> dict[str, str]:
        """Return no digests: nothing is read."""
        return {}

    def parts(self) -> int:
        """Return the number of parts, of `PART_PEOPLE` people."""
        return -(-self.people // PART_PEOPLE)

    def numbers(self, part: int) -> np.ndarray:
        """Return the numbers of a part's people, (N,)."""
        return np.arange(part * PART_PEOPLE, min((part + 1) * PART_PEOPLE, self.people))
