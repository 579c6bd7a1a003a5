"""Span corruption: parts of a biography are taken out and put after it, for a causal model to restore.

Two policies (T5's objective, Raffel et al. 2020, section 3.1.4, in a form for decoders):

- `random-span`, the practical's: cut the text to a random length, take out one random span, a quarter on average:
  `prefix⁇suffix⁇masked`.
- `salient-span` (Guu et al. 2020, "REALM", section 3.4): take out names and places rather than anything. In its short
  form each phrase follows the person's name and a few characters of its own context, in random order, much as a
  question would ask for it: `Title. born in⁇Lebanon⁇ is a French⁇journalist⁇`.

A corrupted text is a pure function of (seed, epoch, example): nothing to store, nothing to resume, the same on one
process or eight. It is made of pieces of the text, so whole batches are corrupted at once, as arrays of bounds, and
texts that were tokenised once need not be tokenised again. `SpanCorruption` is the same as a `datasets` builder.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import datasets
import numpy as np

from configuration.schema import MAX_SPANS, MIN_CHARACTERS, CorruptionOptions
from data_scripts.annotated_texts import (
    ANSWER,
    LIKELY_ANSWER,
    WORD_BEGINS,
    WORD_ENDS,
    AnnotatedTexts,
    Annotator,
)
from data_scripts.answer_patterns import AnswerPatterns
from data_scripts.bios_folder import read_lines
from data_scripts.counter_random import derive_keys, integers, uniform
from data_scripts.file_builder import FileBuilder, FileConfig
from data_scripts.ragged import Ragged
from data_scripts.words import SPACE, UNSPACED_CHARACTER

MAX_WORDS = 4  # of a span that is no phrase
# What each number of an example's generator is for. With room for S spans the numbers are
#   FORM, PREFERENCE, COUNT, then KIND, FIRST, RUN, CONTEXT of span 0, those of span 1, …, then one of each phrase,
# so that a setting which changes the number of spans or phrases leaves the other draws as they were.
CUT, LENGTH, START = range(3)
FORM, PREFERENCE, COUNT, SPANS = range(4)
KIND, FIRST, RUN, CONTEXT = range(4)
PHRASES = SPANS + 4 * MAX_SPANS


class Bodies:
    """What may be taken out of the bodies of some texts: their words and their salient phrases.

    Args:
        starts, ends: where each body begins and ends; (N,).
        word_starts, word_ends: where the words of all bodies begin and end; (words,).
        phrases: (start, end, kind) of each body; the kinds are those of `AnnotatedTexts`.
    """

    def __init__(
        self, starts: np.ndarray, ends: np.ndarray, word_starts: np.ndarray, word_ends: np.ndarray, phrases: Ragged
    ):
        self.starts = starts
        self.ends = ends
        self.word_starts = word_starts
        self.word_ends = word_ends
        self.phrases = phrases
        self.first_word = np.searchsorted(word_starts, starts)
        self.words = np.searchsorted(word_starts, ends) - self.first_word

    def word_runs(self, chosen: np.ndarray, first: np.ndarray, run: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return starts and ends of one to four words of each chosen body; one that has none is a word itself.

        Args:
            chosen: bodies; (N,).
            first, run: uniform numbers, which say where the words begin and how many they are; (N,).
        """
        words = self.words[chosen]
        first = (first * np.maximum(words, 1)).astype(np.int64)
        last = np.minimum(first + (run * MAX_WORDS).astype(np.int64), words - 1)
        start = self.starts[chosen]
        end = self.ends[chosen]
        has_words = words > 0
        place = self.first_word[chosen[has_words]]
        start[has_words] = self.word_starts[place + first[has_words]]
        # A body may be cut inside its last word.
        end[has_words] = np.minimum(self.word_ends[place + last[has_words]], end[has_words])
        return start, end

    def in_random_order(self, chosen: np.ndarray, keys: np.ndarray, options: CorruptionOptions) -> np.ndarray:
        """Return the places of the chosen bodies' phrases, body by body; in some bodies, answers come first."""
        owner, number, place = self.phrases.places(chosen)
        preference = uniform(keys, PREFERENCE)[owner]
        kind = self.phrases.values[place, 2]
        # Sorting by a uniform number shuffles; one less than a uniform number comes before all others.
        answers_first = (preference < options.answer_fraction) & (kind >= ANSWER)
        likely_first = (preference < options.likely_answer_fraction) & (kind == LIKELY_ANSWER)
        rank = uniform(keys[owner], PHRASES + number) - answers_first - 2 * likely_first
        return place[np.lexsort((rank, owner))]

    def choose(self, chosen: np.ndarray, keys: np.ndarray, options: CorruptionOptions) -> np.ndarray:
        """Choose up to `max_spans` disjoint spans of each chosen body: phrases, or runs of one to four words.

        Returns:
            Starts and ends in random order, -1 where there is no span; (N, max_spans, 2).
        """
        # A loop over the two or three spans of a body, each step over all bodies at once.
        rows = np.arange(len(chosen))
        number = self.phrases.length[chosen]
        order = self.in_random_order(chosen, keys, options)
        taken = np.cumsum(number) - number  # where each body's next phrase is in `order`
        last_phrase = taken + number
        count = 1 + integers(options.max_spans, keys, COUNT)
        spans = np.full((len(chosen), options.max_spans, 2), -1)
        # KIND, FIRST, RUN and CONTEXT of every span; the last is drawn again by whoever wants one.
        draws = uniform(keys[:, None], SPANS + np.arange(4 * options.max_spans)).reshape(
            len(chosen), options.max_spans, 4
        )
        for index in range(options.max_spans):
            kind, first, run, _ = draws[:, index].T
            start, end = self.word_runs(chosen, first, run)
            salient = (taken < last_phrase) & (kind < options.salient_fraction)
            start[salient], end[salient] = self.phrases.values[order[taken[salient]], :2].T
            taken += salient
            before = spans[:, :index, 0]
            after = spans[:, :index, 1]
            # Spans that begin together overlap even where one is empty, as a body without words is.
            overlaps = ((start[:, None] < after) & (before < end[:, None])) | (start[:, None] == before)
            free = rows[(index < count) & ~overlaps.any(1)]
            spans[free, index, 0] = start[free]
            spans[free, index, 1] = end[free]
        return spans


