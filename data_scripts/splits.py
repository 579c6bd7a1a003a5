"""Get a run's data: invented into its folder, or read from the folder that the recipe names."""

import hashlib
import os
import shutil
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import datasets

from configuration.schema import DataArguments
from data_scripts.biographies import Biographies
from data_scripts.bios_folder import FILES, DataError, asked_relations, check_folder, read_questions
from data_scripts.file_builder import prepare
from data_scripts.questions import Question
from data_scripts.strangers import made_up_names, withhold_people
from data_scripts.synthetic_bios import invent
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.tokenization_minigpt import refuse_special_tokens


@dataclass
class TrainingData:
    """What may be trained on: no dev or test file was opened for it.

    Attributes:
        name: the dataset's name, for results.
        folder: where the four files are.
        documents: biographies to learn from, in which nobody withheld is named.
        withheld_documents: the others, from which nothing is learned.
        train: questions to learn from.
        held_out: questions of the training file that are not trained on, for tuning without the dev file.
        calibration: questions of it that are not trained on, to calibrate the confidence.
        withheld: questions of it that are not trained on, whose people are in no document either.
        relations: those that are asked for, the main one first.
        source_info: where the data are from: "source", "revision", "license" and "attribution", as far as known.
    """

    name: str
    folder: Path
    documents: list[str]
    withheld_documents: list[str]
    train: list[Question]
    held_out: list[Question]
    calibration: list[Question]
    withheld: list[Question]
    relations: tuple[Relation, ...] = (BIRTHPLACE,)
    source_info: dict[str, str] = field(default_factory=dict)

    @property
    def held_back(self) -> tuple[list[Question], list[Question], list[Question]]:
        """The questions of the training file that are not trained on."""
        return self.held_out, self.calibration, self.withheld


def find_folder(data: DataArguments, seed: int, run_data: Path, relations: Sequence[Relation]) -> Path:
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
    check_folder(folder, relations)
    return folder


def read_split(folder: Path, split: str, relations: Sequence[Relation]) -> list[Question]:
    """Return a split's questions.

    Raises:
        DataError: as `read_questions`, or a special token in a line, which would end its question or its answer.
    """
    path = folder / FILES[split]
    questions = read_questions(path, relations)
    check_special_tokens(path, [question.text + question.answer for question in questions])
    return questions


def check_special_tokens(path: Path, lines: Iterable[str]) -> None:
    """Raise DataError, with the file's line, where a line has a token that ends questions and answers."""
    try:
        refuse_special_tokens(lines)
    except ValueError as error:  # "line NUMBER: …"
        raise DataError(f"{path}:{str(error).removeprefix('line ')}") from error


def load_training_data(
    data: DataArguments,
    seed: int,
    run_data: Path,
    relations: Sequence[Relation] = (BIRTHPLACE,),
    optional: Container[str] = (),
) -> TrainingData:
    """Load documents and training questions.

    Args:
        data: the recipe's section.
        seed: of the invented data; which questions are held out does not depend on it.
        run_data: the run's own folder, for invented files and the cache.
        relations: those whose questions the files may have.
        optional: names of those of which there may be no question.

    Raises:
        DataError: a file is missing or not in the layout, a relation has no question, or nothing would be left to
            learn from.
    """
    datasets.disable_progress_bars()
    folder = find_folder(data, seed, run_data, relations)
    cache = run_data / "cache"
    path = folder / FILES["documents"]
    documents = prepare(Biographies(data_files={"train": str(path)}, cache_dir=str(cache)))["train"]["text"]
    check_special_tokens(path, documents)  # of all lines: withheld people's are taken out below
    questions = read_split(folder, "train", relations)
    relations = asked_relations(questions, relations, optional, folder / FILES["train"])
    # The order matters: the first two parts stay the same people when a run also holds some out for tuning.
    calibration, withheld, held_out, train = split_questions(
        questions,
        [data.calibration_questions, data.withheld_people, data.validation_questions],
        folder / FILES["train"],
    )
    kept, withheld_documents = withhold_people(documents, (question.name for question in withheld))
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
        relations=relations,
    )


def split_questions(questions: Sequence[Question], sizes: list[int], path: Path) -> list[list[Question]]:
    """Draw parts of the given sizes, and return them and what is left, each in the file's order.

    A part is the people whose names have the smallest hashes, so a line more or less moves one person at most into a
    part or out of it, whatever its place in the file. A person who is asked for twice stays in one part.

    Raises:
        DataError: nothing would be left.
    """
    people: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        people.setdefault(question.name, []).append(index)
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
    return [[questions[index] for index in sorted(chain.from_iterable(part))] for part in parts]


def hash_of(text: str) -> bytes:
    """Return the hash by which people are drawn, the same on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def made_up_people(data: TrainingData, fold: str, count: int) -> list[str]:
    """Return names of people who do not exist, from the words of the training questions' names."""
    # Real people who may be in no document: a made-up name must not be theirs by chance.
    held_back = chain.from_iterable(data.held_back)
    return made_up_names(
        [question.name for question in data.train],
        [*data.documents, *data.withheld_documents],
        count,
        fold=fold,
        others=[question.name for question in held_back],
    )


def load_scoring_questions(data: TrainingData) -> tuple[str, list[Question]]:
    """Return the split to score on and its questions: those held out of training if there are any, else dev."""
    if data.held_out:
        return "held_out", data.held_out
    return "dev", read_split(data.folder, "validation", data.relations)
