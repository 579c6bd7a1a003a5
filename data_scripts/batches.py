"""Training batches as a pure function of (seed, step): the same on any number of processes, before or after a crash.

Step s belongs to pool s // bucket_batches. A pool draws the rows of that many batches: documents, which each epoch
corrupts differently, and questions, both in the order of the epoch's permutation. It sorts them by length and cuts
them into batches, so that little of a batch is padding. All texts were tokenised once, into tables; a pool reads the
rows that it draws, and a batch is put together from pieces of them.

With bucket_batches = 2 and batches of two rows, three documents A, B, C and no questions, pool 0 draws places 0 … 3 of
the endless stream B A C | C B A | …, where | separates epochs:

    drawn     B A C C'          C' is C as the second epoch corrupts it
    lengths   9 4 7 5
    sorted    A C' C B
    batches   (A C') (C B)      in an order of their own, so that short batches do not always come first

A resumed run computes the same pool again. Each of several processes reads and corrupts it whole, as the lengths of
all rows decide which batch each is in, and puts together its own rows of a batch alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from configuration.schema import CorruptionOptions, StageArguments
from data_scripts.annotated_texts import Annotator
from data_scripts.bios_folder import DataError
from data_scripts.counter_random import derive_keys, uniform
from data_scripts.permutations import permute
from data_scripts.questions import Question
from data_scripts.ragged import ranges
from data_scripts.span_corruption import SpanCorruptor
from data_scripts.tokens import DocumentTable, QuestionTable

IGNORE_INDEX = -100
# What a random permutation is for; part of its seed, so that documents and questions are shuffled independently.
DOCUMENT_STREAM, QUESTION_STREAM, BATCH_ORDER = range(3)
# Index of the random number that decides on an example's title, beyond all that its corruption draws.
TITLE = 2**62


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


@dataclass(frozen=True)
class Pool:
    """Rows that are drawn, corrupted and sorted, but not yet put together: each is pieces of tokens.

    Attributes:
        ids: tokens that the pieces are parts of.
        first: where in `ids` each piece begins; (N, pieces).
        lengths: of the pieces, in tokens; (N, pieces).
        counted: whether the tokens of each piece count in the loss; (N, pieces).
        first_targets: the first token of each row that may count; (N,).
        examples: as in `Rows`.
    """

    ids: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    counted: np.ndarray
    first_targets: np.ndarray
    examples: np.ndarray

    def rows(self, chosen: np.ndarray) -> Rows:
        """Put together the chosen rows."""
        lengths = self.lengths[chosen]
        row_lengths = lengths.sum(1)
        targets = np.repeat(self.counted[chosen].ravel(), lengths.ravel())
        # Not what comes before a row's first target.
        row_starts = np.cumsum(row_lengths) - row_lengths
        targets[ranges(row_starts, np.minimum(self.first_targets[chosen], row_lengths))] = False
        return Rows(
            ids=self.ids[ranges(self.first[chosen].ravel(), lengths.ravel())],
            lengths=row_lengths,
            targets=targets,
            examples=self.examples[chosen],
        )

    def count_targets(self, chosen: np.ndarray) -> int:
        """Return how many tokens of the chosen rows the loss counts, without putting them together."""
        ends = np.cumsum(self.lengths[chosen], axis=1)
        # The first token of a row is never predicted.
        first = np.maximum(self.first_targets[chosen], 1)[:, None]
        late = ends - np.maximum(ends - self.lengths[chosen], first)
        return int(late[self.counted[chosen] & (late > 0)].sum())


class TrainingBatches(torch.utils.data.Dataset):
    """Batch number `step` of a stage, whole: `{"input_ids", "labels"}`, each (B, T), padded on the right.

    No attention mask is needed: a causal model never looks right, and padding has no label.

    Args:
        documents: the tokens of biographies, corrupted as `corruption` says; None where all rows are questions. All
            their tokens are targets, except the title's where `title_loss` is off or `title_fraction` leaves it out,
            and all but the masked spans where `context_loss` is off.
        questions: those of questions. Their targets are the tokens after the first sentinel.
        tokenizer: gives the sentinel and the pad.
        stage: batch size, share of questions, bucketing.
        corruption: the one that the documents' table was made for.
        seed: of all random draws.
        max_length: the model's context in tokens; longer rows are cut.

    Raises:
        DataError: as `StageArguments.check_mix`.
    """

    def __init__(
        self,
        documents: DocumentTable | None,
        questions: QuestionTable,
        tokenizer: PreTrainedTokenizerBase,
        stage: StageArguments,
        corruption: CorruptionOptions,
        seed: int,
        max_length: int,
    ):
        self.document_table = documents
        self.question_table = questions
        self.stage = stage
        self.corruption = corruption
        self.seed = seed
        self.max_length = max_length
        self.pad_token_id = tokenizer.pad_token_id
        self.sentinel = tokenizer.mask_token_id
        self.documents = 0 if documents is None else len(documents)
        self.questions = len(questions)
        self.steps = stage.total_steps(self.questions if documents is None else self.documents)
        try:
            stage.check_mix(self.steps)
        except ValueError as error:
            raise DataError(error) from error
        self._pool_number = -1
        self._pool = None

    @classmethod
    def from_texts(
        cls,
        documents: Sequence[str],
        questions: Sequence[Question],
        tokenizer: PreTrainedTokenizerBase,
        stage: StageArguments,
        corruption: CorruptionOptions,
        seed: int,
        max_length: int,
    ) -> "TrainingBatches":
        """Return the batches of texts in memory, by the same tables."""
        document_table = None
        if stage.question_fraction < 1.0:
            annotator = Annotator.for_questions(questions, corruption, documents)
            document_table = DocumentTable.of(documents, tokenizer, annotator)
        question_table = QuestionTable.of(questions, tokenizer)
        return cls(document_table, question_table, tokenizer, stage, corruption, seed, max_length)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        return self.tensors(self.rows(step))

    def tensors(self, rows: Rows, width: int | None = None) -> dict[str, torch.Tensor]:
        """Return rows as a batch, padded to `width` tokens, or to the longest of them."""
        # Boolean assignment fills row by row, in the order in which `rows.ids` has them.
        real = np.arange(rows.lengths.max() if width is None else width) < rows.lengths[:, None]  # (B, T)
        input_ids = np.full(real.shape, self.pad_token_id)
        labels = np.full(real.shape, IGNORE_INDEX)
        input_ids[real] = rows.ids
        labels[real] = np.where(rows.targets, rows.ids, IGNORE_INDEX)
        return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}

    def rows(self, step: int, own: np.ndarray | None = None) -> Rows:
        """Return the rows of batch `step`, or those of these numbers."""
        pool, chosen = self.find(step)
        return pool.rows(chosen if own is None else chosen[own])

    def share(self, step: int, own: np.ndarray) -> tuple[dict[str, torch.Tensor], int]:
        """Return some rows of batch `step`, as long as its longest, and how many tokens of all of it the loss counts.

        The other rows are not put together.
        """
        rows = self.rows(step, own)
        pool, chosen = self.find(step)
        width = int(pool.lengths[chosen].sum(1).max())
        return self.tensors(rows, width), pool.count_targets(chosen)

    def find(self, step: int) -> tuple[Pool, np.ndarray]:
        """Return the pool of batch `step`, and which of its rows are the batch."""
        number, place = divmod(step, self.stage.bucket_batches)
        if number != self._pool_number:
            self._pool = self.pool(number)
            self._pool_number = number
        if self.stage.bucket_batches > 1:
            place = int(permute(np.array([place]), self.stage.bucket_batches, self.seed, BATCH_ORDER, number)[0])
        return self._pool, np.arange(place * self.stage.batch_size, (place + 1) * self.stage.batch_size)

    def pool(self, number: int) -> Pool:
        """Draw and corrupt the rows of pool `number`, shortest first where there are several batches of them."""
        document_places, question_places = self.places(number)
        epochs, documents = self.draw(document_places, self.documents, DOCUMENT_STREAM)
        _, questions = self.draw(question_places, self.questions, QUESTION_STREAM)
        text_ids, text_pieces, counted, text_targets = self.corrupt(epochs, documents)
        question_ids, lengths, prompts = self.question_table.read(questions)
        # Documents, then questions, in one array of ids: a row of either kind is pieces of it.
        ends = len(text_ids) + np.cumsum(lengths)
        pieces = np.zeros((len(documents) + len(questions), *text_pieces.shape[1:]), np.int64)  # (N, pieces, 2)
        pieces[: len(documents)] = text_pieces
        pieces[len(documents) :, 0] = np.stack([ends - lengths, ends], 1)
        counted = np.concatenate([counted, np.ones((len(questions), counted.shape[1]), bool)])
        # Where each piece ends in its row; clipped, so that pieces beyond the context become empty or shorter.
        ends = np.cumsum(pieces[..., 1] - pieces[..., 0], axis=1).clip(max=self.max_length)
        order = np.argsort(ends[:, -1], kind="stable") if self.stage.bucket_batches > 1 else np.arange(len(ends))
        return Pool(
            ids=np.concatenate([text_ids, question_ids]),
            first=pieces[order, :, 0],
            lengths=np.diff(ends, axis=1, prepend=0)[order],
            counted=counted[order],
            first_targets=np.concatenate([text_targets, prompts])[order],
            examples=np.concatenate([documents, self.documents + questions])[order],
        )

    def corrupt(self, epochs: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, ...]:
        """Read and corrupt documents.

        Returns:
            Their tokens, (tokens,); where in these each piece begins and ends, (N, pieces, 2); whether it counts in
            the loss, (N, pieces); and each row's first token that may, (N,).
        """
        if self.document_table is None:
            none = np.zeros(0, np.int64)
            return none, np.zeros((0, 1, 2), np.int64), np.zeros((0, 1), bool), none
        texts, tokens = self.document_table.read(documents, self.sentinel)
        corruptor = SpanCorruptor(texts, self.corruption)
        pieces, masked = corruptor.pieces(self.seed, epochs, documents, np.arange(len(documents)))
        # A question contains the name, so the title need not be predicted: where it is not in the loss it is context.
        titles = tokens.place[texts.title_ends] - tokens.place[texts.starts[:-1]]
        targets = np.where(self.title_counts(epochs, documents), 0, titles)
        return tokens.ids, tokens.place[pieces], masked | self.stage.context_loss, targets

    def title_counts(self, epochs: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return whether the title of each document, (N,), counts in the loss in these epochs, (N,)."""
        share = self.stage.title_fraction if self.stage.title_loss else 0.0
        return uniform(derive_keys(self.seed, epochs, documents), TITLE) < share

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
            indices[chosen] = permute(within[chosen], size, self.seed, stream, int(epoch))
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


def count_targets(labels: torch.Tensor) -> int:
    """Return how many tokens of a batch the loss counts; the first of a row is never predicted."""
    return int((labels[:, 1:] != IGNORE_INDEX).sum())
