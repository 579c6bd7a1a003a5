"""What corruption has to know of texts: where titles, bodies, words and phrases begin and end, as arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from configuration.schema import CorruptionOptions
from data_scripts.answer_patterns import AnswerPatterns, features_of
from data_scripts.corpus import SizedIterable
from data_scripts.phrases import AnswerFinder, Spans, salient_phrases
from data_scripts.questions import Question
from data_scripts.ragged import Ragged
from data_scripts.titles import split_title, titles_to_know
from data_scripts.words import SPACE, UNSPACED_CHARACTER, classify, cut_to_words, word_bounds

# Bits of a character in `AnnotatedTexts.characters`, beside the two of `words.classify`.
WORD_BEGINS, WORD_ENDS = 16, 32
# What a phrase is: no training answer, one, or what looks most like the answer to some relation's question.
NO_ANSWER, ANSWER, LIKELY_ANSWER = range(3)
OBSERVED = 5000  # documents from which a relation learns what its answers look like; more change little


@dataclass(frozen=True)
class AnnotatedTexts:
    """Texts one after the other, without their characters; positions are those of characters in all of them.

    Attributes:
        starts: of each text's first character, and the last one's end; (N + 1,).
        title_ends: after each title's full stop; its text's start where it has no title; (N,).
        body_starts: of each body's first character; (N,).
        cut_ends: where each body ends as the long form cuts it; (N,).
        characters: of each, whether it is a space, a word by itself, the first or the last one of a word of a body, as
            bits; (characters,), uint8.
        phrases: (start, end, kind: `NO_ANSWER`, `ANSWER` or `LIKELY_ANSWER`) of each body's phrases, then of each cut
            body's; 2N lists.

    For `random-span` bodies are empty, and there are neither characters nor phrases.
    """

    starts: np.ndarray
    title_ends: np.ndarray
    body_starts: np.ndarray
    cut_ends: np.ndarray
    characters: np.ndarray
    phrases: Ragged

    def __len__(self) -> int:
        return len(self.title_ends)


class Annotator:
    """Annotates texts for one way of corruption.

    Args:
        options: policy and lengths.
        answers: the training questions' answers, each of which is a phrase.
        names: which are titles as they are: of the people in questions, and others that are known.
        patterns: what answers look like, of each relation.
    """

    def __init__(
        self,
        options: CorruptionOptions,
        answers: Set[str] = frozenset(),
        names: Set[str] = frozenset(),
        patterns: Sequence[AnswerPatterns] = (),
    ):
        self.options = options
        self.answers = answers
        self.names = names
        self.patterns = patterns
        self.finder = AnswerFinder(answers)

    @classmethod
    def for_questions(
        cls,
        questions: Iterable[Question],
        options: CorruptionOptions,
        documents: Iterable[str] = (),
        titles: SizedIterable[str] = (),
    ) -> "Annotator":
        """Return the annotator of documents about people who are asked these questions.

        Args:
            documents: to learn from what answers look like, where `options` ask for that.
            titles: of each of the documents, where they are known; those of people who are not asked about, too.
        """
        names = set()
        answers = set()
        known: dict[str, dict[str, set[str]]] = {}  # by relation and title, which ends before its full stop
        learns = options.policy == "salient-span" and options.likely_answer_fraction > 0
        for question in questions:
            names.add(question.name)
            answers.update(question.answers)
            if learns:  # namesakes have the answers of all of them
                own = known.setdefault(question.relation, {}).setdefault(question.name.rstrip("."), set())
                own.update(question.answers)
        if len(titles):
            names |= titles_to_know(documents, titles, names)
        annotator = cls(options, answers, names)
        annotator.patterns = annotator.learn_patterns(documents, list(known.values()))
        return annotator

    def learn_patterns(
        self, documents: Iterable[str], known: Sequence[Mapping[str, Set[str]]]
    ) -> list[AnswerPatterns]:
        """Return what answers look like, by the documents of people whose answers, of each relation, are known."""
        patterns = [AnswerPatterns() for _ in known]
        for document in documents if known else ():
            title, body = split_title(document, self.names)
            title = title.rstrip(".")
            wanted = [
                (one, answers[title])
                for one, answers in zip(patterns, known, strict=True)
                if title in answers and one.documents < OBSERVED
            ]
            if wanted:
                spans = salient_phrases(title, body, self.finder)
                features = features_of(body, spans)
                for one, answers in wanted:
                    one.observe(features, [body[first:last] in answers for first, last in spans])
            elif all(one.documents == OBSERVED for one in patterns):
                break
        for one in patterns:
            one.fit()
        return patterns

    def annotate(self, texts: Sequence[str]) -> tuple[AnnotatedTexts, Spans]:
        """Return what is known of texts, and (start, end) of what has the tokens that it has alone.

        The latter are the phrases that may be asked for whole, and the names that bodies repeat.
        """
        starts = np.cumsum([0, *map(len, texts)])
        split = [split_title(text, self.names) for text in texts]
        titles = starts[:-1] + np.array([len(title) + len(".") if title else 0 for title, _ in split], np.int64)
        if self.options.policy == "random-span":
            none = np.zeros(2 * len(texts), np.int64)
            phrases = Ragged(none, none, np.zeros((0, 3), np.int64))
            return AnnotatedTexts(starts, titles, starts[1:], starts[1:], np.zeros(0, np.uint8), phrases), []
        bodies = starts[1:] - np.array([len(body) for _, body in split], np.int64)
        classes = classify("".join(texts))
        begins, ends = word_bounds(classes, starts)
        found = list(self._phrases(texts, split, bodies, list_words(starts, bodies, begins, ends)))
        whole = [one for one, _, _ in found]
        cut = [one for _, one, _ in found]
        cut_ends = bodies + np.array([length for _, _, length in found], np.int64)
        in_body = np.arange(starts[-1]) >= np.repeat(bodies, np.diff(starts))
        words = in_body * (begins * np.uint8(WORD_BEGINS) | ends * np.uint8(WORD_ENDS))
        characters = (classes & (SPACE | UNSPACED_CHARACTER)) | words
        phrases = share_lists(whole, cut)
        repeated = [
            (start, start + len(title))
            for start, (title, body) in zip(bodies.tolist(), split, strict=True)
            if title and body.startswith(title)
        ]
        alone = [(start, end) for start, end, _ in phrases.values.tolist()]
        return AnnotatedTexts(starts, titles, bodies, cut_ends, characters, phrases), alone + repeated

    def _phrases(
        self,
        texts: Sequence[str],
        split: list[tuple[str, str]],
        bodies: np.ndarray,
        words: Iterator[tuple[Spans, Spans]],
    ) -> Iterator[tuple[list, list | None, int]]:
        """Yield each body's phrases, those of the cut body, None where that is the whole one, and its length."""
        for text, (title, body), start, (of_title, of_body) in zip(texts, split, bodies.tolist(), words, strict=True):
            offset = len(text) - len(body)
            known = {text[offset + first : offset + last] for first, last in of_title}
            length = len(cut_to_words(body, self.options.max_length - len(title) - len(". ")))
            whole = self._salient(title, body, of_body, known, start)
            cut = None
            if length < len(body):
                # The words of a beginning of the body are the body's, the last one perhaps cut.
                kept = [(first, min(last, length)) for first, last in of_body if first < length]
                cut = self._salient(title, body[:length], kept, known, start)
            yield whole, cut, length

    def _salient(self, title: str, body: str, words: Spans, known: Set[str], start: int) -> list[tuple[int, int, int]]:
        """Return (start, end, kind) of the phrases of a body that begins at `start`."""
        spans = salient_phrases(title, body, self.finder, words, known)
        kinds = [ANSWER if body[first:last] in self.answers else NO_ANSWER for first, last in spans]
        if self.patterns:
            features = features_of(body, spans)
            for pattern in self.patterns:
                if (likely := pattern.find(features)) is not None:
                    kinds[likely] = LIKELY_ANSWER
        return [(start + first, start + last, kind) for (first, last), kind in zip(spans, kinds, strict=True)]


