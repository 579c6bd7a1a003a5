"""A prepared corpus: documents, people, questions and candidates as Parquet, opened without being loaded.

    FOLDER/documents/00000.parquet …             id, title, text: what may be learned from, in order
    FOLDER/withheld_documents/00000.parquet …    the same of documents that name a withheld person
    FOLDER/questions/00000.parquet …             id, person, name, relation, question, answers, split
    FOLDER/people/00000.parquet …                id, name, popularity, split
    FOLDER/candidates.parquet                    relation, answer, count
    FOLDER/names.npy                             sorted hashes of all people's names, uint64
    FOLDER/prepared.json                         source, revision, licence, settings, counts; written last

`train.py prepare` makes it, and every other command that finds none.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from data_scripts.bios_folder import DataError
from data_scripts.parquet_files import TextColumn, count_rows, read_batches, shards
from data_scripts.questions import Question
from modeling_minigpt.relations_minigpt import Relation

RECORD = "prepared.json"
NAMES = "names.npy"
NO_RECORD = "not the record of a prepared corpus"
HELD_BACK = ("calibration_questions", "withheld_people", "validation_questions")
FIELDS = {  # of the record: the type, and its name in a message
    "settings": (dict, "an object"),
    "inputs": (dict, "an object"),
    "name": (str, "a text"),
    "source": (dict, "an object"),
    "relations": (list, "a list"),
    "people": (int, "a count"),
    "documents": (int, "a count"),
    "withheld_documents": (int, "a count"),
    "questions": (dict, "an object"),
    "dropped": (dict, "an object"),
}
SPLITS = ("train", "calibration", "withheld", "held_out", "dev", "test")
IN_MEMORY = 100_000  # rows, up to which a list is made of them

DOCUMENTS = pa.schema([("id", pa.int64()), ("title", pa.string()), ("text", pa.string())])
PEOPLE = pa.schema([("id", pa.string()), ("name", pa.string()), ("popularity", pa.int64()), ("split", pa.string())])
QUESTIONS = pa.schema(
    [
        ("id", pa.int64()),
        ("person", pa.string()),
        ("name", pa.string()),
        ("relation", pa.string()),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("split", pa.string()),
    ]
)
CANDIDATES = pa.schema([("relation", pa.string()), ("answer", pa.string()), ("count", pa.int64())])


T = TypeVar("T", covariant=True)


class SizedIterable(Protocol[T]):
    """What can be iterated over any number of times, and has a length: a list, or a column on disk."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T]: ...


class QuestionColumn:
    """The questions of one split in Parquet shards: they have a length and can be iterated over any number of times.

    Args:
        folder: of the shards.
        split: one of `SPLITS`.
        relations: names of those wanted.
        rows: how many there are.
    """

    def __init__(self, folder: Path, split: str, relations: Sequence[str], rows: int):
        self.folder = folder
        self.split = split
        self.relations = pa.array(relations, pa.string())
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[Question]:
        columns = ["question", "name", "relation", "answers", "split"]
        for batch in read_batches(shards(self.folder), columns):
            wanted = pc.and_(
                pc.equal(batch["split"], self.split), pc.is_in(batch["relation"], value_set=self.relations)
            )
            chosen = batch.filter(wanted)
            for text, name, relation, answers in zip(*(chosen[key].to_pylist() for key in columns[:4]), strict=True):
                yield Question(text, name, relation, tuple(answers))


