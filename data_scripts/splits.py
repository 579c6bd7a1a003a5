"""A run's data: what may be trained on, what is held back, and what is scored, from the prepared corpus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from configuration.schema import Recipe
from data_scripts.bios_folder import FILES, read_questions
from data_scripts.corpus import SizedIterable
from data_scripts.prepare import DIVIDED, find_files, prepare
from data_scripts.questions import Question
from data_scripts.strangers import made_up_names
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation


@dataclass
class TrainingData:
    """What may be trained on, and what is held back from it.

    Attributes:
        name: the dataset's name, for results.
        folder: the corpus's.
        documents: biographies to learn from, in which nobody withheld is named.
        withheld_documents: the others, from which nothing is learned.
        train: questions to learn from.
        held_out: questions of training people that are not trained on, for tuning without those that are scored.
        calibration: the same, to calibrate the confidence.
        withheld: the same, whose people are in no document either.
        relations: those that are asked for, the main one first.
        source_info: where the data are from: "source", "revision", "license" and "attribution", as far as known.
        inputs: digests of what is learned from, by name.
        titles: of the documents, the names that a table gives; none where they are not known.
        open_scored: returns the questions that are scored; nothing else opens them.
        open_test: returns the questions of a folder's file without answers, or the test questions of any other source,
            in their order.
    """

    name: str
    folder: Path
    documents: SizedIterable[str]
    withheld_documents: SizedIterable[str]
    train: SizedIterable[Question]
    held_out: Sequence[Question]
    calibration: Sequence[Question]
    withheld: Sequence[Question]
    relations: tuple[Relation, ...] = (BIRTHPLACE,)
    source_info: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    titles: SizedIterable[str] = ()
    open_scored: Callable[[], SizedIterable[Question]] = tuple
    open_test: Callable[[], Sequence[Question]] = tuple

    @property
    def held_back(self) -> tuple[Sequence[Question], Sequence[Question], Sequence[Question]]:
        """The questions of training people that are not trained on."""
        return self.held_out, self.calibration, self.withheld


def load_training_data(recipe: Recipe, run_data: Path) -> TrainingData:
    """Open a recipe's corpus, prepared where it is not there yet.

    Args:
        recipe: what is run.
        run_data: the run's folder for data.

    Raises:
        DataError: as `prepare`.
    """
    corpus = prepare(recipe, run_data)
    relations = tuple(relation for relation in corpus.relations if relation.name in recipe.relations)
    return TrainingData(
        name=corpus.record["name"],
        folder=corpus.folder,
        documents=corpus.documents,
        withheld_documents=corpus.withheld_documents,
        train=corpus.questions("train", relations),
        held_out=list(corpus.questions("held_out", relations)),
        calibration=list(corpus.questions("calibration", relations)),
        withheld=list(corpus.questions("withheld", relations)),
        relations=relations,
        source_info=corpus.record["source"],
        inputs=corpus.record["inputs"],
        titles=corpus.titles,
        open_scored=partial(open_scored, recipe, run_data, relations),
        open_test=partial(open_test, recipe, run_data, relations),
    )


def open_scored(recipe: Recipe, run_data: Path, relations: Sequence[Relation]) -> SizedIterable[Question]:
    """Return the questions that are scored; DataError where the source's file of them is not in the layout."""
    return prepare(recipe, run_data, scored=True).questions("dev", relations)


def open_test(recipe: Recipe, run_data: Path, relations: Sequence[Relation]) -> list[Question]:
    """Return the questions of the file without answers, or of the split `test`, in their order; none without either.

    Raises:
        DataError: the file cannot be read.
    """
    if recipe.data.source not in DIVIDED:
        return list(prepare(recipe, run_data).questions("test", relations))
    path = find_files(recipe, run_data) / FILES["test"]
    return read_questions(path, relations, answered=False) if path.is_file() else []


def made_up_people(data: TrainingData, fold: str, count: int) -> list[str]:
    """Return names of people who do not exist, from the words of the training questions' names."""
    # Real people who may be in no document: a made-up name must not be theirs by chance.
    held_back = chain.from_iterable(data.held_back)
    return made_up_names(
        [question.name for question in data.train],
        chain(data.documents, data.withheld_documents),
        count,
        fold=fold,
        others=[question.name for question in held_back],
    )


def load_scoring_questions(data: TrainingData) -> tuple[str, SizedIterable[Question]]:
    """Return the split to score on and its questions: those held out of training if there are any, else dev."""
    if data.held_out:
        return "held_out", data.held_out
    return "dev", data.open_scored()
