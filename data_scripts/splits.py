"""Get a run's data: invented into its folder, or read from the folder that the recipe names."""

import os
import random
import shutil
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path

import datasets

from configuration.schema import DataArguments
from data_scripts.biographies import Biographies
from data_scripts.bios_folder import FILES, DataError, check_folder, extract_name, sha256_prefix
from data_scripts.birthplace_qa import BirthplaceQA
from data_scripts.file_builder import prepare
from data_scripts.strangers import made_up_names, withhold_people
from data_scripts.synthetic_bios import invent
from modeling_minigpt.tokenization_minigpt import refuse_special_tokens

Pairs = list[tuple[str, str]]


@dataclass
class TrainingData:
    """What may be trained on: no dev or test file was opened for it.

    Attributes:
        name: the dataset's name, for results.
        folder: where the four files are.
        documents: biographies to learn from, in which nobody withheld is named.
        withheld_documents: the others, from which nothing is learned.
        train: (question, place) pairs to learn from.
        held_out: pairs of the training file that are not trained on, for tuning without the dev file.
        calibration: pairs of it that are not trained on, to calibrate the confidence.
        withheld: pairs of it that are not trained on, whose people are in no document either.
        split: what identifies the part of the data that is learned from; two models with equal ones learned the same.
    """

    name: str
    folder: Path
    documents: list[str]
    withheld_documents: list[str]
    train: Pairs
    held_out: Pairs
    calibration: Pairs
    withheld: Pairs
    split: dict


def find_folder(data: DataArguments, seed: int, run_data: Path) -> Path:
    """Return the folder of the four files; invented data are written to `run_data` first."""
    if data.source == "folder":
        folder = Path(data.path)
    else:
        folder = run_data / f"synthetic-{data.people}-{seed}"
        if not all((folder / name).is_file() for name in FILES.values()):
            partial = folder.with_name(f".{folder.name}.partial")
            invent(data.people, seed).write(partial)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)  # a kill leaves no file that is cut short
    check_folder(folder)
    return folder


def read_pairs_of(folder: Path, split: str, cache: Path) -> Pairs:
    """Return a split's (question, place) pairs by way of the `BirthplaceQA` builder.

    Raises:
        DataError: as `read_pairs`, or a special token in a line, which would end its question or its answer.
    """
    path = folder / FILES[split]
    rows = prepare(BirthplaceQA(data_files={split: str(path)}, cache_dir=str(cache)))[split]
    pairs = list(zip(rows["question"], rows["place"], strict=True))
    try:
        refuse_special_tokens("".join(pair) for pair in pairs)
    except ValueError as error:  # "line NUMBER: …"
        raise DataError(f"{path}:{str(error).removeprefix('line ')}") from error
    return pairs


def load_training_data(data: DataArguments, seed: int, run_data: Path) -> TrainingData:
    """Load documents and training questions.

    Args:
        data: the recipe's section.
        seed: of the invented data; which questions are held out does not depend on it.
        run_data: the run's own folder, for invented files and the cache.

    Raises:
        DataError: a file is missing or not in the layout, or nothing would be left to learn from.
    """
    datasets.disable_progress_bars()
    folder = find_folder(data, seed, run_data)
    cache = run_data / "cache"
    documents = prepare(Biographies(data_files={"train": str(folder / FILES["documents"])}, cache_dir=str(cache)))
    # The order matters: the first two parts stay the same people when a run also holds some out for tuning.
    calibration, withheld, held_out, train = split_pairs(
        read_pairs_of(folder, "train", cache),
        [data.calibration_questions, data.withheld_people, data.validation_questions],
        folder / FILES["train"],
    )
    if strange := [question for question, _ in withheld if extract_name(question) == question]:
        raise DataError(f"{folder / FILES['train']}: {strange[0]!r} names nobody who could be withheld")
    kept, withheld_documents = withhold_people(
        documents["train"]["text"], (extract_name(question) for question, _ in withheld)
    )
    if not kept:
        raise DataError(
            f"{folder / FILES['documents']}: every line names a withheld person; lower data.withheld_people"
        )
    return TrainingData(
        name=folder.resolve().name if data.source == "folder" else f"synthetic_bios({data.people})",
        folder=folder,
        documents=kept,
        withheld_documents=withheld_documents,
        train=train,
        held_out=held_out,
        calibration=calibration,
        withheld=withheld,
        split={
            "documents": sha256_prefix(folder / FILES["documents"]),
            "questions": sha256_prefix(folder / FILES["train"]),
            "calibration_questions": data.calibration_questions,
            "withheld_people": data.withheld_people,
        },
    )


def split_pairs(pairs: Pairs, sizes: list[int], path: Path) -> list[Pairs]:
    """Draw parts of the given sizes, and return them and what is left, each in the file's order.

    A person who is asked for twice stays in one part, so a part may be larger by those.

    Raises:
        DataError: nothing would be left.
    """
    people: dict[str, list[int]] = {}
    for index, (question, _) in enumerate(pairs):
        people.setdefault(extract_name(question), []).append(index)
    groups = list(people.values())
    # A fixed seed, not the run's: models of several seeds hold out the same people, so that they can be compared, and
    # a finetuning that starts from another run's model does not meet the people it is scored on.
    random.Random("held out").shuffle(groups)
    if sum(sizes) >= len(groups):
        raise DataError(
            f"{path}: asks for {len(groups)} people, but the recipe holds out {sum(sizes)} "
            "(data.validation_questions, data.calibration_questions and data.withheld_people)"
        )
    bounds = [0, *accumulate(sizes), len(groups)]
    return [
        [pairs[index] for index in sorted(chain.from_iterable(groups[first:last]))] for first, last in pairwise(bounds)
    ]


def made_up_people(data: TrainingData, fold: str, count: int) -> list[str]:
    """Return names of people who do not exist, from the words of the training questions' names."""
    # Real people who may be in no document: a made-up name must not be theirs by chance.
    held_back = [*data.held_out, *data.calibration, *data.withheld]
    return made_up_names(
        [extract_name(question) for question, _ in data.train],
        [*data.documents, *data.withheld_documents],
        count,
        fold=fold,
        others=[extract_name(question) for question, _ in held_back],
    )


def load_scoring_pairs(data: TrainingData, run_data: Path) -> tuple[str, Pairs]:
    """Return the split to score on and its pairs: the held-out training questions where there are any, else dev."""
    if data.held_out:
        return "held_out", data.held_out
    return "dev", read_pairs_of(data.folder, "validation", run_data / "cache")
