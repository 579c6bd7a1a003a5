"""What preparing a corpus downloads from the Hub, in one line that is logged before the first large byte.

Files of people are read by ranges, of Parquet the columns that are needed alone, and are not stored. Statements and
labels are stored whole in the Hub's cache.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pyarrow
import pyarrow.parquet
from huggingface_hub import HfApi, constants, try_to_load_from_cache

from data_scripts.sources.hub_files import HubFiles, describe

PATHS_A_REQUEST = 100
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
NO_SIZE = (OSError, ValueError, RuntimeError, httpx.HTTPError, httpx.InvalidURL)  # what the Hub's clients raise


@dataclass
class Download:
    """Files of one data set on the Hub.

    Attributes:
        path: USER/NAME.
        sizes: bytes of each file; None where they could not be read.
        files: how many there are.
        reason: why the sizes could not be read.
        columns: the columns of Parquet files that are read; none where all bytes are.
        fraction: of the bytes that those columns have, by one of the files; None where that is not known.
        max_people: the files are read until there are this many people; None where they are all read.
        stored: whether the files are stored in the Hub's cache.
        cached: bytes that are there already.
    """

    path: str
    files: int
    sizes: Sequence[int] | None = None
    reason: str = ""
    columns: Sequence[str] = ()
    fraction: float | None = None
    max_people: int | None = None
    stored: bool = False
    cached: int = 0

    def __str__(self) -> str:
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        parts = [f"{self.path}: {files}"]
        total = None if self.sizes is None else sum(self.sizes)
        parts.append(f"of unknown size ({self.reason})" if total is None else write_bytes(total))
        if self.columns:
            known = total is not None and self.fraction is not None
            share = f" (about {write_bytes(self.fraction * total)})" if known else ""
            parts.append(f"of which only the columns {', '.join(self.columns)} are read{share}")
        if self.max_people is not None:
            parts.append(f"until {self.max_people:,} people are found")
        if self.stored:
            there = f", {write_bytes(self.cached)} of it already there" if self.cached else ""
            parts.append(f"to {write_place(Path(constants.HF_HUB_CACHE))}{there}")
        else:
            parts.append("not stored")
        return ", ".join(parts)


def write_bytes(number: float) -> str:
    """Write a number of bytes with its unit: `43.9 GB`, `12 kB`, `90 bytes`."""
    for unit, name in UNITS:
        if number >= unit:
            digits = 0 if unit == 1e3 else 1
            return f"{number / unit:,.{digits}f} {name}"
    return f"{number:.0f} bytes"


def write_place(folder: Path) -> str:
    """Write a folder, which need not be there yet, with the free space of its disk."""
    there = next(one for one in (folder, *folder.resolve().parents) if one.is_dir())
    return f"{folder} ({write_bytes(shutil.disk_usage(there).free)} free)"


def describe_downloads(downloads: Sequence[Download], corpus: Path) -> str:
    """Return the line on all downloads, with the corpus's folder."""
    return f"downloading {'; '.join(map(str, downloads))}; the corpus goes to {write_place(corpus)}"


def find_sizes(hub_files: HubFiles) -> list[int]:
    """Return the bytes of each file, of all that the Hub knows; OSError where it does not know one."""
    sizes: dict[str, int] = {}
    for first in range(0, len(hub_files.files), PATHS_A_REQUEST):
        paths = hub_files.files[first : first + PATHS_A_REQUEST]
        found = HfApi().get_paths_info(hub_files.path, paths, repo_type="dataset", revision=hub_files.commit)
        sizes.update({one.path: one.size for one in found if hasattr(one, "size")})
    if missing := [name for name in hub_files.files if name not in sizes]:
        raise OSError(f"the Hub does not say how large {missing[0]} is")
    return [sizes[name] for name in hub_files.files]


def find_fraction(hub_files: HubFiles, columns: Sequence[str]) -> float | None:
    """Return the fraction of the last Parquet file's bytes that some columns have, by its footer; None if unknown."""
    try:
        with hub_files.open(-1) as file:
            metadata = pyarrow.parquet.read_metadata(file)
    except (pyarrow.ArrowException, *NO_SIZE):
        return None  # reading the people will say what is wrong
    sizes = {True: 0, False: 0}
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            # A struct's columns are `main_entity.identifier` and so on.
            sizes[column.path_in_schema.split(".")[0] in columns] += column.total_compressed_size
    total = sum(sizes.values())
    return sizes[True] / total if total else None


def plan_download(hub_files: HubFiles, **settings) -> Download:
    """Return the download of some files.

    Args:
        hub_files: the files.
        settings: further attributes of `Download`.
    """
    download = Download(hub_files.path, len(hub_files.files), **settings)
    try:
        download.sizes = find_sizes(hub_files)
    except NO_SIZE as error:
        download.reason = describe(error)
    if download.stored and download.sizes is not None:
        download.cached = sum(
            size
            for name, size in zip(hub_files.files, download.sizes, strict=True)
            if isinstance(
                try_to_load_from_cache(hub_files.path, name, revision=hub_files.commit, repo_type="dataset"), str
            )
        )
    return download
