"""Parquet files in shards: written whole or not at all, and read as columns without being loaded."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configuration.file_system import own_partial, sync
from data_scripts.bios_folder import DataError

BATCH_ROWS = 16_384  # read together
COMPRESSION = "zstd"
SHARD = re.compile(r"\d{5,}\.parquet")


@contextmanager
def renamed_when_done(path: Path) -> Iterator[Path]:
    """Yield another path beside `path`, and rename what was written there to it if the block succeeds."""
    partial = own_partial(path)  # tasks on several machines may share the folder
    try:
        yield partial
        # Else a power cut may leave the name without the contents.
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, values: object) -> None:
    """Write a JSON file, whole or not at all."""
    with renamed_when_done(path) as partial:
        partial.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_parquet(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], metadata: dict | None = None
) -> int:
    """Write a Parquet file, whole or not at all; return its number of rows.

    Args:
        path: the file.
        schema: of all batches.
        batches: each becomes a row group.
        metadata: called `minigpt` in the file's own; read when the last batch has been written.
    """
    rows = 0
    with (
        renamed_when_done(path) as partial,
        pq.ParquetWriter(
            partial, schema, compression=COMPRESSION, use_dictionary=False, write_statistics=False
        ) as file,
    ):
        for batch in batches:
            file.write_batch(batch)
            rows += batch.num_rows
        if metadata is not None:
            file.add_key_value_metadata({"minigpt": json.dumps(metadata)})
    return rows


@contextmanager
def refusing_damaged(path: Path) -> Iterator[None]:
    """Raise what Arrow raises for a file that is cut off, empty or damaged as a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read, it is cut off or damaged: {error}") from error


def count_rows(path: Path) -> int:
    """Return the number of rows of a file, of which only the end is read; DataError where it is damaged."""
    with refusing_damaged(path):
        return pq.read_metadata(path).num_rows


def read_metadata(path: Path) -> dict:
    """Return what `write_parquet` was given as metadata; DataError where the file is damaged, or another's."""
    with refusing_damaged(path):
        metadata = pq.read_metadata(path).metadata or {}
    if b"minigpt" not in metadata:
        raise DataError(f"{path}: not a file that the preparation has written")
    return json.loads(metadata[b"minigpt"])


def shards(folder: Path) -> list[Path]:
    """Return the shards in a folder, in their order."""
    return sorted(path for path in folder.glob("*.parquet") if SHARD.fullmatch(path.name))


def remove_shards(folder: Path) -> None:
    """Remove the shards in a folder and what kills have left of some, and the folder if nothing else is in it."""
    for path in (*shards(folder), *folder.glob(".[0-9]*.parquet.*.partial")):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or none
        folder.rmdir()


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"{number:05}.parquet"


def read_batches(paths: Iterable[Path], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of shards, some thousand at a time; DataError where one is missing or damaged."""
    for path in paths:
        with refusing_damaged(path), pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=columns)


class TextColumn:
    """A column of texts in Parquet shards: it has a length and can be iterated over any number of times.

    Args:
        folder: of the shards.
        column: its name.
        rows: how many there are.
    """

    def __init__(self, folder: Path, column: str, rows: int):
        self.folder = folder
        self.column = column
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[str]:
        for batch in read_batches(shards(self.folder), [self.column]):
            yield from batch.column(0).to_pylist()
