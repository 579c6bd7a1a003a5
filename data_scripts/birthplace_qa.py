"""`BirthplaceQA`: "Where was NAME born?" with its place, as a `datasets` builder.

    builder = BirthplaceQA(data_files={"train": "FOLDER/birth_places_train.tsv"}, cache_dir="CACHE")

Only the splits that `data_files` names are read, so a training run never opens a dev or test file. A file of a split
called "test" has questions alone; its places are None.
"""

import datasets

from data_scripts.bios_folder import read_questions
from data_scripts.file_builder import FileBuilder


class BirthplaceQA(FileBuilder):
    """Questions and places, one pair per line of a tab-separated file, in its order."""

    VERSION = datasets.Version("1.1.0")  # rises when a file is read otherwise: it is part of the cache's name
    COLUMNS = {"id": "int32", "name": "string", "question": "string", "place": "string"}
    DESCRIPTION = "Where was NAME born?"

    def _generate_examples(self, split: str, path: str):
        for index, question in enumerate(read_questions(path, answered=split != "test")):
            place = question.answer if question.answers else None
            yield index, {"id": index, "name": question.name, "question": question.text, "place": place}
