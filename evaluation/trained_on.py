"""What a model's weights were trained on: the one record that calibration, withheld people and certificates consult.

`trained_on.json` lies beside the weights and has the hashes of two sets of names: of the people that documents name,
and of those whose questions came with their answers. It counts what the model itself learned and all that the models
had learned from which it started, so that no chain of runs, whatever their recipes, hides a name. It says which
weights it is of, for others may be saved into the folder: a model that was trained further, or another one.

Names are of people, not of people and relations: whoever was asked about with an answer, whatever the question, is no
calibration person of any relation. One answer that was trained on, where somebody studied, also says something about
where that person was born.
"""

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from transformers import PreTrainedModel

from artifacts.weights_digest import stored_weights_digest
from configuration.schema import StageArguments
from data_scripts.person_splits import hash_of, name_key
from data_scripts.phrases import AnswerFinder, capitalised_phrases
from data_scripts.questions import Question
from data_scripts.splits import TrainingData
from data_scripts.titles import split_title
from modeling_minigpt.source_minigpt import WeightsSource

RECORD = "trained_on.json"


def hash_name(name: str) -> str:
    """Return the hash of a name, however it is written, by which the splits, too, take people for the same."""
    return hash_of(name_key(name)).hex()


def count_known(questions: Sequence[Question], known: Set[str]) -> int:
    """Count the questions whose people are known, by the hashes of their names."""
    return sum(hash_name(question.name) in known for question in questions)


@dataclass(frozen=True)
class TrainedOn:
    """Hashes of the names in what a model was trained on.

    Attributes:
        documents: of the people named in documents.
        questions: of the people asked about, with the answers.
        missing: the models among those that it started from which left no record, by their names.
        weights: the digest of the weights that it is of; None in records of older versions, and until it is written.
    """

    documents: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    weights: str | None = None

    def __or__(self, other: "TrainedOn") -> "TrainedOn":
        missing = tuple(dict.fromkeys((*self.missing, *other.missing)))
        return TrainedOn(self.documents | other.documents, self.questions | other.questions, missing)

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        sets = {"documents": sorted(self.documents), "questions": sorted(self.questions)}
        return json.dumps({**sets, "missing": list(self.missing), "weights": self.weights}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainedOn":
        """Read what `to_json` wrote; ValueError, KeyError or TypeError for anything else."""
        values = json.loads(text)
        parts = [values["documents"], values["questions"], values["missing"]]
        if not all(isinstance(part, list) and all(isinstance(one, str) for one in part) for part in parts):
            raise ValueError("wanted lists of hashes and of names")
        weights = values.get("weights")
        if not isinstance(weights, str | None):
            raise TypeError(f"weights must be a digest, found {weights!r:.80}")
        return cls(frozenset(parts[0]), frozenset(parts[1]), tuple(parts[2]), weights)

    def explain_calibration(self, questions: Sequence[Question]) -> str | None:
        """Return why the confidence cannot be calibrated on these people; None where it can."""
        return self._explain(questions, self.questions, "calibration people: their answers were trained on")

    def explain_withheld(self, questions: Sequence[Question]) -> str | None:
        """Return why these people are no strangers to the model; None where they are."""
        return self._explain(questions, self.documents | self.questions, "withheld people: they were trained on")

    def _explain(self, questions: Sequence[Question], known: frozenset[str], what: str) -> str | None:
        if self.missing and questions:
            return f"{self.missing[0]} does not say what it was trained on ({RECORD}), perhaps on these people"
        # All or none: whoever is left of them would be a sample that the earlier run has chosen.
        seen = count_known(questions, known)
        return f"{seen} of the {len(questions)} {what}" if seen else None


def names_in(documents: Iterable[str], people: Iterable[str]) -> Iterable[str]:
    """Yield the names in documents: their titles, capitalised phrases of several words, and any of `people`."""
    # There is no tagger here that separates people from places. A name too many only makes the record more careful.
    names = set(people)
    finder = AnswerFinder(names)
    for document in documents:
        yield split_title(document, names)[0]
        yield from (document[start:end] for start, end in finder.find(document))
        phrases = (document[start:end] for start, end in capitalised_phrases(document))
        yield from (phrase for phrase in phrases if " " in phrase)


def stage_record(data: TrainingData, stage: StageArguments) -> TrainedOn:
    """Return what one stage trains on."""
    documents: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()
    asked = [question.name for question in data.train]
    if stage.question_fraction < 1.0:
        people = [*asked, *(question.name for part in data.held_back for question in part)]
        documents = frozenset(map(hash_name, chain(data.titles, names_in(data.documents, people))))
    if stage.question_fraction > 0.0:
        questions = frozenset(map(hash_name, asked))
    return TrainedOn(documents, questions)


def read_record(model: PreTrainedModel) -> TrainedOn:
    """Return the record beside a model's weights, which also names the model where it has none; empty if it is new.

    A record of other weights is none: what these were trained on besides, nobody knows. One that does not say which
    weights it is of, as older versions wrote it, is believed, so that their runs can be continued.

    Raises:
        SourceError: it cannot be known whether there is one.
        ValueError: the file contains something else.
    """
    source: WeightsSource | None = getattr(model, "weights_source", None)
    if source is None:
        return TrainedOn()
    found: TrainedOn | None = source.read_parsed(RECORD, TrainedOn.from_json)
    if found is None:
        return TrainedOn(missing=(source.short_name,))
    if found.weights is not None and found.weights != stored_weights_digest(source):
        return TrainedOn(missing=(f"{source.short_name} with these weights",))
    return found


def write_record(folder: Path, trained_on: TrainedOn) -> None:
    """Write a record beside the weights that are in a folder."""
    weights = stored_weights_digest(WeightsSource.from_arguments(folder, {}))
    (folder / RECORD).write_text(replace(trained_on, weights=weights).to_json(), encoding="utf-8")
