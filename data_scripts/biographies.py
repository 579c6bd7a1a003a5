"""`Biographies`: the biographies of any folder in the cs224n layout, as a `datasets` builder.

builder = Biographies(data_files={"train": "FOLDER/wiki.txt"}, cache_dir="CACHE")
builder.download_and_prepare()
documents = builder.as_dataset(split="train")      # id, title, text
"""

import datasets

from data_scripts.bios_folder import read_lines
from data_scripts.file_builder import FileBuilder
from data_scripts.titles import split_title


class Biographies(FileBuilder):
    """Biographies, one per line of a text file, in its order; `id` is the line's index from 0."""

    VERSION = datasets.Version("1.1.0")  # rises when a file is read otherwise: it is part of the cache's name
    COLUMNS = {"id": "int32", "title": "string", "text": "string"}
    DESCRIPTION = "One biography a row, with the person it is about."

    def _generate_examples(self, split: str, path: str):
        for index, text in enumerate(read_lines(path)):
            yield index, {"id": index, "title": split_title(text)[0], "text": text}
