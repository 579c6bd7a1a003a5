"""The question that a model learns to answer: from a name to its question and back, however people type it."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

# A name that is longer is a sentence, and asking about it would be a guess.
NAME_WORDS = 8
NAME_CHARACTERS = 80
QUOTES = "\"'`“”„‟«»‹›‘’‚‛「」『』"
QUESTION_MARKS = "?？؟"
END_MARKS = QUESTION_MARKS + "!！.。"  # what may end a question in place of its own mark
# Marks that word processors and phones put in place of those on a keyboard: one character for one, so that what is
# found in a text written with these has the same position in the text as it was typed.
PLAIN_MARKS = str.maketrans(dict.fromkeys("’‘‛ʼ", "'") | dict.fromkeys("–—‐‑‒−", "-"))
# Words that no name has, in any case. Those that are names, too ("Can", "Will", "Do", "Are"), are not among them.
OTHER_WORDS = frozenset(
    ["who", "whom", "whose", "whoever", "what", "whats", "when", "where", "wherever", "which", "why", "how", "is",
     "was", "were", "isn't", "wasn't", "weren't", "am", "has", "had", "hasn't", "hadn't", "did", "didn't", "does",
     "doesn't", "don't", "tell", "told", "please", "know", "knows", "died", "buried", "married", "lived", "birth",
     "birthplace", "birthday", "birthdate"]
)  # fmt: skip
# Such a word begins another question only before one of these: "Can you tell …", but "Can Yaman".
AUXILIARIES = frozenset(
    ["are", "can", "could", "will", "would", "should", "shall", "may", "might", "do", "have"]
)  # fmt: skip
PRONOUNS = frozenset(
    ["you", "i", "we", "he", "she", "they", "it", "this", "that", "these", "those", "there", "the", "a", "an"]
)  # fmt: skip
# What a name may begin with in lower case, though the rest of it has capitals: "van Gogh".
PARTICLES = frozenset(
    ["a", "ab", "af", "al", "an", "ap", "av", "bar", "ben", "bin", "da", "dal", "das", "de", "dei", "del", "della",
     "den", "der", "des", "di", "do", "dos", "du", "e", "el", "i", "ibn", "la", "las", "le", "les", "lo", "los",
     "mac", "mc", "o", "of", "san", "st", "ter", "the", "till", "tho", "tom", "und", "van", "vom", "von", "y", "zu",
     "zum", "zur"]
)  # fmt: skip
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# "Stone." ends a sentence; "Jr.", "C.K." and "A." end with their own full stop.
ABBREVIATION = re.compile(r"(?:\w\.)+\w?\.|[^\W\d_]{1,3}\.")


def normalise(text: str) -> str:
    """Return a text as it is compared and learned: in NFC, without format characters, white space folded.

    "e" and a combining accent become "é"; soft hyphens, zero-width spaces and direction marks, which nobody sees, go;
    a no-break space, a tab or a run of spaces becomes one space, and none is left at the ends.
    """
    composed = unicodedata.normalize("NFC", text)
    if not composed.isascii():
        composed = "".join(character for character in composed if unicodedata.category(character) != "Cf")
        composed = unicodedata.normalize("NFC", composed)  # what a format character had separated may compose now
    return " ".join(composed.split())


def strip_quotes(text: str) -> str:
    """Remove quotation marks around a whole text, but none of a part: `"Ada"`, not `Bo "Red" Lind`."""
    while len(text) > 1 and text[0] in QUOTES and text[-1] in QUOTES and not set(text[1:-1]) & {text[0], text[-1]}:
        text = text[1:-1].strip()
    return text


def is_other_question(text: str) -> bool:
    """Return whether a text is a question or a statement rather than a name, whatever its punctuation.

    "When was Ada Stone born", "Ada Stone is a liar" and "can you help me" are; "Can Yaman" and "Will Smith" are names.
    """
    found = WORD.findall(text)
    words = [word.casefold().replace("’", "'") for word in found]
    # "nationality of Ada Stone" begins as no name does: in lower case, though it has capitals.
    if found and found[0].islower() and words[0] not in PARTICLES and any(word[0].isupper() for word in found):
        return True
    asks = len(words) > 1 and words[0] in AUXILIARIES and words[1] in PRONOUNS
    # Surnames are spared: Alby Why and Cal How are people, and no question ends with such a word.
    return asks or not OTHER_WORDS.isdisjoint(words[:-1] or words)


def is_no_name(text: str) -> bool:
    """Return False: no text is known as a name."""
    return False


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

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a person may type for it, in `PLAIN_MARKS`: in any case, ended by any marks or none."""
        # "where was Ada Stone born" is the question, too: people type names, not templates.
        before, _, after = normalise(self.template).translate(PLAIN_MARKS).partition("{name}")
        after = after.rstrip(END_MARKS + " ")  # the space is that of French, "né {name} ?"
        # Without a word after the name, its own full stop, as in "Jr.", is separated from the end marks by `match`.
        end = rf"{re.escape(after)}[\s{re.escape(END_MARKS)}]*" if after else ""
        name = "(?P<name>.+?)" if after else "(?P<name>.+)"
        return re.compile(rf"[¿\s]*{re.escape(before)}{name}{end}", re.IGNORECASE)

    def format(self, name: str) -> str:
        """Return the question about a name."""
        # Not `str.format`: a name may have braces.
        return f"{self.prefix}{name}{self.suffix}"

    def extract_name(self, question: str) -> str | None:
        """Return the name that a question is about; None for a question of another form."""
        # Formatted again, the name must give the question back: removing a prefix that is not there changes nothing.
        name = question.removeprefix(self.prefix).removesuffix(self.suffix)
        return name if name and self.format(name) == question else None

    def match(self, question: str, is_name: Callable[[str], bool] = is_no_name) -> str | None:
        """Return the name in a normalised question, whatever its case and its end; None for any other text.

        Args:
            is_name: returns whether a text is known as a name, whatever words and marks it has.
        """
        asked = self.pattern.fullmatch(question.translate(PLAIN_MARKS))
        if asked is None:
            return None
        name = question[slice(*asked.span("name"))].strip()
        # The pattern ends with the name only where no word of the template follows it.
        stripped = strip_end_marks(name) if asked.end("name") == len(question) else name
        # "Who taught Wham!?" asks about Wham! where that is a name, else about Wham.
        spellings = (name[:length].rstrip() for length in range(len(name), len(stripped) - 1, -1))
        known = next((one for text in spellings for one in (text, strip_quotes(text)) if is_name(one)), None)
        if known is not None:
            return known
        name = strip_quotes(stripped)
        # "Where was When was Ada Stone born born?" asks for nobody; "Where was Why born?" asks for Why.
        is_other = set(name) & set(QUESTION_MARKS) or (" " in name and is_other_question(name))
        return None if not name or is_other else name


def strip_end_marks(name: str) -> str:
    """Remove the marks that end a name typed as a sentence: of "Ada Stone.", but not of "Bo Lind Jr."."""
    stripped = name.rstrip(END_MARKS + " ")
    last = name[: len(stripped) + 1].split()[-1:] if stripped else []
    if last and ABBREVIATION.fullmatch(last[0]):
        return name[: len(stripped) + 1]
    return stripped


BIRTHPLACE = QuestionTemplate("Where was {name} born?")
