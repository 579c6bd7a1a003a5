"""The data of this folder's lm-evaluation-harness tasks: what `hub.publish_data` writes or pushes, and public sets."""

import sys
from pathlib import Path

import datasets

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harness loads this file by its path

from data_scripts.question_sets import read_question_set
from modeling_minigpt.relations_minigpt import BIRTHPLACE


def load(dataset: str | None, configuration: str | None) -> datasets.DatasetDict:
    """Return a configuration of a published data set, by its id on the Hub or the folder of a dry run."""
    if dataset is None:
        raise ValueError(
            "no data set is named: give --metadata dataset=USER/NAME, or the folder of hub.publish_data --dry-run"
        )
    return datasets.load_dataset(dataset, configuration)


def birthplace(dataset: str | None = None, **_) -> datasets.DatasetDict:
    """Return the questions with their places."""
    return load(dataset, "birthplace")


def closed_book_qa(dataset: str | None = None, relation: str | None = None, **_) -> datasets.DatasetDict:
    """Return the questions of a relation with their answers; those of the main one where none is named."""
    return load(dataset, relation)


def accepted_answers(row: dict) -> list[str]:
    """Return the answers that are right."""
    return row["answers"] if "answers" in row else [row["place"]]


def biographies(dataset: str | None = None, **_) -> datasets.DatasetDict:
    """Return the biographies."""
    return load(dataset, "biographies")


def popqa(dataset: str = "akariasai/PopQA", **_) -> datasets.DatasetDict:
    """Return the birthplaces of PopQA: of a file, or of the data set on the Hub."""
    return public_set("popqa", dataset)


def entity_questions(dataset: str | None = None, **_) -> datasets.DatasetDict:
    """Return the birthplaces of EntityQuestions: of a file, a folder, or a data set on the Hub."""
    if dataset is None:
        raise ValueError("no file is named: give --metadata dataset=PATH, the path of P19.test.json or of its folder")
    return public_set("entity_questions", dataset)


def public_set(name: str, path: str) -> datasets.DatasetDict:
    """Return the birthplaces of a public set: "question", "answers", "name" and "popularity" of each."""
    rows = [
        {"question": one.question.text, "answers": list(one.question.answers), "name": one.name,
         "popularity": one.popularity}
        for one in read_question_set(name, path, [BIRTHPLACE]).questions
    ]  # fmt: skip
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
