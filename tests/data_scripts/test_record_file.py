"""Rows of integers in a file: read at random, by several threads, with the system's `pread` or without it."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_scripts.bios_folder import DataError
from data_scripts.record_file import ROWS, RecordFile, ValueTooLarge, write_rows

COUNT = ROWS + 3  # two record batches


@pytest.fixture
def path(tmp_path):
    """Write rows: row i is i, i + 1, … of 1 to 5 values."""
    chunks = []
    for first in range(0, COUNT, ROWS):
        rows = [range(i, i + i % 5 + 1) for i in range(first, min(first + ROWS, COUNT))]
        chunks.append((np.concatenate(rows), np.array([len(row) for row in rows])))
    with (tmp_path / "rows.arrow").open("wb") as sink:
        write_rows(sink, chunks, np.dtype(np.uint16))
    return tmp_path / "rows.arrow"


def check(records: RecordFile, rows: list[int]) -> None:
    """Check what is read of some rows."""
    values, lengths = records.read(np.array(rows))
    assert lengths.tolist() == [i % 5 + 1 for i in rows]
    assert values.tolist() == [value for i in rows for value in range(i, i + i % 5 + 1)]


@pytest.mark.parametrize("has_pread", [True, False], ids=["pread", "no-pread"])
def test_rows_are_read_in_any_order_and_by_several_threads(path, monkeypatch, has_pread):
    if not has_pread:
        monkeypatch.delattr(os, "pread")
    records = RecordFile.open(path)
    assert len(records) == COUNT
    check(records, [COUNT - 1, 0, ROWS - 1, ROWS, 17, 17])
    check(pickle.loads(pickle.dumps(records)), [ROWS, 3])
    orders = [np.random.default_rng(seed).permutation(COUNT)[:500].tolist() for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda rows: check(records, rows), orders))) == 8


def test_a_value_that_does_not_fit_and_a_file_that_is_cut_are_refused(path, tmp_path):
    with (tmp_path / "wide.arrow").open("wb") as sink, pytest.raises(ValueTooLarge, match="65536 is more than a uint"):
        write_rows(sink, [(np.array([1 << 16]), np.array([1]))], np.dtype(np.uint16))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"rows\.arrow: not a whole file of tokens"):
        RecordFile.open(path)
