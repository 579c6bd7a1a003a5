"""Answers as a trie of their tokens: in flat arrays, in rows to score all of them, and as a tree to search in."""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

TOKENIZED_TOGETHER = 1024  # answers: the library's own objects take a hundred times the memory of the tokens


class Rows(NamedTuple):
    """Prefixes of answers, laid out in rows that follow their questions.

    Attributes:
        question: which question each row follows, (R,).
        prefixes: the trie's prefixes in it, (R, S); -1 for padding.
        parents: the position in the row of each one's parent, (R, S); -1 where that is the question.
    """

    question: torch.Tensor
    prefixes: torch.Tensor
    parents: torch.Tensor

    def part(self, some: torch.Tensor) -> "Rows":
        """Take some of the rows, cut to the longest of them."""
        longest = int((self.prefixes[some] >= 0).sum(-1).max())
        return Rows(self.question[some], self.prefixes[some, :longest], self.parents[some, :longest])


def pad_rows(rows: Sequence[list[int]]) -> torch.Tensor:
    """Return lists as one tensor (R, S), padded by -1."""
    longest = max(map(len, rows), default=0)
    padded = [row + [-1] * (longest - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.long).reshape(len(rows), longest)


def number_answers(answers: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> dict[tuple[int, ...], int]:
    """Return the number of each answer, from 0, by its tokens; ValueError for an empty one or two with the same."""
    numbers: dict[tuple[int, ...], int] = {}
    for start in range(0, len(answers), TOKENIZED_TOGETHER):
        some = list(answers[start : start + TOKENIZED_TOGETHER])
        for number, (answer, ids) in enumerate(
            zip(some, tokenizer(some, verbose=False)["input_ids"], strict=True), start
        ):
            if not answer.strip() or not ids:
                raise ValueError(f"answer {number + 1} is empty")
            if numbers.setdefault(tuple(ids), number) != number:
                raise ValueError(f"answers {numbers[tuple(ids)] + 1} and {number + 1} are the same: {answer!r}")
    return numbers


Layout = tuple[list[int], list[int]]  # prefixes, and the position of each one's parent among them; -1 for none


class AnswerTrie:
    """Answers as a trie of tokens, so that a common beginning is read once.

    The answers "New York", "New Delhi" and "York" (one token a word) have the prefixes, in sorted order,

        0: New          no answer, parent: the question
        1: New Delhi    answer 1, parent: prefix 0
        2: New York     answer 0, parent: prefix 0
        3: York         answer 2, parent: the question

    and the first tokens New and York. With tree attention one row reads all four, each prefix seeing the question and
    its own ancestors: 4 tokens instead of the 5 of one row per answer.

    Its arrays grow with the tokens of the answers. Only full scoring needs the square `is_ancestor`, `branches` and
    `chains`: each is made when it is first asked for, so that a trie to be searched has none of them.

    Args:
        answers: texts; as a model's answers they stand after the sentinel and before another.
        tokenizer: the model's.

    Attributes:
        texts: the answers.
        size: how many there are.
        tokens: the last token of each prefix, (N,).
        answers: which answer each prefix is, whole, (N,); -1 for none.
        lengths: the number of tokens of each prefix, (N,).
        parents: the prefix that each extends by one token, (N,); -1 for the first tokens.
        first: the first tokens of all answers, (F,).

    Raises:
        ValueError: no answers, an empty one, or two that have the same tokens.
    """

    def __init__(self, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase):
        if not answers:
            raise ValueError("found no answers to score")
        self.texts = tuple(answers)
        self.size = len(answers)
        self.end = tokenizer.eos_token_id
        tokens: list[int] = []
        wholes: list[int] = []
        lengths: list[int] = []
        parents: list[int] = []
        path: list[int] = []  # the prefixes of the last answer
        # Sorted, each prefix comes right after its parent and the parent's earlier children.
        for ids, number in sorted(number_answers(self.texts, tokenizer).items()):
            shared = next(
                (at for at, place in enumerate(path) if at == len(ids) or tokens[place] != ids[at]), len(path)
            )
            del path[shared:]
            for token in ids[shared:]:
                parents.append(path[-1] if path else -1)
                path.append(len(tokens))
                tokens.append(token)
                wholes.append(-1)
                lengths.append(len(path))
            wholes[-1] = number
        self.tokens = torch.tensor(tokens)
        self.answers = torch.tensor(wholes)
        self.lengths = torch.tensor(lengths)
        self.parents = torch.tensor(parents)
        self.first = self.tokens[self.lengths == 1]

    @cached_property
    def is_ancestor(self) -> torch.Tensor:
        """Whether prefix j is prefix i or one of its ancestors, at [i, j] of (N, N)."""
        found = torch.eye(len(self.tokens), dtype=torch.bool)
        for place, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                found[place] |= found[parent]  # complete already: parents come first
        return found

    @cached_property
    def branches(self) -> list[list[Layout]]:
        """For each first token, in a list of its own, the layout of all prefixes that begin with it."""
        starts = [*torch.nonzero(self.lengths == 1).flatten().tolist(), len(self.tokens)]
        return [
            [(list(range(start, end)), [max(-1, parent - start) for parent in self.parents[start:end].tolist()])]
            for start, end in pairwise(starts)
        ]

    @cached_property
    def chains(self) -> list[list[Layout]]:
        """For each first token, the layout of every answer that begins with it: its prefixes one after the other."""
        chains: dict[int, list[Layout]] = {}
        for place in torch.nonzero(self.answers >= 0).flatten().tolist():
            path = self.path(place)
            chains.setdefault(path[0], []).append((path, list(range(-1, len(path) - 1))))
        return list(chains.values())

    @cached_property
    def search_tree(self) -> "SearchTree":
        """The same trie as arrays to search in."""
        return SearchTree(self)

    def path(self, place: int) -> list[int]:
        """Return a prefix's ancestors, the first token's before all, and the prefix itself."""
        path = []
        while place >= 0:
            path.append(place)
            place = int(self.parents[place])
        return path[::-1]

    def rows(self, kept: torch.Tensor, tree_attention: bool, width: int = 16) -> Rows:
        """Lay out the prefixes that begin with the kept first tokens.

        Args:
            kept: whether the answers with a first token are read after a question, (B, F).
            tree_attention: put several answers into a row, which needs an attention mask that separates them.
            width: prefixes in such a row, unless those of one first token need more; few, so that rows are of similar
                lengths and little of a batch is padding.
        """
        layouts = self.branches if tree_attention else self.chains
        laid: list[tuple[int, list[int], list[int]]] = []
        # Layouts fill a row until the next would not fit; a question always begins a row of its own, since a row
        # follows one question. With width 3, layouts of 2, 1 and 2 prefixes make the rows (2 + 1) and (2).
        for question, chosen in enumerate(kept.tolist()):
            row: tuple[int, list[int], list[int]] | None = None
            for several in (layout for layout, follow in zip(layouts, chosen, strict=True) if follow):
                for prefixes, parents in several:
                    if row is None or not tree_attention or len(row[1]) + len(prefixes) > width:
                        row = (question, [], [])
                        laid.append(row)
                    start = len(row[1])  # by which the positions of parents move, as the layout does
                    row[1].extend(prefixes)
                    row[2].extend(parent if parent < 0 else start + parent for parent in parents)
        laid.sort(key=lambda row: len(row[1]))  # rows of similar length are read together, with little padding
        return Rows(
            question=torch.tensor([row[0] for row in laid], dtype=torch.long),
            prefixes=pad_rows([row[1] for row in laid]),
            parents=pad_rows([row[2] for row in laid]),
        )


class SearchTree:
    """A trie as arrays to search in: what follows each prefix, and where the next choice is.

    Attributes:
        tokens, answers, lengths: the trie's, (N,).
        ends: for each prefix the first one from it on that is an answer or has several children, (N,). Up to there
            nothing is to be chosen, so both are read in one row.
        children, starts: the children of prefix i are `children[starts[i] : starts[i + 1]]`.
    """

    def __init__(self, trie: AnswerTrie):
        self.tokens = trie.tokens.numpy()
        self.answers = trie.answers.numpy()
        self.lengths = trie.lengths.numpy()
        parents = trie.parents.numpy()
        self.parents = parents
        order = np.argsort(parents, kind="stable")
        self.first = order[: len(trie.first)]  # those whose parent is the question
        self.children = order[len(trie.first) :]
        counts = np.bincount(parents[self.children], minlength=len(parents))
        self.starts = np.concatenate([[0], counts.cumsum()])
        # An only child is the prefix right behind its parent, so the end is the next prefix that has a choice.
        choices = np.where((counts != 1) | (self.answers >= 0), np.arange(len(parents)), len(parents))
        self.ends = np.minimum.accumulate(choices[::-1])[::-1]

    def path(self, place: int) -> list[int]:
        """Return the tokens of a prefix."""
        path = []
        while place >= 0:
            path.append(int(self.tokens[place]))
            place = self.parents[place]
        return path[::-1]