class Corpus:
    """An opened corpus.

    Args:
        folder: where it is.

    Attributes:
        record: what `prepared.json` says.
        relations: those that have questions, the main one first.
        rows: how many documents there are of each kind.

    Raises:
        DataError: there is none, or it is not whole.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.record = read_record(folder)
        if self.record is None:
            raise DataError(f"{folder}: no prepared corpus: wanted a folder with {RECORD}")
        check_record(self.record, folder / RECORD)
        try:
            self.relations = tuple(
                Relation(**{key: tuple(value) if isinstance(value, list) else value for key, value in one.items()})
                for one in self.record["relations"]
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{folder / RECORD}: {NO_RECORD}: relations: {error}") from error
        self.counts: dict[str, dict[str, int]] = self.record["questions"]
        self.rows = {name: self.record[name] for name in ("documents", "withheld_documents")}
        for relation in self.relations:
            if not is_counts(self.counts.get(relation.name)):
                raise DataError(f"{folder / RECORD}: {NO_RECORD}: no counts of the questions of {relation.name}")
        self.check_shards()

    def check_shards(self) -> None:
        """Raise DataError unless the shards have the rows that the record counts."""
        asked = sum(sum(own.values()) for own in self.counts.values())
        for name, wanted in (*self.rows.items(), ("questions", asked), ("people", self.record["people"])):
            found = sum(map(count_rows, shards(self.folder / name)))
            # Those who are scored are added later: a kill may have left their shard, and not yet a new record.
            may_have_more = name in ("questions", "people")
            if found < wanted or (found > wanted and not may_have_more):
                raise DataError(
                    f"{self.folder}: not whole: found {found} {name.replace('_', ' ')}, {RECORD} counts {wanted}; "
                    "remove the folder and prepare it again"
                )

    # Read when they are asked for: whoever opens a corpus for its questions or its counts needs no documents.
    @cached_property
    def documents(self) -> SizedIterable[str]:
        """The texts to learn from."""
        return self.texts("documents")

    @cached_property
    def withheld_documents(self) -> SizedIterable[str]:
        """The texts that name a withheld person."""
        return self.texts("withheld_documents")

    @cached_property
    def titles(self) -> SizedIterable[str]:
        """The titles of the texts to learn from: the names that a table gives, or what begins the lines of a file."""
        return self.texts("documents", "title")

    def texts(self, name: str, column: str = "text") -> SizedIterable[str]:
        """Return the texts of one kind of documents, or another column, as a list where they are few."""
        found = TextColumn(self.folder / name, column, self.rows[name])
        return list(found) if len(found) <= IN_MEMORY else found

    def questions(self, split: str, relations: Sequence[Relation] | None = None) -> SizedIterable[Question]:
        """Return the questions of a split, as a list where they are few.

        Args:
            split: one of `SPLITS`.
            relations: those wanted; all when None.
        """
        names = [relation.name for relation in (self.relations if relations is None else relations)]
        rows = sum(self.counts[name].get(split, 0) for name in names)
        column = QuestionColumn(self.folder / "questions", split, names, rows)
        return list(column) if rows <= IN_MEMORY else column


def is_counts(values: object) -> bool:
    """Return whether a value is a dict of counts by name."""
    return isinstance(values, dict) and all(type(count) is int and count >= 0 for count in values.values())


def check_record(record: dict, path: Path) -> None:
    """Raise DataError, with the key, unless a record has all that is read of it."""
    for key, (kind, wanted) in FIELDS.items():
        if key not in record:
            raise DataError(f"{path}: {NO_RECORD}: no {key}")
        found = record[key]
        # A bool is an int, but no count.
        if not isinstance(found, kind) or isinstance(found, bool) or (kind is int and found < 0):
            raise DataError(f"{path}: {NO_RECORD}: {key} is {repr(found)[:60]}, wanted {wanted}")
    data = record["settings"].get("data")
    if not isinstance(data, dict) or not is_counts({key: data.get(key) for key in HELD_BACK}):
        raise DataError(f"{path}: {NO_RECORD}: settings.data has no {', '.join(HELD_BACK)}")


def read_record(folder: Path) -> dict | None:
    """Return what `prepared.json` says; None where there is none. DataError where it cannot be read."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{path}: found {type(record).__name__}, wanted an object")
    return record


def describe_relations(relations: Sequence[Relation]) -> list[dict]:
    """Return relations as `prepared.json` has them."""
    return [json.loads(json.dumps(asdict(relation))) for relation in relations]
