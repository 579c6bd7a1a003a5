"""Get a run's data: invented into its folder, or read from the folder that the recipe names."""

import random
from dataclasses import dataclass
from pathlib import Path

import datasets

from data_scripts.bios_folder import FILES, DataError, check_folder
from data_scripts.birthplace_qa import BirthplaceQA
from data_scripts.file_builder import prepare
from data_scripts.synthetic_bios import invent
from data_scripts.wikipedia_bios import WikipediaBios
from training.arguments import DataArguments

Pairs = list[tuple[str, str]]


@dataclass
class TrainingData:
    """What may be trained on: no dev or test file was opened for it.

    Attributes:
        name: the dataset's name, for results.
        folder: where the four files are.
        documents: biographies.
        train: (question, place) pairs to learn from.
        held_out: pairs kept back from the training file, for tuning without the dev file.
    """

    name: str
    folder: Path
    documents: list[str]
    train: Pairs
    held_out: Pairs


def find_folder(data: DataArguments, seed: int, run_data: Path) -> Path:
    """Return the folder that holds the four files; invented data are written to `run_data` first."""
    if data.source == "folder":
        folder = Path(data.path)
    else:
        folder = run_data / f"synthetic-{data.people}-{seed}"
        if not all((folder / name).is_file() for name in FILES.values()):
            invent(data.people, seed).write(folder)
    check_folder(folder)
    return folder


def read_pairs_of(folder: Path, split: str, cache: Path) -> Pairs:
    """Return a split's (question, place) pairs by way of the `BirthplaceQA` builder."""
    rows = prepare(BirthplaceQA(data_files={split: str(folder / FILES[split])}, cache_dir=str(cache)))[split]
    return list(zip(rows["question"], rows["place"], strict=True))


def load_training_data(data: DataArguments, seed: int, run_data: Path) -> TrainingData:
    """Load documents and training questions.

    Args:
        data: the recipe's section.
        seed: names the invented data, and which questions are held out.
        run_data: the run's own folder, for invented files and the cache.

    Raises:
        DataError: a file is missing or not in the layout, or more questions are to be held out than there are.
    """
    datasets.disable_progress_bars()
    folder = find_folder(data, seed, run_data)
    cache = run_data / "cache"
    documents = prepare(WikipediaBios(data_files={"train": str(folder / FILES["documents"])}, cache_dir=str(cache)))
    pairs = read_pairs_of(folder, "train", cache)
    if data.validation_questions >= len(pairs):
        raise DataError(
            f"{folder / FILES['train']}: {len(pairs)} questions, but data.validation_questions is "
            f"{data.validation_questions}"
        )
    held_out = set(random.Random(seed).sample(range(len(pairs)), data.validation_questions))
    return TrainingData(
        name=folder.resolve().name if data.source == "folder" else f"synthetic_bios({data.people})",
        folder=folder,
        documents=list(documents["train"]["text"]),
        train=[pair for index, pair in enumerate(pairs) if index not in held_out],
        held_out=[pairs[index] for index in sorted(held_out)],
    )


def load_scoring_pairs(data: TrainingData, run_data: Path) -> tuple[str, Pairs]:
    """Return the split to score on and its pairs: the held-out training questions where there are any, else dev."""
    if data.held_out:
        return "held_out", data.held_out
    return "dev", read_pairs_of(data.folder, "validation", run_data / "cache")
