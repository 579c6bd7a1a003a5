"""What our `datasets` builders share: one text file per split, and a cache that knows its contents."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import datasets

from configuration.file_system import NO_LOCKS
from data_scripts.bios_folder import sha256_prefix

LOCK_SECONDS = 20  # longer than another process of the run takes to read what is built


def feature_of(kind: str) -> datasets.Value | datasets.Sequence:
    """Return the feature of a column's kind, as Arrow names it: "string", "list<string>"."""
    if kind.startswith("list<"):
        return datasets.Sequence(datasets.Value(kind.removeprefix("list<").removesuffix(">")))
    return datasets.Value(kind)


@dataclass
class FileConfig(datasets.BuilderConfig):
    """A builder's settings; `digest` is of the files' contents, so that no changed file is taken from the cache."""

    digest: str = ""


class FileBuilder(datasets.GeneratorBasedBuilder):
    """A builder over local files, `data_files={SPLIT: FILE}`; subclasses name their columns and generate rows.

    Raises:
        DataError: a file cannot be read.
    """

    BUILDER_CONFIG_CLASS = FileConfig
    COLUMNS: Mapping[str, str] = {}
    DESCRIPTION = ""

    def __init__(self, *arguments, data_files: Mapping[str, str | Path] | None = None, **settings):
        if not data_files:
            raise ValueError(f"{type(self).__name__} needs data_files={{SPLIT: FILE}}")
        self.paths = {split: str(path) for split, path in data_files.items()}
        # With the splits' names: two splits may have equal files, and a cache that has one has not the other.
        digest = "-".join(f"{split}-{sha256_prefix(path)}" for split, path in self.paths.items())
        # The library would take the paths for patterns or addresses; the digest is all that its cache must know.
        with locks_where_there_are_any():
            super().__init__(*arguments, digest=digest, **settings)

    def _info(self) -> datasets.DatasetInfo:
        # Declared, not inferred: an empty split then has columns, too.
        features = {name: feature_of(kind) for name, kind in self.COLUMNS.items()}
        return datasets.DatasetInfo(description=self.DESCRIPTION, features=datasets.Features(features))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "path": path})
            for split, path in self.paths.items()
        ]


def prepare(builder: FileBuilder) -> datasets.DatasetDict:
    """Build and load all splits, with what a generator raised in place of the library's wrapper around it."""
    # The library wraps whatever a generator raises; the user is to see the file, the line and what is wrong there.
    with locks_where_there_are_any():
        try:
            builder.download_and_prepare()
        except datasets.exceptions.DatasetGenerationError as error:
            raise error.__cause__ or error from None
        return builder.as_dataset()


@contextmanager
def locks_where_there_are_any() -> Iterator[None]:
    """Let the library build its cache on a file system without locks too, as NFS without its lock daemon.

    The cache is in a run's folder, and one run alone uses that.
    """
    locking = datasets.builder.FileLock

    @contextmanager
    def lock(path: str) -> Iterator[None]:
        library_lock = locking(path)
        try:
            library_lock.acquire(timeout=LOCK_SECONDS)
        except OSError as error:
            # A timeout: where locks are files, a killed run on another machine has left this one.
            if error.errno not in NO_LOCKS and not isinstance(error, TimeoutError):
                raise
        try:
            yield
        finally:
            library_lock.release()  # of one that was not acquired changes nothing

    datasets.builder.FileLock = lock
    try:
        yield
    finally:
        datasets.builder.FileLock = locking
