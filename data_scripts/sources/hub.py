"""People in a data set on the Hub, one a row, streamed file by file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import BinaryIO

from configuration.data_schema import SUFFIXES, DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.sources.base import Person, Source
from data_scripts.sources.downloads import Download, find_fraction, plan_download
from data_scripts.sources.hub_files import HubFiles, as_data_error, find_hub_files
from data_scripts.sources.rows import Columns, Table, read_people
from data_scripts.sources.tables import FirstPeople, open_parquet, read_csv, read_jsonl, read_parquet
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
        """The most rows to read of each part: those of the first `max_people` of all, whatever part is read first.

        The most people where all files are one part.
        """
        most = self.data.max_people
        files = self.hub_files
        if most is None:
            return [None] * len(files.files)
        if not self.all_parquet:
            return [most]  # one part: how many rows such a file has is known at its end
        limits: list[int | None] = []
        people = FirstPeople(most)
        for number in range(len(files.files)):
            with as_data_error(files.where(number)), files.open(number) as file:
                rows = people.count_rows(open_parquet(file, files.where(number)), self.columns.by_role["id"])
            if rows or not people.is_full:
                limits.append(rows)
            if people.is_full:
                break
        return limits

    @property
    def all_parquet(self) -> bool:
        """Whether all files say how many rows they have."""
        return all(KINDS[suffix(name)] == "parquet" for name in self.hub_files.files)

    def describe(self) -> dict:
        """Return id, configuration, split, commit and licence of the data set."""
        data = self.data
        found = {"source": "hub", "path": data.path, "config": data.config, "split": data.split}
        return {**found, "revision": self.hub_files.commit, "license": self.hub_files.license}

    def downloads(self) -> list[Download]:
        """Return the download of the split's files, as far as they are read."""
        files = self.hub_files
        limit = self.data.max_people
        if not self.all_parquet:
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
        ids: set[str] = set()
        # Without a limit, and where the rows of each file are counted, a file is a part.
        for number in [part] if limit is None or self.all_parquet else range(len(files.files)):
            with as_data_error(files.where(number)), files.open(number) as file:
                table = self.table(file, number)
                stem = os.path.splitext(files.files[number])[0]
                if limit is None or self.all_parquet:
                    table = replace(table, rows=islice(table.rows, limit))
                    yield from read_people(table, self.columns, stem)
                elif (yield from read_people(table, self.columns, stem, limit, ids)):
                    return

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
