"""A row of a table becomes a person: which column is what, and what may be in it."""

import ast
import datetime
import json
import math
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from configuration.recipe_names import nearest
from data_scripts.bios_folder import DataError
from data_scripts.sources.base import BETWEEN, SPLITS, Person, make_id
from modeling_minigpt.questions_minigpt import normalise
from modeling_minigpt.relations_minigpt import Relation

ROLES = ("name", "text", "id", "popularity", "split")  # and one for each relation
Row = Mapping[str, Any]
# What numpy, and pandas for it, writes of an array: no list in any language, as there are no commas.
ARRAY = re.compile(r"""\[\s*(?:['"]|nan\b|None\b|[-+\d.\s]+\]$)""")


@dataclass
class Table:
    """The rows of one file, in its order.

    Attributes:
        where: the file, for messages.
        header: its columns; None where each row has its own, as in JSON lines.
        rows: (file and line, row) of each.
    """

    where: str
    header: list[str] | None
    rows: Iterable[tuple[str, Row]]


@dataclass
class Columns:
    """Which column is what.

    Attributes:
        renamed: `data.columns`: by role, the columns that are not called like their role.
        relations: each has a column, of the answers.
    """

    renamed: Mapping[str, str]
    relations: Sequence[Relation]

    def __post_init__(self):
        self.names = [relation.name for relation in self.relations]
        for name in self.names:
            if name in ROLES:  # its answers would be the names, or the whole texts
                raise DataError(
                    f"relations.{name}: is the name of a relation and of a column that every table may have; wanted "
                    f"another name than {', '.join(ROLES)}"
                )
        self.by_role = {role: self.renamed.get(role, role) for role in (*ROLES, *self.names)}
        for role in self.renamed:
            if role not in self.by_role:
                raise DataError(
                    f"data.columns: {role} is neither a relation nor a role; {nearest(role, self.by_role)}"
                )

    def check(self, found: Sequence[str], where: str) -> None:
        """Raise DataError unless the columns `found` have a name, one relation's answers, and all that are renamed."""
        listed = ", ".join(found) or "none"
        for role, column in self.renamed.items():
            if column not in found:
                hint = nearest(column, found)
                raise DataError(f"{where}: no column {column} (data.columns.{role}); found {listed}; {hint}")
        if self.by_role["name"] not in found:
            raise DataError(f"{where}: no column name; found {listed}; set data.columns.name to the names' column")
        wanted = [self.by_role[name] for name in self.names]
        if not set(wanted) & set(found):
            names = " or ".join(f"data.columns.{name}" for name in self.names)
            raise DataError(f"{where}: no column of answers; found {listed}; wanted {', '.join(wanted)}: set {names}")

    def needed(self, found: Iterable[str]) -> list[str]:
        """Return those of the columns that are read."""
        return [column for column in found if column in self.by_role.values()]

    def person(self, row: Row, place: str, where: str) -> Person:
        """Return the person of a row.

        Args:
            row: its values by column.
            place: `STEM:ROW`, for the id of a person who has none.
            where: file and line.

        Raises:
            DataError: no name, or a value that is of no use.
        """
        values = {role: row.get(column) for role, column in self.by_role.items()}
        facts = {name: read_answers(values[name], f"{where}: {self.by_role[name]}") for name in self.names}
        name = read_text(values["name"], f"{where}: {self.by_role['name']}")
        has_id = self.by_role["id"] in row
        return Person(
            id=read_text(values["id"], f"{where}: {self.by_role['id']}") if has_id else make_id(name, place),
            name=name,
            documents=read_documents(values["text"], f"{where}: {self.by_role['text']}"),
            facts={name: answers for name, answers in facts.items() if answers},
            popularity=read_popularity(values["popularity"], where),
            split=read_split(values["split"], where),
            where=where,
        )


def read_people(
    table: Table, columns: Columns, stem: str, limit: int | None = None, ids: set[str] | None = None
) -> Generator[Person, None, bool]:
    """Yield the person of each row; return whether the limit was reached.

    Args:
        table: the rows.
        columns: which of its columns is what.
        stem: the file, for the ids of people who have none; they end in `STEM:ROW`, the first row being 1.
        limit: the most people, all where None; rows are read until one more begins.
        ids: of people in earlier files, who count too; those of this file are added.

    Raises:
        DataError: as `Columns`.
    """
    if table.header is not None:
        columns.check(table.header, table.where)
    ids = set() if ids is None else ids
    seen: dict[str, None] = {}
    number = 0
    is_full = False
    for where, row in table.rows:
        number += 1
        if columns.by_role["name"] not in row:
            columns.check(list(row), where)
        seen.update(dict.fromkeys(row))
        person = columns.person(row, f"{stem}:{number}", where)
        if limit is not None:
            is_full = len(ids) == limit and person.id not in ids
            if is_full:
                break
            ids.add(person.id)
        yield person
        # Without ids the next row is of another person, and is not read.
        is_full = len(ids) == limit and BETWEEN in person.id
        if is_full:
            break
    # JSON lines leave out what is not known: only all of them together show which columns there are.
    if table.header is None and number:
        columns.check(list(seen), table.where)
    return is_full


