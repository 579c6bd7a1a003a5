"""Rows of integers, of different lengths, in an Arrow file: written in one pass, read at random.

The file is of Arrow's IPC format, uncompressed, with one column, a list of integers, in record batches of equally many
rows. A row is read from where it lies, and nothing else of the file comes into memory.
"""

import mmap
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from data_scripts.bios_folder import DataError

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
        contents: the file's bytes, perhaps mapped; only looked at here where the rows are read from a file.
        file: what rows are read from, opened without a buffer; None reads them from `contents`.
    """

    def __init__(self, contents: bytes | mmap.mmap, file: BinaryIO | None = None):
        self.contents = contents if file is None else b""
        self.file = file
        self.lock = threading.Lock()
        buffer = pa.py_buffer(contents)
        reader = pa.ipc.open_file(pa.BufferReader(buffer))
        self.dtype = np.dtype(reader.schema.field(COLUMN).type.value_type.to_pandas_dtype())
        # Where each row begins and ends, in bytes of the file: 8 bytes of memory a row.
        starts = []
        ends = []
        for number in range(reader.num_record_batches):
            rows = reader.get_batch(number).column(0)
            offsets = rows.offsets.to_numpy() * self.dtype.itemsize
            offsets += rows.values.buffers()[1].address - buffer.address
            starts.append(offsets[:-1])
            ends.append(offsets[-1:])
        # A row ends where the next one begins, except for the last of a record batch.
        self.starts = np.concatenate([np.zeros(0, np.int64), *starts])
        self.batch_ends = np.concatenate([np.zeros(0, np.int64), *ends])

    @classmethod
    def open(cls, path: Path) -> "RecordFile":
        """Open a file, none of whose rows is read; DataError where it is no whole Arrow file."""
        file = path.open("rb", buffering=0)
        try:
            return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), file)  # unmapped when it returns
        except (pa.ArrowInvalid, ValueError) as error:  # cut off, or empty
            raise DataError(f"{path}: not a whole file of tokens; remove it, and it is built again") from error

    def __len__(self) -> int:
        return len(self.starts)

    def __reduce__(self):
        # For a loader's worker: a file is opened again, not copied.
        return (RecordFile, (self.contents,)) if self.file is None else (RecordFile.open, (Path(self.file.name),))

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of rows, one after the other, and the rows' lengths."""
        starts = self.starts[rows]
        is_last = rows % ROWS == ROWS - 1
        is_last[rows == len(self) - 1] = True
        ends = self.starts[np.where(is_last, rows, rows + 1)]
        ends[is_last] = self.batch_ends[rows[is_last] // ROWS]
        sizes = ends - starts
        # Not through a memory map: each page that it touches is mapped, sixteen more with it, and then counts as this
        # process's memory until it is unmapped, which takes longer than the reading.
        places = zip(starts.tolist(), sizes.tolist(), strict=True)
        if self.file is None:
            parts = [self.contents[start : start + size] for start, size in places]
        elif hasattr(os, "pread"):
            number = self.file.fileno()
            parts = [os.pread(number, size, start) for start, size in places]
        else:
            parts = self._seek_and_read(self.file, places)
        return np.frombuffer(b"".join(parts), self.dtype), sizes // self.dtype.itemsize

    def _seek_and_read(self, file: BinaryIO, places: Iterable[tuple[int, int]]) -> list[bytes]:
        """Return the bytes at places, each (start, size), where the system cannot read at one: Windows."""
        parts = []
        with self.lock:  # the file has one position, which another thread would move
            for start, size in places:
                file.seek(start)
                parts.append(file.read(size))
        return parts
