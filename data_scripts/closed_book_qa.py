"""`ClosedBookQA`: questions of any relations with their answers, as a `datasets` builder.

    builder = ClosedBookQA(data_files={"train": "FOLDER/birth_places_train.tsv"}, cache_dir="CACHE")

Only the splits that `data_files` names are read, so a training run never opens a dev or test file. A file of a split
called "test" has questions alone; its lists of answers are empty.
"""

from dataclasses import dataclass

import datasets

from data_scripts.bios_folder import read_questions
from data_scripts.file_builder import FileBuilder, FileConfig
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation


@dataclass
class ClosedBookConfig(FileConfig):
    """Which relations a line may ask for."""

    relations: tuple[Relation, ...] = (BIRTHPLACE,)


class ClosedBookQA(FileBuilder):
    """Questions and answers, one pair per line of a tab-separated file, in its order; `id` is the index from 0."""

    VERSION = datasets.Version("2.0.0")  # rises when a file is read otherwise: it is part of the cache's name
    BUILDER_CONFIG_CLASS = ClosedBookConfig
    COLUMNS = {"id": "int32", "name": "string", "relation": "string", "question": "string", "answers": "list<string>"}
    DESCRIPTION = "A question about a person, and the answers that are right."

    def _generate_examples(self, split: str, path: str):
        for index, question in enumerate(read_questions(path, self.config.relations, answered=split != "test")):
            row = {"id": index, **question._asdict(), "answers": list(question.answers)}
            row["question"] = row.pop("text")
            yield index, row