def in_turn(*pieces: np.ndarray) -> np.ndarray:
    """Put the first piece of each array (N, K, 2) before the second of each: (N, K x arrays, 2).

    Contexts c, marks m and spans s become c₀ m₀ s₀ c₁ m₁ s₁ ….
    """
    rows, number, _ = pieces[0].shape
    return np.stack(pieces, 2).reshape(rows, number * len(pieces), 2)


class SpanCorruptor:
    """Corrupts biographies, many at once.

    A corrupted text is a row of pieces, (start, end) positions in the joined texts. With "Ada. Born in Rome" alone,
    the sentinel is position 17, and "Ada. Born in⁇Rome⁇" is

        (0, 4)  (4, 12)   (17, 18)  (13, 17)  (17, 18)
        Ada.    ␣Born in  ⁇         Rome      ⁇

    with the last two to be restored: the span, and the sentinel that ends it.

    Args:
        texts: what is known of biographies, `Title. Sentence .`
        options: policy and lengths.

    Attributes:
        sentinel: the position that represents a sentinel, which is the texts' end.
        whole, cut: what may be taken out of each body, and of each as the long form cuts it (`salient-span`).
    """

    def __init__(self, texts: AnnotatedTexts, options: CorruptionOptions):
        self.texts = texts
        self.options = options
        self.sentinel = int(texts.starts[-1])
        if options.policy == "salient-span":
            first = np.split(texts.phrases.first, 2)
            length = np.split(texts.phrases.length, 2)
            whole, cut = (Ragged(*one, texts.phrases.values) for one in zip(first, length, strict=True))
            # Compared first, as bytes: NumPy finds what is not zero among booleans ten times as fast.
            word_starts = np.flatnonzero((texts.characters & WORD_BEGINS) > 0)
            word_ends = np.flatnonzero((texts.characters & WORD_ENDS) > 0) + 1
            self.whole = Bodies(texts.body_starts, texts.starts[1:], word_starts, word_ends, whole)
            self.cut = Bodies(texts.body_starts, texts.cut_ends, word_starts, word_ends, cut)
            self._find_spaces()

    def _find_spaces(self) -> None:
        """Find, for each position, where the next word (anything without white space) begins and where the last ended.

        A context is cut to whole words by these look-ups: for the text "ab cd",

            position      0 1 2 3 4 5
            next_begin    0 3 3 3 5 5
            last_end      0 1 2 2 4 5
            after_space   0 0 0 1 0 0

        In a script without spaces every character begins a word.
        """
        texts = self.texts
        position = np.arange(self.sentinel + 1, dtype=np.int32 if self.sentinel < 2**31 - 1 else np.int64)
        space = np.append((texts.characters & SPACE) > 0, True)
        begins = ~space & np.concatenate([[True], space[:-1]])
        begins[texts.body_starts] = True
        begins[:-1] |= (texts.characters & UNSPACED_CHARACTER) > 0
        self.next_begin = np.minimum.accumulate(np.where(begins, position, self.sentinel)[::-1])[::-1]
        self.after_space = np.concatenate([[False], space[:-1]])
        self.after_space[texts.starts] = False  # of the text before
        self.last_end = np.maximum.accumulate(np.concatenate([[0], np.where(space, 0, position + 1)[:-1]]))

    def pieces(
        self, seed: int, epochs: np.ndarray, examples: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Corrupt some texts.

        Args:
            seed, epochs, examples: of the random draws; (N,).
            rows: which text each example is, (N,); where not given, the text of its number.

        Returns:
            Positions in the texts where pieces start and end, (N, M, 2); one after the other they are the corrupted
            text. Some are empty. The piece (`sentinel`, `sentinel` + 1) is a sentinel. And which of them are to be
            restored, a span or the sentinel that ends it, (N, M).
        """
        keys = derive_keys(seed, epochs, examples)
        if rows is None:
            rows = examples
        if self.options.policy == "random-span":
            pieces = self.random_span(rows, keys)
            return pieces, np.tile(np.arange(5) == 4, (len(rows), 1))
        spans = self.options.max_spans
        pieces = np.zeros((len(rows), 4 * spans + 2, 2), np.int64)
        short = uniform(keys, FORM) < self.options.short_fraction
        column = np.arange(4 * spans + 2)
        # Each example has one form: both are made for their own examples and put in place, padded by empty pieces.
        for chosen, form in ((short, self.short_form), (~short, self.long_form)):
            made = form(rows[chosen], keys[chosen])
            pieces[chosen, : made.shape[1]] = made
        # Short: title, then (context, mark, span, mark) per span. Long: (context, mark) per span, rest, mark, then
        # (span, mark) per span. What is restored is the spans and the marks behind them.
        in_short = (column > 0) & ((column - 1) % 4 >= 2)
        in_long = column >= 2 * spans + 2
        return pieces, np.where(short[:, None], in_short, in_long)

    def random_span(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Cut each text to U[4, max_length] characters and take out one span of U[1/8, 3/8] of that, anywhere in it.

        A text too short for that keeps its length and loses at least one character.
        """
        begin = self.texts.starts[rows]
        whole = self.texts.starts[rows + 1] - self.texts.starts[rows]
        longest = max(MIN_CHARACTERS, self.options.max_length)
        length = np.minimum(whole, MIN_CHARACTERS + integers(longest - MIN_CHARACTERS + 1, keys, CUT))
        share = 1 / 8 + uniform(keys, LENGTH) / 4
        masked = np.minimum(length, np.maximum(1, np.rint(length * share).astype(np.int64)))
        start = begin + integers(length - masked + 1, keys, START)
        mark = np.full_like(begin, self.sentinel)
        starts = [begin, mark, start + masked, mark, start]
        ends = [start, mark + 1, begin + length, mark + 1, start + masked]
        return np.stack([np.stack(starts, 1), np.stack(ends, 1)], 2)

    def marks(self, found: np.ndarray) -> np.ndarray:
        """Return sentinels where `found` (N, K, 1), else empty pieces; (N, K, 2)."""
        return np.where(found, [self.sentinel, self.sentinel + 1], 0)

    def short_form(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Ask for each span after the title and at most `max_context` characters: `Title. born in⁇Lebanon⁇`."""
        spans = self.whole.choose(rows, keys, self.options)
        body = self.texts.body_starts[rows][:, None]
        start = spans[..., 0]
        draws = SPANS + 4 * np.arange(self.options.max_spans) + CONTEXT
        reach = integers(self.options.max_context + 1, keys[:, None], draws)
        first = self.next_begin[np.maximum(body, start - reach)]
        end = self.last_end[start]
        context = np.stack([first - self.after_space[first], end], 2).astype(np.int64)  # with the space before it
        # No span, or a reach that ends inside the word before the span: then there is no context.
        found = (start >= 0)[..., None]
        context = np.where(found & (first < end)[..., None], context, 0)
        spans = np.where(found, spans, 0)
        title = np.stack([self.texts.starts[rows][:, None], self.texts.title_ends[rows][:, None]], 2)
        return np.hstack([title, in_turn(context, self.marks(found), spans, self.marks(found))])

    def long_form(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Put a sentinel in each span's place and the spans after the text: `Title. a⁇b⁇c⁇span⁇span⁇`."""
        spans = self.cut.choose(rows, keys, self.options)
        # In the order of the text, missing spans last.
        order = np.argsort(np.where(spans[..., 0] < 0, self.sentinel, spans[..., 0]), axis=1, kind="stable")
        spans = np.take_along_axis(spans, order[..., None], 1)
        found = spans[..., :1] >= 0
        last = np.maximum.accumulate(np.hstack([self.texts.starts[rows][:, None], spans[..., 1]]), axis=1)
        # A context ends where the last word before its span does: the sentinel replaces the space between them, too.
        until = np.where(found[..., 0], np.maximum(last[:, :-1], self.last_end[spans[..., 0]]), last[:, :-1])
        context = np.stack([last[:, :-1], until], 2)
        rest = np.stack([last[:, -1:], self.cut.ends[rows][:, None]], 2)
        end = self.marks(np.ones((len(rows), 1, 1), bool))
        spans = np.where(found, spans, 0)
        return np.hstack([in_turn(context, self.marks(found)), rest, end, in_turn(spans, self.marks(found))])


class TextCorruptor(SpanCorruptor):
    """Corrupts texts in memory.

    Args:
        texts: biographies.
        options, answers, names, patterns: as `Annotator`.
    """

    def __init__(
        self,
        texts: Sequence[str],
        options: CorruptionOptions,
        answers: Set[str] = frozenset(),
        names: Set[str] = frozenset(),
        patterns: Sequence[AnswerPatterns] = (),
    ):
        self.text = "".join(texts)
        super().__init__(Annotator(options, answers, names, patterns).annotate(texts)[0], options)

    def corrupt(self, seed: int, epochs: Sequence[int], examples: Sequence[int], sentinel: str) -> list[str]:
        """Return corrupted texts, with `sentinel` for sentinels; the other arguments are those of `pieces`."""
        pieces, _ = self.pieces(seed, np.asarray(epochs, np.int64), np.asarray(examples, np.int64))
        return [
            "".join(sentinel if start == self.sentinel < end else self.text[start:end] for start, end in row)
            for row in pieces.tolist()
        ]


@dataclass
class SpanCorruptionConfig(FileConfig):
    """What `SpanCorruption` makes: `epochs` corrupted copies of every line, under `options` and `seed`."""

    options: CorruptionOptions = field(default_factory=CorruptionOptions)
    answers: tuple[str, ...] = ()
    sentinel: str = ""
    seed: int = 0
    epochs: int = 1


class SpanCorruption(FileBuilder):
    """Corrupted biographies, one per row, epoch by epoch: the texts that pretraining sees.

    Where tokens are longer than characters, pretraining moves a cut inside a token to where that begins, which only
    `random-span` asks for; a span inside one token is then empty.
    """

    VERSION = datasets.Version("2.0.0")  # rises when a seed draws other spans: it is part of the cache's name
    BUILDER_CONFIG_CLASS = SpanCorruptionConfig
    COLUMNS = {"id": "int32", "epoch": "int32", "text": "string"}
    DESCRIPTION = "Biographies with spans taken out and put after them."

    def _generate_examples(self, split: str, path: str):
        config = self.config
        if not config.sentinel:
            raise ValueError("SpanCorruption needs sentinel=, the tokenizer's mask_token")
        if config.options.likely_answer_fraction:
            raise ValueError("likely_answer_fraction must be 0: there are no questions to learn answers from")
        texts = read_lines(path)
        corruptor = TextCorruptor(texts, config.options, frozenset(config.answers))
        for epoch in range(config.epochs):
            corrupted = corruptor.corrupt(config.seed, [epoch] * len(texts), range(len(texts)), config.sentinel)
            for index, text in enumerate(corrupted):
                yield f"{epoch}-{index}", {"id": index, "epoch": epoch, "text": text}
