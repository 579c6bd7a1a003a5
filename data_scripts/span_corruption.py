"""Span corruption: a biography with parts taken out and put after it, for a causal model to restore.

Two policies (T5's objective, Raffel et al. 2020, section 3.1.4, in a form for decoders):

- `random-span`, the practical's: cut the text to a random length, take out one random span, a quarter on average:
  `prefix⁇suffix⁇masked`.
- `salient-span` (Guu et al. 2020, "REALM", section 3.4): take out names and places rather than anything. In its short
  form each phrase follows the person's name and a few characters of its own context, in random order, much as a
  question would ask for it: `Title. born in⁇Lebanon⁇ is a French⁇journalist⁇`.

A corrupted text is a pure function of (seed, epoch, example id): nothing to store, nothing to resume, the same on one
process or eight. `SpanCorruption` is the same as a `datasets` builder.
"""

import random
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, fields

import datasets

from .bios_folder import read_lines, split_title
from .file_builder import FileBuilder, FileConfig

POLICIES = ("random-span", "salient-span")
MIN_CHARACTERS = 4  # the shortest text the practical cuts to
MAX_SPANS = 1_000  # more than any text has
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class CorruptionOptions:
    """How texts are corrupted; lengths in characters.

    Attributes:
        policy: one of `POLICIES`.
        max_length: longest text before corruption; 7/8 of the model's context under `random-span`.
        short_fraction: share of texts in the short form (`salient-span`).
        salient_fraction: chance that a span is a capitalised phrase, else a run of words (`salient-span`).
        answer_fraction: chance that phrases which answer some training question are taken before others
            (`salient-span`): there is no entity tagger here, but the training answers show what to look for.
        max_spans: most spans of one text (`salient-span`); the number is uniform in [1, max_spans].
        max_context: most characters before a span in the short form; the number is uniform.
    """

    policy: str = "salient-span"
    max_length: int = 112
    short_fraction: float = 0.7
    salient_fraction: float = 0.75
    answer_fraction: float = 0.0
    max_spans: int = 3
    max_context: int = 24

    def __post_init__(self):
        for one in fields(self):
            value, kinds = getattr(self, one.name), (float, int) if one.type is float else (one.type,)
            if type(value) not in kinds:
                raise TypeError(f"{one.name} must be of type {one.type.__name__}, found {value!r}")
        if self.policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, found {self.policy!r}")
        for name in ("short_fraction", "salient_fraction", "answer_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], found {getattr(self, name)}")
        if self.max_length < MIN_CHARACTERS:
            raise ValueError(f"max_length must be at least {MIN_CHARACTERS} characters, found {self.max_length}")
        if not 1 <= self.max_spans <= MAX_SPANS:
            raise ValueError(f"max_spans must be in [1, {MAX_SPANS}], found {self.max_spans}")
        if self.max_context < 0:
            raise ValueError(f"max_context must not be negative, found {self.max_context}")


def random_span(text: str, rng: random.Random, max_length: int, sentinel: str) -> str:
    """Cut `text` to U[4, max_length] characters and take out one span of U[1/8, 3/8] of that, anywhere in it.

    A text too short for that keeps its length and loses at least one character.
    """
    text = text[: rng.randint(MIN_CHARACTERS, max(MIN_CHARACTERS, max_length))]
    length = min(len(text), max(1, round(len(text) * rng.uniform(1 / 8, 3 / 8))))
    start = rng.randint(0, len(text) - length)
    prefix, masked, suffix = text[:start], text[start : start + length], text[start + length :]
    return f"{prefix}{sentinel}{suffix}{sentinel}{masked}"


