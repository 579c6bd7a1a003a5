"""`WikipediaBios`: the biographies of any folder in the cs224n layout, as a `datasets` builder.

builder = WikipediaBios(data_files={"train": "FOLDER/wiki.txt"}, cache_dir="CACHE")
builder.download_and_prepare()
documents = builder.as_dataset(split="train")      # id, title, text
"""

from pathlib import Path

import datasets

from .bios_folder import read_lines, split_title


def builder_info(description: str, features: dict) -> datasets.DatasetInfo:
    """Describe a dataset whose columns are the `datasets` features named."""
    return datasets.DatasetInfo(description=description, features=datasets.Features(features))


def split_generators(builder: datasets.DatasetBuilder) -> list[datasets.SplitGenerator]:
    """Make one split of each key in the builder's `data_files`, of exactly one file each."""
    if not builder.config.data_files:
        raise ValueError(f"{type(builder).__name__} needs data_files={{SPLIT: FILE}}")
    return [
        datasets.SplitGenerator(name=str(split), gen_kwargs={"path": Path(files[0])})
        for split, files in builder.config.data_files.items()
    ]


def prepare(builder: datasets.DatasetBuilder) -> datasets.DatasetDict:
    """Build and load all splits, with what a generator raised in place of the library's wrapper around it."""
    try:
        builder.download_and_prepare()
    except datasets.exceptions.DatasetGenerationError as error:
        raise error.__cause__ or error from None
    return builder.as_dataset()


class WikipediaBios(datasets.GeneratorBasedBuilder):
    """Biographies, one a line of a text file; the lines' order is kept and `id` is the line's index from 0."""

    VERSION = datasets.Version("1.0.0")

    def _info(self) -> datasets.DatasetInfo:
        value = datasets.Value
        return builder_info(
            "One biography a row, with the person it is about.",
            {"id": value("int32"), "title": value("string"), "text": value("string")},
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return split_generators(self)

    def _generate_examples(self, path: Path):
        for index, text in enumerate(read_lines(path)):
            yield index, {"id": index, "title": split_title(text)[0], "text": text}
