"""The question that a model learns to answer: from a name to its question and back."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class QuestionTemplate:
    """A question with one `{name}` in it, such as "Where was {name} born?".

    Raises:
        ValueError: the template does not hold `{name}` exactly once.
    """

    template: str

    def __post_init__(self):
        if self.template.count("{name}") != 1:
            raise ValueError(f"a question template holds {{name}} exactly once, found {self.template!r}")

    @property
    def prefix(self) -> str:
        """What stands before the name."""
        return self.template.partition("{name}")[0]

    @property
    def suffix(self) -> str:
        """What stands after the name."""
        return self.template.partition("{name}")[2]

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a person may type for it: in any case, and the question mark may be missing; its group is the name."""
        before = self.prefix
        after = self.suffix.removesuffix("?")
        return re.compile(rf"{re.escape(before)}(?P<name>.+){re.escape(after)}\s*\??", re.IGNORECASE)

    def format(self, name: str) -> str:
        """Return the question about a name."""
        return f"{self.prefix}{name}{self.suffix}"

    def extract_name(self, question: str) -> str | None:
        """Return the name that a question is about; None for a question of another form."""
        name = question.removeprefix(self.prefix).removesuffix(self.suffix)
        return name if name and self.format(name) == question else None


BIRTHPLACE = QuestionTemplate("Where was {name} born?")
