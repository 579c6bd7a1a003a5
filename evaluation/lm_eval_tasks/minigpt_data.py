"""The data of this folder's lm-evaluation-harness tasks: what `python -m hub.publish_data` writes or pushes."""

import datasets


def load(dataset: str | None, configuration: str | None) -> datasets.DatasetDict:
    """Return a configuration of a published data set, by its id on the Hub or the folder of a dry run."""
    if dataset is None:
        raise ValueError("which data? give --metadata dataset=USER/NAME, or the folder of hub.publish_data --dry-run")
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
