"""The tokens of all documents and questions, computed once and read at random: what training batches are made of.

A document's row has all that `SpanCorruptor` and `TokenizedText` need to know of it, so that a corrupted document is
put together from tokens, without its text. Positions are those of its own characters:

    characters, tokens, title's end, body's start, cut body's end, phrases, phrases of the cut body
    the tokens' ids
    where each token begins
    start, end and kind of each phrase, then of each phrase of the cut body
    what each character is (`AnnotatedTexts.characters`), in a byte each; nothing for `random-span`

A question's row has the number of tokens that end with its first sentinel, and then its tokens.

Both are written chunk by chunk, and a chunk is a pure function of its texts.
"""

import gc
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import BinaryIO, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from data_scripts.annotated_texts import AnnotatedTexts, Annotator
from data_scripts.question_checks import check_characters, check_length
from data_scripts.questions import Question
from data_scripts.ragged import Ragged, ranges
from data_scripts.record_file import ROWS, RecordFile, ValueTooLarge, write_rows
from data_scripts.tokenized_text import TokenizedText, encode, tokenize

HEADER = 7  # numbers at the front of a document's row
T = TypeVar("T")
Chunk = tuple[np.ndarray, np.ndarray]  # the values of some rows, one after the other, and the rows' lengths
Rows = Callable[[np.dtype], Iterable[Chunk]]  # yields all rows, for a file of such integers


def in_chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield `ROWS` items at a time."""
    iterator = iter(items)
    while chunk := list(islice(iterator, ROWS)):
        yield chunk


def document_rows(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, annotator: Annotator, dtype: np.dtype
) -> Iterator[Chunk]:
    """Yield the documents' rows, for a file of integers of this type."""
    for texts in in_chunks(documents):
        annotated, alone = annotator.annotate(texts)
        ids, begins, counts = tokenize(tokenizer, "".join(texts), annotated.starts, alone)
        yield pack(annotated, ids, begins, counts, np.dtype(dtype))


