"""The first step of preparation: each part of a source becomes one Parquet file, in any order, on any machine.

A file is a pure function of its part, and is there whole or not at all: so it does not matter how many tasks share the
parts, and what was killed is done again without the rest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from data_scripts.bios_folder import DataError
from data_scripts.parquet_files import read_metadata, shard_path, write_parquet
from data_scripts.sources.base import SPLITS, Person, Source
from modeling_minigpt.tokenization_minigpt import PAD_TOKEN, SENTINEL_TOKEN

PEOPLE_TOGETHER = 5_000  # in a row group
PARTS = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("popularity", pa.int64()),
        ("split", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("relations", pa.list_(pa.string())),
        ("answers", pa.list_(pa.list_(pa.string()))),
    ]
)


@dataclass
class Dropped:
    """What was left out, and where the first of it is.

    Attributes:
        texts: documents with a special token, or about people whose name has one.
        facts: answers with one, or of such people.
        first: the place of the first of either.
    """

    texts: int = 0
    facts: int = 0
    first: str | None = None

    def note(self, where: str) -> None:
        """Remember the first place."""
        self.first = self.first or where

    def add(self, other: "Dropped") -> None:
        """Add what was left out of a later part."""
        self.texts += other.texts
        self.facts += other.facts
        self.first = self.first or other.first


def has_special_token(text: str) -> bool:
    """Return whether a text has a token that ends questions and answers, or that fills rows."""
    return SENTINEL_TOKEN in text or PAD_TOKEN in text


def with_title(name: str, text: str) -> str:
    """Put a person's name in front of a text that does not have it as its title."""
    title = f"{name} " if name.endswith(".") else f"{name}. "
    return text if text.startswith(title) else title + text


def person_row(person: Person, relations: frozenset[str], dropped: Dropped) -> tuple | None:
    """Return a person as a row of `PARTS`, without what has special tokens; that is counted in `dropped`.

    None where the name has one: it would be in every text and question.

    Raises:
        DataError: an answer is empty, or the split's name is unknown.
    """
    if person.split not in (None, *SPLITS):
        raise DataError(f"{person.where}: found the split {person.split!r}, wanted one of {', '.join(SPLITS)}")
    if has_special_token(person.name):
        dropped.texts += len(person.documents)
        dropped.facts += sum(bool(person.facts.get(relation)) for relation in relations)
        dropped.note(person.where)
        return None
    texts = []
    for text in person.documents:
        if has_special_token(text):
            dropped.texts += 1
            dropped.note(person.where)
        else:
            texts.append(with_title(person.name, text))
    asked = []
    answers = []
    for relation, accepted in person.facts.items():
        if relation not in relations or not accepted:
            continue
        if not all(accepted):
            raise DataError(f"{person.where}: the answer for {relation} is empty")
        if has_special_token("".join(accepted)):
            dropped.facts += 1
            dropped.note(person.where)
        else:
            asked.append(relation)
            answers.append(list(dict.fromkeys(accepted)))
    return person.id, person.name, person.popularity, person.split, texts, asked, answers


def batches_of(people: Iterable[Person], relations: frozenset[str], dropped: Dropped) -> Iterator[pa.RecordBatch]:
    """Yield people as batches of `PARTS`; the arguments are those of `person_row`."""
    rows: list[tuple] = []
    for person in people:
        row = person_row(person, relations, dropped)
        if row is not None:
            rows.append(row)
        if len(rows) == PEOPLE_TOGETHER:
            yield to_batch(rows)
            rows = []
    if rows:
        yield to_batch(rows)


def to_batch(rows: list[tuple]) -> pa.RecordBatch:
    """Return rows as a batch of `PARTS`."""
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, PARTS, strict=True)], schema=PARTS
    )


def is_written(path: Path) -> bool:
    """Return whether a part's file is there, and whole: a power cut may have left one that is cut off."""
    try:
        read_metadata(path)
    except DataError:
        return False
    return True


def write_part(source: Source, relations: frozenset[str], folder: Path, part: int) -> None:
    """Read one part of a source into `folder`, unless its file is there already, and whole.

    Args:
        source: what is read.
        relations: names of the relations that are wanted.
        folder: of the parts' files.
        part: number of the part.

    Raises:
        DataError: as `Source.read` and `person_row`.
    """
    path = shard_path(folder, part)
    if is_written(path):
        return
    dropped = Dropped()
    metadata: dict = {}

    def batches() -> Iterator[pa.RecordBatch]:
        yield from batches_of(source.read(part), relations, dropped)
        metadata.update(asdict(dropped))

    write_parquet(path, PARTS, batches(), metadata)