def list_words(
    starts: np.ndarray, bodies: np.ndarray, begins: np.ndarray, ends: np.ndarray
) -> Iterator[tuple[Spans, Spans]]:
    """Yield each text's words, those before its body and those of it, as (start, end) from the body's start on."""
    first = np.flatnonzero(begins)
    last = np.flatnonzero(ends) + 1
    of_text = np.searchsorted(first, starts)
    of_body = np.searchsorted(first, bodies)
    origin = np.repeat(bodies, np.diff(of_text))
    words = list(zip((first - origin).tolist(), (last - origin).tolist(), strict=True))
    for begin, body, end in zip(of_text[:-1].tolist(), of_body.tolist(), of_text[1:].tolist(), strict=True):
        yield words[begin:body], words[body:end]


def share_lists(whole: list[list], other: list[list | None]) -> Ragged:
    """Return the lists `whole`, then those of `other`; where there is none, the list of `whole` is shared.

    [[a, b], [c]] and [[d], None] have the values [a, b, d, c] and the firsts [0, 3] and [2, 3].
    """
    ours = np.array([len(one) for one in whole], np.int64)
    is_shared = np.array([one is None for one in other], bool)
    others = np.array([0 if one is None else len(one) for one in other], np.int64)
    first = np.cumsum(ours + others) - others - ours
    flat = [value for pair in zip(whole, other, strict=True) for one in pair if one for value in one]
    return Ragged(
        first=np.concatenate([first, np.where(is_shared, first, first + ours)]),
        length=np.concatenate([ours, np.where(is_shared, ours, others)]),
        values=np.array(flat, np.int64).reshape(-1, 3),
    )