def pack(texts: AnnotatedTexts, ids: np.ndarray, begins: np.ndarray, tokens: np.ndarray, dtype: np.dtype) -> Chunk:
    """Return the rows of some documents.

    Args:
        texts: what is known of them.
        ids, begins: of all their tokens.
        tokens: how many each document has; (N,).
        dtype: of a row's numbers, into each of which go as many characters as it has bytes.
    """
    number = len(texts)
    origin = texts.starts[:-1]
    characters = np.diff(texts.starts)
    phrases, cut_phrases = np.split(texts.phrases.length, 2)
    # Where a body is whole after the cut, its phrases are not repeated.
    cut_phrases = np.where(texts.cut_ends == texts.starts[1:], 0, cut_phrases)
    bounds = [texts.title_ends, texts.body_starts, texts.cut_ends]
    header = np.stack([characters, tokens, *(bound - origin for bound in bounds), phrases, cut_phrases], 1)
    spans = texts.phrases.values - np.repeat(origin, phrases + cut_phrases)[:, None] * [1, 1, 0]
    stored = characters if len(texts.characters) else np.zeros_like(characters)
    numbers = -(-stored // dtype.itemsize)
    packed = np.zeros(numbers.sum() * dtype.itemsize, np.uint8)
    packed[ranges((np.cumsum(numbers) - numbers) * dtype.itemsize, stored)] = texts.characters
    parts = [header, ids, begins - np.repeat(origin, tokens), spans, packed.view(dtype)]
    lengths = np.stack([np.full(number, HEADER), tokens, tokens, 3 * (phrases + cut_phrases), numbers], 1)
    # Every part has the documents in their order; in the rows, a document's parts follow each other.
    first = (np.cumsum(lengths) - lengths.ravel()).reshape(lengths.shape)
    values = np.empty(lengths.sum(), np.int64)
    for part, begin, length in zip(parts, first.T, lengths.T, strict=True):
        values[ranges(begin, length)] = part.ravel()
    return values, lengths.sum(1)


class DocumentTable:
    """The documents' rows.

    Args:
        records: the file that `document_rows` were written to.
    """

    def __init__(self, records: RecordFile):
        self.records = records

    @classmethod
    def of(cls, documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, annotator: Annotator) -> "DocumentTable":
        """Return a table in memory."""
        return cls(in_memory(lambda dtype: document_rows(documents, tokenizer, annotator, dtype), len(tokenizer)))

    def __len__(self) -> int:
        return len(self.records)

    def read(self, chosen: np.ndarray, sentinel: int) -> tuple[AnnotatedTexts, TokenizedText]:
        """Return what is known of the chosen documents, in this order, as if they were the only ones."""
        values, lengths = self.records.read(chosen)
        first = np.cumsum(lengths) - lengths
        header = values[first[:, None] + np.arange(HEADER)].astype(np.int64)  # (N, 7)
        characters, tokens, title_ends, body_starts, cut_ends, phrases, cut_phrases = header.T
        starts = np.concatenate([[0], np.cumsum(characters)])
        origin = starts[:-1]
        first = first + HEADER
        ids = values[ranges(first, tokens)]
        begins = values[ranges(first + tokens, tokens)] + np.repeat(origin, tokens)
        first = first + 2 * tokens
        all_phrases = phrases + cut_phrases
        spans = values[ranges(first, 3 * all_phrases)].reshape(-1, 3).astype(np.int64)
        spans[:, :2] += np.repeat(origin, all_phrases)[:, None]
        first_phrase = np.cumsum(all_phrases) - all_phrases
        is_whole = cut_ends == characters
        lists = Ragged(
            first=np.concatenate([first_phrase, np.where(is_whole, first_phrase, first_phrase + phrases)]),
            length=np.concatenate([phrases, np.where(is_whole, phrases, cut_phrases)]),
            values=spans,
        )
        ends = np.cumsum(lengths)
        stored = np.where(ends > first + 3 * all_phrases, characters, 0)
        packed = values.view(np.uint8)[ranges((first + 3 * all_phrases) * values.itemsize, stored)]
        bounds = (origin + bound for bound in (title_ends, body_starts, cut_ends))
        annotated = AnnotatedTexts(starts, *bounds, packed, lists)
        return annotated, TokenizedText(ids.astype(np.int64), begins, int(starts[-1]), sentinel)


def question_rows(
    questions: Iterable[Question], tokenizer: PreTrainedTokenizerBase, context: int | None = None
) -> Iterator[Chunk]:
    """Yield the questions' rows.

    Args:
        questions: to learn from.
        tokenizer: gives ids and the sentinel.
        context: tokens that the model reads; None checks nothing.

    Raises:
        VocabularyError: a question or its answer has a character that the tokenizer does not know.
        DataError: a question or an answer leaves no room for the other.
    """
    sentinel = tokenizer.mask_token_id
    done = 0
    for chunk in in_chunks(questions):
        try:
            encoded = encode(tokenizer, [question.training_text(tokenizer.mask_token) for question in chunk])
        except Exception:
            check_characters(tokenizer, [f"{question.text} {question.answer}" for question in chunk], done + 1)
            raise
        rows = []
        for number, (question, tokens) in enumerate(zip(chunk, encoded, strict=True), start=done + 1):
            ids = tokens.ids
            prompt = count_prompt(ids, sentinel)
            if context is not None:
                check_length("question", number, question.text, prompt - 1, 1, context)
                check_length("answer", number, question.answer, len(ids) - prompt - 1, 0, context)
            rows += [prompt, *ids]
        done += len(chunk)
        lengths = np.array([1 + len(tokens) for tokens in encoded], np.int64)
        yield np.array(rows, np.int64), lengths


def count_prompt(ids: Sequence[int], sentinel: int) -> int:
    """Return how many ids end with the first sentinel; all of them where there is none."""
    return ids.index(sentinel) + 1 if sentinel in ids else len(ids)


class QuestionTable:
    """The questions' rows.

    Args:
        records: the file that `question_rows` were written to.
    """

    def __init__(self, records: RecordFile):
        self.records = records

    @classmethod
    def of(cls, questions: Iterable[Question], tokenizer: PreTrainedTokenizerBase) -> "QuestionTable":
        """Return a table in memory."""
        return cls(in_memory(lambda dtype: question_rows(questions, tokenizer), len(tokenizer)))

    def __len__(self) -> int:
        return len(self.records)

    def read(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the ids of the chosen questions, one after the other, their lengths, and those of their prompts."""
        values, lengths = self.records.read(chosen)
        first = np.cumsum(lengths) - lengths
        return values[ranges(first + 1, lengths - 1)].astype(np.int64), lengths - 1, values[first].astype(np.int64)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Pause the search for reference cycles, of which rows have none: it takes a sixth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def write_table(sink: Callable[[], AbstractContextManager[BinaryIO]], rows: Rows, entries: int) -> None:
    """Write rows in 16 bits a number, or in 32 where the vocabulary is too large for that, or a document too long.

    Args:
        sink: opens what is written to; called again where the first try was too narrow.
        rows: yields them for a type of number.
        entries: of the vocabulary.
    """
    dtypes = [np.dtype(np.uint16), np.dtype(np.uint32)]
    for dtype in dtypes[entries > 2**16 :]:
        try:
            with sink() as file, without_garbage_collection():
                return write_rows(file, rows(dtype), dtype)
        except ValueTooLarge:  # a text of 65,536 characters, which nobody knows before it comes: all are written again
            if dtype == dtypes[-1]:
                raise


def in_memory(rows: Rows, entries: int) -> RecordFile:
    """Return rows in memory; the arguments are those of `write_table`."""
    contents = io.BytesIO()

    @contextmanager
    def sink() -> Iterator[io.BytesIO]:
        contents.seek(0)
        contents.truncate()
        yield contents

    write_table(sink, rows, entries)
    return RecordFile(contents.getvalue())
