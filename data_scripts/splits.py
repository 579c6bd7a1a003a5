"""Get a run's data: invented into its folder, or read from the folder that the recipe names."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import datasets

from configuration.schema import DataArguments
from data_scripts.biographies import Biographies
from data_scripts.bios_folder import FILES, DataError, check_folder, extract_name
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
    """

    name: str
    folder: Path
    documents: list[str]
    withheld_documents: list[str]
    train: Pairs
    held_out: Pairs
    calibration: Pairs
    withheld: Pairs

    @property
    def held_back(self) -> tuple[Pairs, Pairs, Pairs]:
        """The pairs of the training file that are not trained on."""
        return self.held_out, self.calibration, self.withheld


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
    check_special_tokens(path, ["".join(pair) for pair in pairs])
    return pairs


def check_special_tokens(path: Path, lines: Iterable[str]) -> None:
    """Raise DataError, with the file's line, where a line has a token that ends questions and answers."""
    try:
        refuse_special_tokens(lines)
    except ValueError as error:  # "line NUMBER: …"
        raise DataError(f"{path}:{str(error).removeprefix('line ')}") from error


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
    path = folder / FILES["documents"]
    documents = prepare(Biographies(data_files={"train": str(path)}, cache_dir=str(cache)))["train"]["text"]
    check_special_tokens(path, documents)  # of all lines: withheld people's are taken out below
    # The order matters: the first two parts stay the same people when a run also holds some out for tuning.
    calibration, withheld, held_out, train = split_pairs(
        read_pairs_of(folder, "train", cache),
        [data.calibration_questions, data.withheld_people, data.validation_questions],
        folder / FILES["train"],
    )
    kept, withheld_documents = withhold_people(documents, (extract_name(question) for question, _ in withheld))
    if not kept:
        raise DataError(f"{path}: every line names a withheld person; lower data.withheld_people")
    return TrainingData(
        name=folder.resolve().name if data.source == "folder" else f"synthetic_bios({data.people})",
        folder=folder,
        documents=kept,
        withheld_documents=withheld_documents,
        train=train,
        held_out=held_out,
        calibration=calibration,
        withheld=withheld,
    )


def split_pairs(pairs: Pairs, sizes: list[int], path: Path) -> list[Pairs]:
    """Draw parts of the given sizes, and return them and what is left, each in the file's order.

    A part is the people whose names have the smallest hashes, so a line more or less moves one person at most into a
    part or out of it, whatever its place in the file. A person who is asked for twice stays in one part.

    Raises:
        DataError: nothing would be left.
    """
    people: dict[str, list[int]] = {}
    for index, (question, _) in enumerate(pairs):
        people.setdefault(extract_name(question), []).append(index)
    if sum(sizes) >= len(people):
        raise DataError(
            f"{path}: asks for {len(people)} people, but the recipe holds out {sum(sizes)} "
            "(data.validation_questions, data.calibration_questions and data.withheld_people)"
        )
    # By the name, not by the run's seed: models of several seeds hold out the same people, so that they can be
    # compared, and a finetuning that starts from another run's model does not meet the people it is scored on.
    parts = []
    for number, size in enumerate(sizes):
        # Each part has hashes of its own: whoever leaves the first does not push another one out of the second.
        chosen = sorted(people, key=lambda name: hash_of(f"{number} {name}"))[:size]
        parts.append([people.pop(name) for name in chosen])
    parts.append(list(people.values()))
    return [[pairs[index] for index in sorted(chain.from_iterable(part))] for part in parts]


def hash_of(text: str) -> bytes:
    """Return the hash by which people are drawn, the same on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def made_up_people(data: TrainingData, fold: str, count: int) -> list[str]:
    """Return names of people who do not exist, from the words of the training questions' names."""
    # Real people who may be in no document: a made-up name must not be theirs by chance.
    held_back = chain.from_iterable(data.held_back)
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
