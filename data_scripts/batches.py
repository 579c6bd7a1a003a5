"""Training batches as a pure function of (seed, step): the same on any number of processes, before or after a crash.

Step s belongs to pool s // bucket_batches. A pool draws the rows of that many batches: documents, which each epoch
corrupts differently, and questions, both in the order of the epoch's permutation. It sorts them by length and cuts
them into batches, so that little of a batch is padding. All texts are tokenised once; a row is put together from
pieces of them.

With bucket_batches = 2 and batches of two rows, three documents A, B, C and no questions, pool 0 draws places 0 … 3 of
the endless stream B A C | C B A | …, where | separates epochs:

    drawn     B A C C'          C' is C as the second epoch corrupts it
    lengths   9 4 7 5
    sorted    A C' C B
    batches   (A C') (C B)      in an order of their own, so that short batches do not always come first

A resumed run computes the same pool again, and each of two processes computes it whole and takes its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from configuration.schema import CorruptionOptions, StageArguments
from data_scripts.bios_folder import DataError
from data_scripts.questions import Question
from data_scripts.ragged import ranges
from data_scripts.span_corruption import SpanCorruptor
from data_scripts.tokenized_text import TokenizedText, encode

IGNORE_INDEX = -100
# What a random permutation is for; part of its seed, so that documents and questions are shuffled independently.
DOCUMENT_STREAM, QUESTION_STREAM, BATCH_ORDER = range(3)


@lru_cache(maxsize=8)  # a pool needs one or two epochs of each stream
def permutation(size: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """Return the order of `size` examples in one epoch of one stream."""
    return np.random.default_rng([seed, stream, epoch]).permutation(size)


@dataclass(frozen=True)
class Rows:
    """Tokenised examples.

    Attributes:
        ids: the tokens of all rows, one after the other.
        lengths: of the rows, in tokens; (N,).
        targets: whether each token counts in the loss; as long as `ids`.
        examples: which document, or, from the number of documents on, which question each row is; (N,).
    """

    ids: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    examples: np.ndarray

    def part(self, first: int, end: int) -> "Rows":
        """Return the rows from number `first` to `end`."""
        begin = self.lengths[:first].sum()
        rows = slice(first, end)
        tokens = slice(begin, begin + self.lengths[rows].sum())
        return Rows(self.ids[tokens], self.lengths[rows], self.targets[tokens], self.examples[rows])


class TrainingBatches(torch.utils.data.Dataset):
    """Batch number `step` of a stage, whole: `{"input_ids", "labels"}`, each (B, T), padded on the right.

    No attention mask is needed: a causal model never looks right, and padding has no label.

    Args:
        documents: biographies, corrupted as `corruption` says. All their tokens are targets, except the title's where
            `title_loss` is off, and all but the masked spans where `context_loss` is off.
        questions: to learn from. Their targets are the tokens after the first sentinel.
        tokenizer: gives ids, the sentinel and the pad.
        stage: batch size, share of questions, bucketing.
        seed: of all random draws.
        max_length: the model's context in tokens; longer rows are cut.

    Raises:
        DataError: as `StageArguments.check_mix`.
    """

    def __init__(
        self,
        documents: Sequence[str],
        questions: Sequence[Question],
        tokenizer: PreTrainedTokenizerBase,
        stage: StageArguments,
        corruption: CorruptionOptions,
        seed: int,
        max_length: int,
    ):
        self.stage = stage
        self.seed = seed
        self.max_length = max_length
        self.pad_token_id = tokenizer.pad_token_id
        questions_alone = stage.question_fraction == 1.0
        self.documents = len(documents)
        self.questions = len(questions)
        self.steps = stage.total_steps(self.questions if questions_alone else self.documents)
        try:
            stage.check_mix(self.steps)
        except ValueError as error:
            raise DataError(error) from error
        answers = frozenset(question.answer for question in questions)
        names = frozenset(question.name for question in questions)
        self.corruptor = SpanCorruptor([] if questions_alone else documents, corruption, answers, names)
        starts = self.corruptor.starts
        text = TokenizedText(tokenizer, self.corruptor.text, starts, self.corruptor.phrases())
        mixed_in = questions if stage.question_fraction else ()
        asked = encode(tokenizer, [question.training_text(tokenizer.mask_token) for question in mixed_in])["input_ids"]
        self.place = text.place
        # Documents, then questions, in one array of ids: a row of either kind is pieces of it.
        self.ids = np.concatenate([text.ids, *asked])
        lengths = np.array([len(ids) for ids in asked], np.int64)
        ends = len(text.ids) + np.cumsum(lengths)
        self.question_pieces = np.stack([ends - lengths, ends], 1)  # places in `ids`
        self.question_targets = np.array([count_prompt(ids, tokenizer.mask_token_id) for ids in asked], np.int64)
        # A document's title is known to whoever asks about it, so by default it is read and not predicted.
        titles = self.place[self.corruptor.title_ends] - self.place[starts[:-1]]
        self.document_targets = np.zeros_like(titles) if stage.title_loss else titles
        self._pool_number = -1
        self._pool = None

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rows = self.rows(step)
        # Boolean assignment fills row by row, in the order in which `rows.ids` has them.
        real = np.arange(rows.lengths.max()) < rows.lengths[:, None]  # (B, T)
        input_ids = np.full(real.shape, self.pad_token_id)
        labels = np.full(real.shape, IGNORE_INDEX)
        input_ids[real] = rows.ids
        labels[real] = np.where(rows.targets, rows.ids, IGNORE_INDEX)
        return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}

    def rows(self, step: int) -> Rows:
        """Return the rows of batch `step`."""
        number, place = divmod(step, self.stage.bucket_batches)
        if number != self._pool_number:
            self._pool_number = number
            self._pool = self.pool(number)
        if self.stage.bucket_batches > 1:
            place = permutation(self.stage.bucket_batches, self.seed, BATCH_ORDER, number)[place]
        return self._pool.part(place * self.stage.batch_size, (place + 1) * self.stage.batch_size)

    def pool(self, number: int) -> Rows:
        """Draw and corrupt the rows of pool `number`, shortest first where there are several batches of them."""
        document_places, question_places = self.places(number)
        epochs, documents = self.draw(document_places, self.documents, DOCUMENT_STREAM)
        _, questions = self.draw(question_places, self.questions, QUESTION_STREAM)
        corrupted, masked = self.corruptor.pieces(self.seed, epochs, documents)
        pieces = np.zeros((len(documents) + len(questions), *corrupted.shape[1:]), np.int64)  # (rows, pieces, 2)
        pieces[: len(documents)] = self.place[corrupted]
        pieces[len(documents) :, 0] = self.question_pieces[questions]
        counted = np.ones(pieces.shape[:2], bool)
        counted[: len(documents)] = masked | self.stage.context_loss
        # Where each piece ends in its row; clipped, so that pieces beyond the context become empty or shorter.
        ends = np.cumsum(pieces[..., 1] - pieces[..., 0], axis=1).clip(max=self.max_length)
        order = np.argsort(ends[:, -1], kind="stable") if self.stage.bucket_batches > 1 else slice(None)
        lengths = np.diff(ends, axis=1, prepend=0)[order]
        row_lengths = ends[order, -1]
        first_targets = np.concatenate([self.document_targets[documents], self.question_targets[questions]])[order]
        # Whether each token is at or after its row's first target.
        late = ranges(np.zeros_like(row_lengths), row_lengths) >= np.repeat(first_targets, row_lengths)
        return Rows(
            ids=self.ids[ranges(pieces[order, :, 0].ravel(), lengths.ravel())],
            lengths=row_lengths,
            targets=late & np.repeat(counted[order].ravel(), lengths.ravel()),
            examples=np.concatenate([documents, self.documents + questions])[order],
        )

    def places(self, number: int) -> tuple[range, range]:
        """Return pool `number`'s places in the stream of documents and in that of questions."""
        # How many there were before is a product, rounded, and so needs no other pool.
        rows = self.stage.bucket_batches * self.stage.batch_size
        first, end = (self.stage.question_rows(pools) for pools in (number, number + 1))
        return range(rows * number - first, rows * (number + 1) - end), range(first, end)

    def draw(self, places: range, size: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        """Return epochs and indices of the examples at these places of an endless stream of shuffled epochs."""
        epochs, within = np.divmod(np.arange(places.start, places.stop), max(1, size))
        indices = np.empty_like(within)
        # A pool may begin in one epoch and end in another, several later where there are few examples.
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            indices[chosen] = permutation(size, self.seed, stream, int(epoch))[within[chosen]]
        return epochs, indices

    def name(self, examples: np.ndarray) -> list[str]:
        """Return names of examples, for messages."""
        return [
            f"document {index}" if index < self.documents else f"question {index - self.documents}"
            for index in examples.tolist()
        ]

    def drawn_for(self, step: int) -> list[str]:
        """Name the examples of which batch `step` and others of its pool are made, without making any."""
        documents, questions = self.places(step // self.stage.bucket_batches)
        _, drawn = self.draw(documents, self.documents, DOCUMENT_STREAM)
        _, asked = self.draw(questions, self.questions, QUESTION_STREAM)
        return self.name(np.concatenate([drawn, self.documents + asked]))


def count_prompt(ids: list[int], sentinel: int) -> int:
    """Return how many ids end with the first sentinel; all of them where there is none."""
    return ids.index(sentinel) + 1 if sentinel in ids else len(ids)


def count_targets(labels: torch.Tensor) -> int:
    """Return how many tokens of a batch the loss counts; the first of a row is never predicted."""
    return int((labels[:, 1:] != IGNORE_INDEX).sum())
