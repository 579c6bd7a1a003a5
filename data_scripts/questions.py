"""A question about a person, with the answers that are right."""

from typing import NamedTuple


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
