"""Rows of integers, of different lengths, in an Arrow file: written in one pass, read at random by memory map.

The file is of Arrow's IPC format, uncompressed, with one column, a list of integers, in record batches of equally many
rows. A row is read where it lies: a few pages of the file, and nothing else of it, come into memory.
"""

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from data_scripts.ragged import ranges

ROWS = 4096  # of a record batch
COLUMN = "row"


class ValueTooLarge(ValueError):
    """A value that the file's integers cannot represent."""


def write_rows(sink: BinaryIO, chunks: Iterable[tuple[np.ndarray, np.ndarray]], dtype: np.dtype) -> None:
    """Write rows as an Arrow file.

    Args:
        sink: where to.
        chunks: (the values of all rows, the rows' lengths); `ROWS` rows each, the last one perhaps fewer.
        dtype: of the values: uint16 or uint32.

    Raises:
        ValueTooLarge: a value does not fit.
    """
    schema = pa.schema([(COLUMN, pa.large_list(pa.from_numpy_dtype(dtype)))])
    with pa.ipc.new_file(sink, schema) as writer:
        for values, lengths in chunks:
            if len(values) and values.max() > np.iinfo(dtype).max:
                raise ValueTooLarge(f"{values.max()} is more than a {np.dtype(dtype).name} can represent")
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            rows = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values.astype(dtype)))
            writer.write_batch(pa.record_batch([rows], schema=schema))


class RecordFile:
    """The rows of an Arrow file, read at random.

    Args:
        contents: the file, mapped, or its bytes.
        path: the file, where there is one.
    """

    def __init__(self, contents: mmap.mmap | bytes, path: Path | None = None):
        self.contents = contents
        self.path = path
        buffer = pa.py_buffer(contents)
        reader = pa.ipc.open_file(pa.BufferReader(buffer))
        self.dtype = np.dtype(reader.schema.field(COLUMN).type.value_type.to_pandas_dtype())
        # The whole file as integers, and where in it each record batch's values and offsets begin: so rows of any
        # number of record batches are gathered at once.
        self.values = np.frombuffer(contents, self.dtype, len(buffer) // self.dtype.itemsize)
        self.offsets = np.frombuffer(contents, np.int64, len(buffer) // 8)
        batches = range(reader.num_record_batches)
        columns = [reader.get_batch(number).column(0) for number in batches]
        places = [[one.address - buffer.address for one in column.buffers() if one is not None] for column in columns]
        self.first_offset = np.array([offsets for offsets, _ in places], np.int64) // 8
        self.first_value = np.array([values for _, values in places], np.int64) // self.dtype.itemsize
        self.size = ROWS * max(0, len(columns) - 1) + (len(columns[-1]) if columns else 0)

    @classmethod
    def open(cls, path: Path) -> "RecordFile":
        """Map a file; nothing of its rows is read."""
        with path.open("rb") as file:
            contents = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):  # not on Windows
            contents.madvise(mmap.MADV_RANDOM)  # reading ahead would bring in rows that nobody asks for
        return cls(contents, path)

    def __len__(self) -> int:
        return self.size

    def __reduce__(self):
        # For a loader's worker: a file is mapped again, not copied.
        return (RecordFile.open, (self.path,)) if self.path else (RecordFile, (bytes(self.contents),))

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of rows, one after the other, and the rows' lengths; a copy."""
        batch, number = np.divmod(rows, ROWS)
        place = self.first_offset[batch] + number
        first = self.offsets[place]
        lengths = self.offsets[place + 1] - first
        values = self.values[ranges(self.first_value[batch] + first, lengths)]
        if self.path is not None and hasattr(mmap, "MADV_DONTNEED"):
            # Mapped pages count as this process's memory: those read stay in the system's cache, not here.
            self.contents.madvise(mmap.MADV_DONTNEED)
        return values, lengths
