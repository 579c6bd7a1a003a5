"""Tables in files: JSON lines, CSV and Parquet, each read row by row from an open file; and local ones as sources."""

import csv
import itertools
import json
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from configuration.data_schema import DataArguments
from data_scripts.bios_folder import DataError, sha256_prefix
from data_scripts.sources.base import Person, Source
from data_scripts.sources.rows import Columns, Table, read_people
from modeling_minigpt.relations_minigpt import Relation

BOM = b"\xef\xbb\xbf"
DELIMITERS = ",;\t|"
MAX_FIELD = 2**31 - 1  # characters of a CSV field; Python's own limit is 131,072
WHOLE = re.compile(r"-?\d+\.0")
BATCH_ROWS = 1024  # of a Parquet file, decoded at once


def split_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file's lines with their ends, which may be those of Unix, Windows or old Macs."""
    # bytes.splitlines knows these and no others.
    return itertools.chain.from_iterable(line.splitlines(keepends=True) for line in file)


def decode(lines: Iterator[bytes], path: str) -> Iterator[str]:
    """Yield lines, with their ends, as text; DataError, with the line, for bytes that are not UTF-8."""
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(BOM) if number == 1 else line
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            found = line[error.start : error.end].hex(" ")
            raise DataError(f"{path}:{number}: byte {error.start + 1} is {found}, wanted UTF-8 text") from error


def parse_json(text: str, where: str) -> Any:
    """Return what a text is in JSON, or raise DataError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{where}: not JSON ({reason}): {text.strip()[-60:]!r}") from error


def read_jsonl(file: BinaryIO, path: str) -> Table:
    """Return the rows of a file with one JSON object a line, or, named `.json`, with one list of objects.

    Raises:
        DataError: as the rows are read, with the line: no JSON, or no object.
    """
    if path.lower().endswith(".json"):
        start = file.read(1)
        while start.isspace() or start in (BOM[:1], BOM[1:2], BOM[2:]):
            start = file.read(1)
        file.seek(0)
        if start == b"[":
            text = "".join(decode(iter(file), path))
            items = ((f"{path}: item {number}", row) for number, row in enumerate(parse_json(text, path), start=1))
            return Table(path, None, map(check_object, items))
    lines = enumerate(decode(split_lines(file), path), start=1)
    parsed = ((f"{path}:{n}", parse_json(line, f"{path}:{n}")) for n, line in lines if line.strip())
    return Table(path, None, map(check_object, parsed))


def check_object(item: tuple[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return where a row is and the row; DataError unless it is a JSON object."""
    where, row = item
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {json.dumps(row, ensure_ascii=False)[:60]}, wanted a JSON object")
    return where, row


