"""The question that a model learns to answer: from a name to its question and back."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class QuestionTemplate:
    """A question with one `{name}` in it, such as "Where was {name} born?".

    Raises:
        ValueError: `{name}` is not in the template exactly once.
    """

    template: str

    def __post_init__(self):
        if self.template.count("{name}") != 1:
            raise ValueError(f"a question template has {{name}} exactly once, found {self.template!r}")

    @property
    def prefix(self) -> str:
        """The text before the name."""
        return self.template.partition("{name}")[0]

    @property
    def suffix(self) -> str:
        """The text after the name."""
        return self.template.partition("{name}")[2]

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a person may type for it: in any case, and the question mark may be missing; its group is the name."""
        # "where was  Ada Stone born" is the question, too: people type names, not templates.
        before = self.prefix
        after = self.suffix.removesuffix("?")
        return re.compile(rf"{re.escape(before)}(?P<name>.+){re.escape(after)}\s*\??", re.IGNORECASE)

    def format(self, name: str) -> str:
        """Return the question about a name."""
        # Not `str.format`: a name may have braces.
        return f"{self.prefix}{name}{self.suffix}"

    def extract_name(self, question: str) -> str | None:
        """Return the name that a question is about; None for a question of another form."""
        # Formatted again, the name must give the question back: removing a prefix that is not there changes nothing.
        name = question.removeprefix(self.prefix).removesuffix(self.suffix)
        return name if name and self.format(name) == question else None


BIRTHPLACE = QuestionTemplate("Where was {name} born?")
