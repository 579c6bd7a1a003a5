"""Parquet files in shards: written whole or not at all, and read as columns without being loaded."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 16_384  # read together
COMPRESSION = "zstd"


@contextmanager
def renamed_when_done(path: Path) -> Iterator[Path]:
    """Yield another path beside `path`, and rename what was written there to it if the block succeeds."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
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


def read_metadata(path: Path) -> dict:
    """Return what `write_parquet` was given as metadata."""
    return json.loads(pq.read_metadata(path).metadata[b"minigpt"])


def shards(folder: Path) -> list[Path]:
    """Return the shards in a folder, in their order."""
    return sorted(folder.glob("[0-9]*.parquet"))


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"{number:05}.parquet"


def read_batches(paths: Iterable[Path], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of shards, some thousand at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
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
