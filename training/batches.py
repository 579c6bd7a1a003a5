"""Training batches as a pure function of (seed, step): the same on any number of processes, before or after a crash.

Step s belongs to pool s // bucket_batches. A pool draws the rows of that many batches, so many documents (corrupted
anew each epoch) and so many questions of each epoch's permutation, sorts them by length and deals them into batches,
so that little of a batch is padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from data_scripts.bios_folder import split_title
from data_scripts.birthplace_qa import question_text
from data_scripts.span_corruption import CorruptionOptions, corrupt
from training.arguments import StageArguments

IGNORE_INDEX = -100
DOCUMENT_STREAM, QUESTION_STREAM, BATCH_ORDER = range(3)  # what a random permutation is for


@dataclass(frozen=True)
class Row:
    """One tokenised example: its ids, the first position that counts in the loss, and whence it came."""

    input_ids: list[int]
    first_target: int
    example: str  # `document 12` or `question 7`, for messages


@lru_cache(maxsize=8)
def permutation(size: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """Return the order of `size` examples in one epoch of one stream."""
    return np.random.default_rng([seed, stream, epoch]).permutation(size)


class TrainingBatches(torch.utils.data.Dataset):
    """Batch number `step` of a stage, whole: `{"input_ids", "labels"}`, each (B, T), padded on the right.

    No attention mask is needed: a causal model never looks right, and padding has no label.

    Args:
        documents: biographies, corrupted as `corruption` says.
        questions: (question, place) pairs.
        tokenizer: gives ids, the sentinel and the pad.
        stage: batch size, share of questions, bucketing.
        seed: names all random draws.
        max_length: the model's context in tokens; longer rows are cut.
    """

    def __init__(
        self,
        documents: Sequence[str],
        questions: Sequence[tuple[str, str]],
        tokenizer: PreTrainedTokenizerBase,
        stage: StageArguments,
        corruption: CorruptionOptions,
        seed: int,
        max_length: int,
    ):
        self.documents, self.questions = documents, questions
        self.answers = frozenset(place for _, place in questions)
        self.tokenizer, self.stage, self.corruption = tokenizer, stage, corruption
        self.seed, self.max_length = seed, max_length
        questions_per_epoch = stage.question_fraction == 1.0
        self.steps = stage.total_steps(len(questions) if questions_per_epoch else len(documents))
        self._pool_number, self._pool = -1, []

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rows = self.rows(step)
        length = max(len(row.input_ids) for row in rows)
        input_ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        labels = torch.full((len(rows), length), IGNORE_INDEX)
        for index, row in enumerate(rows):
            ids = torch.tensor(row.input_ids)
            input_ids[index, : len(ids)] = ids
            labels[index, row.first_target : len(ids)] = ids[row.first_target :]
        return {"input_ids": input_ids, "labels": labels}

    def rows(self, step: int) -> list[Row]:
        """Return the rows of batch `step`."""
        number, place = divmod(step, self.stage.bucket_batches)
        if number != self._pool_number:
            self._pool_number, self._pool = number, self.pool(number)
        return self._pool[place]

    def pool(self, number: int) -> list[list[Row]]:
        """Draw, corrupt and tokenise the batches of pool `number`."""
        batches, size = self.stage.bucket_batches, self.stage.batch_size
        documents, questions = self.places(number)
        rows = self.document_rows(documents) + self.question_rows(questions)
        if batches == 1:
            return [rows]
        rows.sort(key=lambda row: len(row.input_ids))
        order = np.random.default_rng([self.seed, BATCH_ORDER, number]).permutation(batches)
        return [rows[batch * size : (batch + 1) * size] for batch in order]

    def places(self, number: int) -> tuple[range, range]:
        """Return pool `number`'s places in the stream of documents and in that of questions."""
        rows = self.stage.bucket_batches * self.stage.batch_size
        questions = round(rows * self.stage.question_fraction)
        documents = rows - questions
        return range(documents * number, documents * (number + 1)), range(questions * number, questions * (number + 1))

    def draw(self, places: range, size: int, stream: int) -> list[tuple[int, int]]:
        """Return (epoch, index) of the examples at these places of an endless stream of shuffled epochs."""
        drawn = []
        for place in places:
            epoch, index = divmod(place, size)
            drawn.append((epoch, int(permutation(size, self.seed, stream, epoch)[index])))
        return drawn

    def drawn_for(self, step: int) -> list[str]:
        """Name the examples of which batch `step` and others of its pool are made, without reading any."""
        documents, questions = self.places(step // self.stage.bucket_batches)
        return [
            *(f"document {index}" for _, index in self.draw(documents, len(self.documents), DOCUMENT_STREAM)),
            *(f"question {index}" for _, index in self.draw(questions, len(self.questions), QUESTION_STREAM)),
        ]

    def document_rows(self, places: range) -> list[Row]:
        """Return corrupted documents; all their tokens are targets, but for the title's where `title_loss` is off."""
        drawn, sentinel = self.draw(places, len(self.documents), DOCUMENT_STREAM), self.tokenizer.mask_token
        texts = [
            corrupt(self.documents[index], self.seed, epoch, index, self.corruption, sentinel, self.answers)
            for epoch, index in drawn
        ]
        return [
            Row(ids, 0 if self.stage.title_loss else self.title_lengths[index], f"document {index}")
            for ids, (_, index) in zip(self.encode(texts), drawn, strict=True)
        ]

    @cached_property
    def title_lengths(self) -> list[int]:
        """The number of tokens of each document's title and full stop."""
        titles = [split_title(document)[0] for document in self.documents]
        ids = self.encode([f"{title}." for title in titles])
        return [len(own) if title else 0 for title, own in zip(titles, ids, strict=True)]

    def question_rows(self, places: range) -> list[Row]:
        """Return questions; the tokens after the first sentinel are targets."""
        drawn, sentinel = self.draw(places, len(self.questions), QUESTION_STREAM), self.tokenizer.mask_token_id
        texts = [question_text(*self.questions[index], self.tokenizer.mask_token) for _, index in drawn]
        return [
            Row(ids, ids.index(sentinel) + 1 if sentinel in ids else len(ids), f"question {index}")
            for ids, (_, index) in zip(self.encode(texts), drawn, strict=True)
        ]

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Tokenise texts, each cut to the model's context."""
        if not texts:
            return []
        return self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]


def count_targets(labels: torch.Tensor) -> int:
    """Return how many tokens of a batch the loss counts; the first of a row is never predicted."""
    return int((labels[:, 1:] != IGNORE_INDEX).sum())