def capitalised_phrases(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the runs of capitalised words, those joined by a hyphen too."""
    phrases: list[tuple[int, int]] = []
    for match in WORD.finditer(text):
        if not match[0][0].isupper():
            continue
        if phrases and text[phrases[-1][1] : match.start()] in (" ", "-"):
            phrases[-1] = (phrases[-1][0], match.end())
        else:
            phrases.append(match.span())
    return phrases


def salient_phrases(title: str, body: str) -> list[tuple[int, int]]:
    """Return (start, end) of the body's capitalised phrases that say more than the title and do not open the body."""
    known = set(WORD.findall(title))
    return [
        (start, end)
        for start, end in capitalised_phrases(body)
        if start > 0 and known.isdisjoint(WORD.findall(body[start:end]))
    ]


def choose_spans(
    title: str, body: str, rng: random.Random, options: CorruptionOptions, answers: Set[str]
) -> list[tuple[int, int]]:
    """Choose up to `max_spans` disjoint spans of the body, in random order: phrases, or runs of one to four words."""
    phrases = salient_phrases(title, body)
    rng.shuffle(phrases)
    if answers and rng.random() < options.answer_fraction:
        phrases.sort(key=lambda span: body[slice(*span)] in answers)  # the last is taken first
    words = [match.span() for match in WORD.finditer(body)]
    if not words:
        return [(0, len(body))]
    chosen: list[tuple[int, int]] = []
    for _ in range(rng.randint(1, options.max_spans)):
        if phrases and rng.random() < options.salient_fraction:
            span = phrases.pop()
        else:
            first = rng.randrange(len(words))
            last = min(first + rng.randrange(4), len(words) - 1)
            span = (words[first][0], words[last][1])
        if all(span[1] <= start or end <= span[0] for start, end in chosen):
            chosen.append(span)
    return chosen


def short_form(title: str, body: str, spans: Iterable[tuple[int, int]], rng: random.Random, options, sentinel) -> str:
    """Ask for each span after the title and up to `max_context` characters before it: `Title. born in⁇Lebanon⁇`."""
    text = f"{title}." if title else ""
    for start, end in spans:
        first = max(0, start - rng.randint(0, options.max_context))
        while 0 < first < start and body[first - 1].isalnum():  # begin with a whole word
            first += 1
        context = body[first:start].strip()
        text += f" {context}{sentinel}" if context else sentinel
        text += body[start:end] + sentinel
    return text


def long_form(title: str, body: str, spans: Iterable[tuple[int, int]], sentinel: str) -> str:
    """Put a sentinel in each span's place and the spans after the text: `Title. a⁇b⁇c⁇span⁇span⁇`."""
    context, masked, last = f"{title}. " if title else "", "", 0
    for start, end in sorted(spans):
        context += body[last:start].rstrip() + sentinel
        masked += body[start:end] + sentinel
        last = end
    return context + body[last:] + sentinel + masked


def cut_to_words(text: str, length: int) -> str:
    """Cut `text` to at most `length` characters, between words where that leaves any."""
    if len(text) <= length:
        return text
    head, space, _ = text[: max(1, length) + 1].rpartition(" ")
    return head if space else text[: max(1, length)]


def salient_span(text: str, rng: random.Random, options: CorruptionOptions, sentinel: str, answers: Set[str]) -> str:
    """Take out salient spans, in the short or the long form; a text without any word loses all of its body."""
    title, body = split_title(text)
    if rng.random() < options.short_fraction:
        return short_form(title, body, choose_spans(title, body, rng, options, answers), rng, options, sentinel)
    body = cut_to_words(body, options.max_length - len(title) - len(". "))
    return long_form(title, body, choose_spans(title, body, rng, options, answers), sentinel)


def corrupt(
    text: str,
    seed: int,
    epoch: int,
    example_id: int,
    options: CorruptionOptions,
    sentinel: str,
    answers: Set[str] = frozenset(),
) -> str:
    """Corrupt one text; a pure function of its arguments.

    Args:
        text: a biography, `Title. Sentence .`
        seed, epoch, example_id: name the random draw.
        options: policy and lengths.
        sentinel: the tokenizer's mask token.
        answers: the training questions' answers, for `answer_fraction`.

    Returns:
        The text with sentinels, and what they stand for after the last context.
    """
    rng = random.Random(f"{seed}/{epoch}/{example_id}")
    if options.policy == "random-span":
        return random_span(text, rng, options.max_length, sentinel)
    return salient_span(text, rng, options, sentinel, answers)


@dataclass
class SpanCorruptionConfig(FileConfig):
    """What `SpanCorruption` makes: `epochs` corrupted copies of every line, under `options` and `seed`."""

    options: CorruptionOptions = field(default_factory=CorruptionOptions)
    answers: tuple[str, ...] = ()
    sentinel: str = ""
    seed: int = 0
    epochs: int = 1


class SpanCorruption(FileBuilder):
    """Corrupted biographies, one a row, epoch by epoch; the very texts that pretraining sees."""

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = SpanCorruptionConfig
    COLUMNS = {"id": "int32", "epoch": "int32", "text": "string"}
    DESCRIPTION = "Biographies with spans taken out and put after them."

    def _generate_examples(self, split: str, path: str):
        config, texts = self.config, read_lines(path)
        if not config.sentinel:
            raise ValueError("SpanCorruption needs sentinel=, the tokenizer's mask_token")
        answers = frozenset(config.answers)
        for epoch in range(config.epochs):
            for index, text in enumerate(texts):
                corrupted = corrupt(text, config.seed, epoch, index, config.options, config.sentinel, answers)
                yield f"{epoch}-{index}", {"id": index, "epoch": epoch, "text": corrupted}
