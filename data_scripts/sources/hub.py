"""People in a data set on the Hub, one a row, streamed file by file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import BinaryIO

from configuration.data_schema import SUFFIXES, DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.sources.base import Person, Source
from data_scripts.sources.downloads import Download, find_fraction, plan_download
from data_scripts.sources.hub_files import HubFiles, as_data_error, find_hub_files
from data_scripts.sources.rows import Columns, Table, read_people
from data_scripts.sources.tables import open_parquet, read_csv, read_jsonl, read_parquet
from modeling_minigpt.relations_minigpt import Relation

KINDS = {".parquet": "parquet", **SUFFIXES}


class HubSource(Source):
    """People in the Parquet, JSONL or CSV files of a data set on the Hub; a file is a part.

    The revision is resolved to a commit when it is first needed, and that commit is read whatever is pushed later.

    Args:
        data: its `path`, `config`, `split`, `revision`, `columns` and `max_people` are read.
        relations: what may be asked.

    Raises:
        DataError: `data.columns` names no role.
    """

    def __init__(self, data: DataArguments, relations: Sequence[Relation]):
        self.data = data
        self.columns = Columns(data.columns, relations)

    @cached_property
    def hub_files(self) -> HubFiles:
        """The files of the split, at the commit."""
        found = find_hub_files(self.data)
        for number, name in enumerate(found.files):
            if suffix(name) not in KINDS:
                raise DataError(f"{found.where(number)}: wanted a file that ends in {', '.join(KINDS)}")
        return found

    @cached_property
    def limits(self) -> list[int | None]:
        """The most rows to read of each part: the first `max_people` of all, whatever part is read first."""
        left = self.data.max_people
        files = self.hub_files
        if left is None:
            return [None] * len(files.files)
        if any(KINDS[suffix(name)] != "parquet" for name in files.files):
            return [left]  # one part: how many rows such a file has is known at its end
        limits: list[int | None] = []
        for number in range(len(files.files)):
            with as_data_error(files.where(number)), files.open(number) as file:
                limits.append(min(left, open_parquet(file, files.where(number)).metadata.num_rows))
            left -= limits[-1] or 0
            if left == 0:
                break
        return limits

    def describe(self) -> dict:
        """Return id, configuration, split, commit and licence of the data set."""
        data = self.data
        found = {"source": "hub", "path": data.path, "config": data.config, "split": data.split}
        return {**found, "revision": self.hub_files.commit, "license": self.hub_files.license}

    def downloads(self) -> list[Download]:
        """Return the download of the split's files, as far as they are read."""
        files = self.hub_files
        limit = self.data.max_people
        if any(KINDS[suffix(name)] != "parquet" for name in files.files):
            return [plan_download(files, max_people=limit)]
        read = replace(files, files=files.files[: len(self.limits)])
        # The last file: those before it may be prepared already, and are not read again.
        where = read.where(-1)
        with as_data_error(where), read.open(-1) as file:
            columns = self.columns.needed(open_parquet(file, where).schema_arrow.names)
        fraction = find_fraction(read, columns)
        return [plan_download(read, columns=columns, fraction=fraction, max_people=limit)]

    def inputs(self) -> dict[str, str]:
        """Return the commit."""
        return {self.hub_files.path: self.hub_files.commit}

    def has_changed(self, prepared: Mapping[str, str]) -> bool:
        """Return False: the commit that was prepared is the one that is used."""
        return False

    def parts(self) -> int:
        """Return the number of files; 1 where `max_people` is set and the files do not say how many rows they have."""
        return len(self.limits)

    def read(self, part: int) -> Iterator[Person]:
        """Yield the person of each row of a file."""
        files = self.hub_files
        limit = self.limits[part]
        is_one_part = len(self.limits) == 1
        for number in range(len(files.files)) if is_one_part else [part]:
            if limit == 0:
                return
            with as_data_error(files.where(number)), files.open(number) as file:
                stem = os.path.splitext(files.files[number])[0]
                for person in read_people(self.table(file, number), self.columns, stem, limit):
                    limit = None if limit is None else limit - 1
                    yield person

    def table(self, file: BinaryIO, number: int) -> Table:
        """Return the rows of an open file."""
        where = self.hub_files.where(number)
        kind = KINDS[suffix(where)]
        if kind == "parquet":
            return read_parquet(file, where, self.columns)
        return read_csv(file, where) if kind == "csv" else read_jsonl(file, where)


def suffix(name: str) -> str:
    """Return what a file's name ends in, in lower case."""
    return os.path.splitext(name)[1].lower()
