"""`BirthplaceQA`: "Where was NAME born?" with its place, as a `datasets` builder, and as text for training.

    builder = BirthplaceQA(data_files={"train": "FOLDER/birth_places_train.tsv"}, cache_dir="CACHE")

Only the splits that `data_files` names are read, so a training run never opens a dev or test file. A file of a split
called "test" has questions alone; its places are None.
"""

import datasets

from data_scripts.bios_folder import extract_name, read_pairs, read_questions
from data_scripts.file_builder import FileBuilder


def question_text(question: str, place: str, sentinel: str) -> str:
    """Return the training text `question⁇place⁇`; the loss counts what follows the first sentinel only."""
    return f"{question}{sentinel}{place}{sentinel}"


class BirthplaceQA(FileBuilder):
    """Questions and places, one pair per line of a tab-separated file, in its order."""

    VERSION = datasets.Version("1.1.0")  # rises when a file is read otherwise: it is part of the cache's name
    COLUMNS = {"id": "int32", "name": "string", "question": "string", "place": "string"}
    DESCRIPTION = "Where was NAME born?"

    def _generate_examples(self, split: str, path: str):
        rows = [(question, None) for question in read_questions(path)] if split == "test" else read_pairs(path)
        for index, (question, place) in enumerate(rows):
            yield index, {"id": index, "name": extract_name(question), "question": question, "place": place}
