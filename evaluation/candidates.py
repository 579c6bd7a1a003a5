"""Each relation's candidates: the answers of training, by falling frequency."""

from collections.abc import Iterable, Sequence

from data_scripts.questions import Question
from evaluation.baselines import popular_places
from modeling_minigpt.relations_minigpt import Relation


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
