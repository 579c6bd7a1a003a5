"""`Biographies`: the biographies of any folder in the cs224n layout, as a `datasets` builder.

builder = Biographies(data_files={"train": "FOLDER/wiki.txt"}, cache_dir="CACHE")
builder.download_and_prepare()
documents = builder.as_dataset(split="train")      # id, title, text
"""

from dataclasses import dataclass

import datasets

from data_scripts.bios_folder import read_lines
from data_scripts.file_builder import FileBuilder, FileConfig
from data_scripts.titles import split_title


@dataclass
class BiographiesConfig(FileConfig):
    """Names of people who are asked about, which are titles as they are."""

    names: tuple[str, ...] = ()


class Biographies(FileBuilder):
    """Biographies, one per line of a text file, in its order; `id` is the line's index from 0."""

    VERSION = datasets.Version("1.1.0")  # rises when a file is read otherwise: it is part of the cache's name
    BUILDER_CONFIG_CLASS = BiographiesConfig
    COLUMNS = {"id": "int32", "title": "string", "text": "string"}
    DESCRIPTION = "One biography a row, with the person it is about."

    def _generate_examples(self, split: str, path: str):
        names = frozenset(self.config.names)
        for index, text in enumerate(read_lines(path)):
            yield index, {"id": index, "title": split_title(text, names)[0], "text": text}