def is_null(value: object) -> bool:
    """Return whether a value says that nothing is known; pandas writes a missing number as NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_text(value: object, where: str) -> str:
    """Return a text, or a number's or a date's text, normalised.

    Raises:
        DataError: anything else, null too, or an empty text.
    """
    if is_null(value):
        raise DataError(f"{where}: found null, wanted a text")
    if isinstance(value, float) and value.is_integer():  # pandas turns years into floats where one is missing
        value = int(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()  # pandas has no type for dates, so it writes them as midnights
    if isinstance(value, datetime.date):
        value = value.isoformat()
    if isinstance(value, Decimal):
        value = format(value, "f")
    if isinstance(value, float) and math.isinf(value):
        raise DataError(f"{where}: found {value}, wanted a text or a number")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        found = json.dumps(value, default=lambda part: f"{type(part).__name__} {part}", ensure_ascii=False)
        raise DataError(f"{where}: found {found[:60]}, wanted a text")
    text = normalise(value)
    if not text:
        raise DataError(f"{where}: is empty, wanted a text")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: found half of a surrogate pair in {text[:60]!r}, wanted a text") from error
    return text


def read_documents(value: object, where: str) -> list[str]:
    """Return the documents of one text or of a list of them, without those that are empty."""
    texts = value if isinstance(value, list) else [value]
    # A document with several lines becomes one line here.
    return [read_text(text, where) for text in texts if not is_null(text) and not is_blank(text)]


def is_blank(value: object) -> bool:
    """Return whether a value is a text of white space."""
    return isinstance(value, str) and not value.strip()


def read_answers(value: object, where: str) -> list[str]:
    """Return the answers in a column, each once; none where it is null or an empty list.

    A text, a number, a list of them, or a text that is a list in JSON or Python: `Rome`, `1852`, `["Rome", "Roma"]`.

    Raises:
        DataError: an answer that is empty or neither a text nor a number, or a list without commas.
    """
    if is_null(value):
        return []
    if isinstance(value, str):
        value = parse_list(value)
    if isinstance(value, str):
        value = parse_printed(value, where)
    if isinstance(value, list):
        return list(dict.fromkeys(read_text(answer, where) for answer in value))
    if is_blank(value):
        raise DataError(f"{where}: the answer is empty, wanted a text, or [] where it is not known")
    return [read_text(value, where)]


def parse_list(text: str) -> object:
    """Return the list that a text is in JSON, else the text."""
    if not (text.startswith("[") and text.rstrip().endswith("]")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_printed(text: str, where: str) -> object:
    """Return the list that a text is as Python prints it, else the text; DataError for an array as it is printed."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return text
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        found = ast.literal_eval(text)
        # `['Rome' 'Roma']` of an array is no error, but the one text RomeRoma: a printed list is printed again alike.
        if repr(found) == text:
            return found
    if ARRAY.match(text):
        raise DataError(f'{where}: found {text[:60]!r}, as an array is printed; wanted a list, ["Rome", "Roma"]')
    return text


def read_popularity(value: object, where: str) -> int | None:
    """Return how well known a person is, or None; DataError for what is no number."""
    if is_null(value) or is_blank(value):
        return None
    try:
        if isinstance(value, (int, float, str, Decimal)) and not isinstance(value, bool):
            number = int(float(value)) if not isinstance(value, int) else value
            if abs(number) < 2**63:  # as large as a column of a file can have it
                return number
    except (ValueError, OverflowError):
        pass
    raise DataError(f"{where}: popularity: found {str(value)[:60]!r}, wanted a number")


def read_split(value: object, where: str) -> str | None:
    """Return the split that a row names, or None; "validation" is "dev"; DataError for another."""
    if is_null(value) or is_blank(value):
        return None
    split = "dev" if value == "validation" else value
    if split not in SPLITS:
        raise DataError(f"{where}: split: found {str(value)[:60]!r}, wanted train, validation, dev or test")
    return str(split)
