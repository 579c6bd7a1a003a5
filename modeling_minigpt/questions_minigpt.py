"""The question that a model learns to answer: from a name to its question and back, however people type it."""

import re
import unicodedata
from dataclasses import dataclass

# A name that is longer is a sentence, and asking about it would be a guess.
NAME_WORDS = 8
NAME_CHARACTERS = 80
QUOTES = "\"'`“”„‟«»‹›‘’‚‛「」『』"
QUESTION_MARKS = "?？؟"
END_MARKS = QUESTION_MARKS + "!！.。"  # what may end a question in place of its own mark
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
        """What a person may type for it: in any case, ended by any marks or none; its group is the name."""
        # "where was Ada Stone born" is the question, too: people type names, not templates.
        before = re.escape(self.prefix)
        after = re.escape(self.suffix.rstrip(END_MARKS))
        return re.compile(rf"[¿\s]*{before}(?P<name>.+?){after}[\s{re.escape(END_MARKS)}]*", re.IGNORECASE)

    def format(self, name: str) -> str:
        """Return the question about a name."""
        # Not `str.format`: a name may have braces.
        return f"{self.prefix}{name}{self.suffix}"

    def extract_name(self, question: str) -> str | None:
        """Return the name that a question is about; None for a question of another form."""
        # Formatted again, the name must give the question back: removing a prefix that is not there changes nothing.
        name = question.removeprefix(self.prefix).removesuffix(self.suffix)
        return name if name and self.format(name) == question else None

    def parse_name(self, text: object) -> str:
        """Return the normalised name that `text`, a name or this question as a person types it, asks about.

        Raises:
            ValueError: it is neither; the message is the reason.
        """
        if not isinstance(text, str):
            raise ValueError(f"not a text but {type(text).__name__}")
        if "\n" in text.strip() or len(text) > 10 * NAME_CHARACTERS:  # several lines, or no name however it is folded
            raise ValueError(self.refusal)
        line = strip_quotes(normalise(text))
        asked = self.match(line)
        name = asked or strip_quotes(strip_end_marks(line))
        if not any(character.isalpha() for character in name):
            raise ValueError("no name in it")
        # Whatever ends with a question mark is a question, in languages too whose words are not listed here.
        is_other = asked is None and (set(line) & set(QUESTION_MARKS) or is_other_question(name))
        if is_other or len(name) > NAME_CHARACTERS or len(name.split()) > NAME_WORDS:
            raise ValueError(self.refusal)
        return name

    def match(self, question: str) -> str | None:
        """Return the name in a normalised question, whatever its case and its end; None for any other text."""
        asked = self.pattern.fullmatch(question)
        name = strip_quotes(asked["name"].strip()) if asked else ""
        # "Where was When was Ada Stone born born?" asks for nobody; "Where was Why born?" asks for Why.
        is_other = set(name) & set(QUESTION_MARKS) or (" " in name and is_other_question(name))
        return None if not name or is_other else name

    @property
    def refusal(self) -> str:
        """Why a text that is neither a name nor the question gets no answer."""
        return f'neither a name nor "{self.format("NAME")}"'


def strip_end_marks(name: str) -> str:
    """Remove the marks that end a name typed as a sentence: of "Ada Stone.", but not of "Bo Lind Jr."."""
    stripped = name.rstrip(END_MARKS + " ")
    last = name[: len(stripped) + 1].split()[-1:] if stripped else []
    if last and ABBREVIATION.fullmatch(last[0]):
        return name[: len(stripped) + 1]
    return stripped


BIRTHPLACE = QuestionTemplate("Where was {name} born?")
