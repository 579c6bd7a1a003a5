"""What a pipeline knows beside the weights: each relation's candidates, and the names of training."""

from collections.abc import Iterable, Sequence

from data_scripts.questions import Question
from data_scripts.splits import TrainingData
from data_scripts.titles import split_title
from evaluation.baselines import popular_places
from modeling_minigpt.relations_minigpt import Relation

MAX_NAMES = 2_000_000  # of which the file beside the weights has some 30 MB


def questions_of(relation: Relation, questions: Iterable[Question]) -> list[Question]:
    """Return the questions of one relation, in their order."""
    return [question for question in questions if question.relation == relation.name]


def find_candidates(relations: Sequence[Relation], train: Sequence[Question]) -> dict[str, list[str]]:
    """Return each relation's candidates: the training answers of all relations with answers of its kind.

    A person may have studied where nobody of training did, but somebody was born.
    """
    kinds = {relation.name: relation.answers for relation in relations}
    by_kind = {
        kind: popular_places(question.answer for question in train if kinds[question.relation] == kind)
        for kind in dict.fromkeys(kinds.values())
    }
    return {name: by_kind[kind] for name, kind in kinds.items()}


def training_names(data: TrainingData) -> list[str]:
    """Return the names of the people in training, in order of first appearance; none where they are too many.

    They are the titles of the documents, and the names that training questions ask about.
    """
    asked = [question.name for question in data.train]
    people = {*asked, *(question.name for part in data.held_back for question in part)}
    names: dict[str, None] = dict.fromkeys(asked)  # a dict as an ordered set
    titles = data.titles if len(data.titles) else (split_title(document, people)[0] for document in data.documents)
    for title in titles:
        # The full stop of "Bo Lind Jr." is the name's own, but a title has none.
        if title:
            names[f"{title}." if title not in people and f"{title}." in people else title] = None
        if len(names) > MAX_NAMES:
            return []
    return list(names)
