"""A question about a person, with the answers that are right."""

from typing import NamedTuple

from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation


class Question(NamedTuple):
    """One question of a data set.

    Attributes:
        text: in the wording of training.
        name: of the person asked about.
        relation: the name of what is asked for.
        answers: those that are right, the one to learn first; empty where nobody says.
    """

    text: str
    name: str
    relation: str
    answers: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The answer to learn."""
        return self.answers[0]

    def training_text(self, sentinel: str) -> str:
        """Return `question⁇answer⁇`; the loss counts what follows the first sentinel only."""
        return f"{self.text}{sentinel}{self.answer}{sentinel}"


def question_about(name: str, *answers: str, relation: Relation = BIRTHPLACE) -> Question:
    """Return the question of a relation about a name, with its answers."""
    return Question(relation.format(name), name, relation.name, answers)