def read_csv(file: BinaryIO, path: str) -> Table:
    """Return the rows of a CSV file with a header, whose delimiter is the one that splits it into most columns.

    Quotes are those of RFC 4180: a quoted field may have delimiters, line ends and doubled quotes in it.

    Raises:
        DataError: no header, or a column twice; as the rows are read, with the line: a row with more or fewer fields
            than the header, a quotation mark that is not closed.
    """
    csv.field_size_limit(MAX_FIELD)
    lines = decode(split_lines(file), path)
    first = next(lines, "")
    delimiter = max(DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
    rows = number_records(reader, path)
    _, header = next(rows, ("", []))
    header = [column.strip() for column in header]
    if not any(header):
        raise DataError(f"{path}:1: no header, wanted the columns' names")
    if twice := [column for column in header if header.count(column) > 1]:
        raise DataError(f"{path}:1: the column {twice[0]!r} is there twice")
    return Table(path, header, (to_row(header, fields, where) for where, fields in rows if fields))


def number_records(reader, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield file and first line of each record, and its fields; DataError where the quotes are wrong."""
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{where}: not CSV: {error}; is a quotation mark missing or not doubled?") from error
        yield where, fields


def to_row(header: list[str], fields: list[str], where: str) -> tuple[str, dict[str, str]]:
    """Return where a row is, and its fields by column; DataError unless there is one for each column."""
    if len(fields) != len(header):
        raise DataError(f"{where}: found {len(fields)} fields, wanted {len(header)}: {', '.join(header)}")
    return where, dict(zip(header, map(as_whole_number, fields), strict=True))


def as_whole_number(field: str) -> str:
    """Return a field without the ".0" of a whole number: pandas turns years into floats where one is missing."""
    return field[:-2] if field.endswith(".0") and WHOLE.fullmatch(field) else field


def open_parquet(file: BinaryIO, path: str) -> pyarrow.parquet.ParquetFile:
    """Open a Parquet file by its footer; DataError where it has none, as where it is cut off."""
    try:
        return pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: no Parquet file, or one that is cut off: {error}") from error


def read_parquet(file: BinaryIO, path: str, columns: Columns) -> Table:
    """Return the rows of a Parquet file, of which only the columns that are needed are read, in batches."""
    parquet = open_parquet(file, path)
    header = parquet.schema_arrow.names
    return Table(path, header, parquet_rows(parquet, path, columns.needed(header)))


def parquet_rows(
    parquet: pyarrow.parquet.ParquetFile, path: str, columns: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file and row number, from 1, and the values of each row; DataError for pages that are damaged."""
    number = 0
    try:
        for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
            for row in shorten_floats(batch).to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        # Arrow raises plain OSErrors for bytes that it cannot decode; one of a class of its own is the network's.
        if isinstance(error, OSError) and type(error) is not OSError:
            raise
        raise DataError(f"{path}: damaged after row {number}: {error}") from error


class FirstPeople:
    """Counts the rows of the first people in Parquet files that are read one after the other.

    Args:
        most: how many people are wanted.

    Attributes:
        is_full: whether further files have none of their rows.
    """

    def __init__(self, most: int):
        self.most = most
        self.rows = 0
        self.ids: set[object] = set()
        self.is_full = False

    def count_rows(self, parquet: pyarrow.parquet.ParquetFile, id_column: str) -> int:
        """Return how many rows of a file are of the first people; without a column of ids each row is a person."""
        if id_column not in parquet.schema_arrow.names:
            rows = min(self.most - self.rows, parquet.metadata.num_rows)
            self.rows += rows
            self.is_full = self.rows == self.most
            return rows
        rows = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=[id_column]):
            for one in batch.column(0).to_pylist():
                if len(self.ids) == self.most and one not in self.ids:
                    self.is_full = True
                    return rows
                self.ids.add(one)
                rows += 1
        return rows


def shorten_floats(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """Return a batch whose 32-bit numbers are those that they are written as: 1.85, not 1.850000023841858."""
    for number, column in enumerate(batch.schema):
        is_list = pyarrow.types.is_list(column.type) or pyarrow.types.is_large_list(column.type)
        if (column.type.value_type if is_list else column.type) == pyarrow.float32():
            texts, numbers = pyarrow.string(), pyarrow.float64()
            if is_list:
                texts, numbers = pyarrow.list_(texts), pyarrow.list_(numbers)
            batch = batch.set_column(number, column.name, batch.column(number).cast(texts).cast(numbers))
    return batch


class FileSource(Source):
    """People in one local file, one a row.

    Args:
        data: its `path`, `columns` and `max_people` are read.
        relations: what may be asked.

    Raises:
        DataError: `data.columns` names no role.
    """

    kind = ""

    def __init__(self, data: DataArguments, relations: Sequence[Relation]):
        self.path = str(data.path)
        self.limit = data.max_people
        self.columns = Columns(data.columns, relations)

    @abstractmethod
    def table(self, file: BinaryIO) -> Table:
        """Return the rows of the open file."""

    def describe(self) -> dict:
        """Return kind and path of the source."""
        return {"source": self.kind, "path": self.path}

    def inputs(self) -> dict[str, str]:
        """Return the digest of the file's contents."""
        return {os.path.basename(self.path): sha256_prefix(self.path)}

    def open(self) -> BinaryIO:
        """Open the file, or raise DataError."""
        try:
            return open(self.path, "rb")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise DataError(f"{self.path}: cannot be read: {reason}") from error

    def parts(self) -> int:
        """Return 1: the lines of a file are read one after the other."""
        self.open().close()
        return 1

    def read(self, part: int) -> Iterator[Person]:
        """Yield the person of each row, up to `max_people`; DataError where there is none."""
        is_empty = True
        with self.open() as file:
            for person in read_people(self.table(file), self.columns, PurePath(self.path).stem, self.limit):
                is_empty = False
                yield person
        if is_empty:
            raise DataError(f"{self.path}: no row in it")


class JsonlSource(FileSource):
    """People in a file of JSON lines, or in one JSON list."""

    kind = "jsonl"

    def table(self, file: BinaryIO) -> Table:
        """Return the objects of the file."""
        return read_jsonl(file, self.path)


class CsvSource(FileSource):
    """People in a file of comma-separated values; semicolons, tabs and bars may take the commas' place."""

    kind = "csv"

    def table(self, file: BinaryIO) -> Table:
        """Return the rows of the file."""
        return read_csv(file, self.path)
