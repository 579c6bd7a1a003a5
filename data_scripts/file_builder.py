"""What our `datasets` builders share: one text file a split, given by `data_files`, and a cache that sees its contents."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets

from .bios_folder import DataError


@dataclass
class FileConfig(datasets.BuilderConfig):
    """A builder's settings; `digest` is of the files' contents, so that a changed file is never taken from the cache."""

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
        self.paths = {split: Path(path) for split, path in data_files.items()}
        digest = hashlib.sha256()
        for path in self.paths.values():
            try:
                digest.update(path.read_bytes())
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        # The library would take the paths for patterns or addresses; the digest is all that its cache must know.
        super().__init__(*arguments, digest=digest.hexdigest(), **settings)

    def _info(self) -> datasets.DatasetInfo:
        features = {name: datasets.Value(kind) for name, kind in self.COLUMNS.items()}
        return datasets.DatasetInfo(description=self.DESCRIPTION, features=datasets.Features(features))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "path": path})
            for split, path in self.paths.items()
        ]


def prepare(builder: FileBuilder) -> datasets.DatasetDict:
    """Build and load all splits, with what a generator raised in place of the library's wrapper around it."""
    try:
        builder.download_and_prepare()
    except datasets.exceptions.DatasetGenerationError as error:
        raise error.__cause__ or error from None
    return builder.as_dataset()
