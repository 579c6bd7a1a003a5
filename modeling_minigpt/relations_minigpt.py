"""Relations: what a model is asked about people, as data. The birthplace is one of them, and the default."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .questions_minigpt import QuestionTemplate, is_no_name

# Beginnings of a biography that ask for nothing in particular; a person seen in training is recalled after them, too.
GENERAL_PROMPTS = ("{name}. and", "{name}.")


@dataclass(frozen=True)
class Relation:
    """One kind of fact: the question that asks for it, and all that a model needs to know to answer that.

    Attributes:
        name: as in results, "birthplace".
        question: the wording that training uses, "Where was {name} born?".
        prompts: beginnings of biographies that ask the same, "{name}. born in"; the confidence compares what the
            model recalls after each.
        paraphrases: other wordings that are understood, "In what city was {name} born?".
        answers: the kind of the answers, "place"; relations of one kind share their candidates.

    Raises:
        ValueError: a wording or a prompt has `{name}` not exactly once, or is there twice.
    """

    name: str
    question: str
    prompts: tuple[str, ...] = GENERAL_PROMPTS
    paraphrases: tuple[str, ...] = ()
    answers: str = "place"

    def __post_init__(self):
        for texts in (self.wordings, self.prompts):
            for text in texts:
                QuestionTemplate(text)
                if texts.count(text) > 1:
                    raise ValueError(f"relation {self.name}: {text!r} is given twice")

    @property
    def wordings(self) -> tuple[str, ...]:
        """The question and its paraphrases."""
        return (self.question, *self.paraphrases)

    @cached_property
    def templates(self) -> tuple[QuestionTemplate, ...]:
        """The question's template, and those of its paraphrases."""
        return tuple(map(QuestionTemplate, self.wordings))

    def format(self, name: str) -> str:
        """Return the question about a name, in the wording of training."""
        return self.templates[0].format(name)

    def match(self, text: str, is_name: Callable[[str], bool] = is_no_name) -> str | None:
        """Return the name that a normalised text asks about in any of the wordings; None for any other text.

        `is_name` is as `QuestionTemplate.match` takes it.
        """
        return next((name for template in self.templates if (name := template.match(text, is_name))), None)


BIRTHPLACE = Relation(
    name="birthplace", question="Where was {name} born?", prompts=("{name}. born in", *GENERAL_PROMPTS)
)


def match_relations(
    relations: Sequence[Relation], text: str, is_name: Callable[[str], bool] = is_no_name
) -> list[tuple[Relation, str]]:
    """Return each relation that a normalised text asks for, with the name that it asks about.

    `is_name` is as `QuestionTemplate.match` takes it.
    """
    found = ((relation, relation.match(text, is_name)) for relation in relations)
    return [(relation, name) for relation, name in found if name is not None]
