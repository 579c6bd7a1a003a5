"""The k most probable of many answers, exactly, by best-first search in their trie.

A prefix is at least as probable as every answer that begins with it. So the search reads the most probable prefixes
first, and is done when no prefix that is left is as probable as the k-th best answer found: of 50,000 answers it reads
some ten prefixes. With the answers "New York", "New Delhi" and "York" and k = 1,

    the question is read:  New 0.7, York 0.2
    New is read:           New York 0.5, New Delhi 0.1, York 0.2
    New York is read:      it ends there with 0.9, so the answer "New York" has 0.45; no other prefix has as much

and York and New Delhi are never read.
"""

import math
from bisect import insort
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answer_trie_minigpt import AnswerTrie, SearchTree
from .answers_minigpt import Answer, log_cutoff
from .reading_minigpt import ReadTexts, continue_texts, next_logits, read_questions

MAX_WIDTH = 8  # prefixes that a question reads at a time, at most: of more, few would have been read one by one


class Search:
    """The state of one question's search: prefixes that may be read next, and the best answers so far.

    Args:
        tree: the answers.
        k: how many answers are wanted.
        log_probs: of the first token, (V,).
        min_log_prob: first tokens that have less are not read.
    """

    def __init__(self, tree: SearchTree, k: int, log_probs: np.ndarray, min_log_prob: float):
        self.tree = tree
        self.k = k
        self.found: list[tuple[float, int]] = []  # (-log-probability, answer), best first: among equals, by answer
        scores = log_probs[tree.tokens[tree.first]]
        kept = scores >= min_log_prob
        self.prefixes = tree.first[kept]
        self.scores = scores[kept].astype(np.float64)

    @property
    def floor(self) -> float:
        """The log-probability that an answer needs to be among the best k."""
        return -self.found[-1][0] if len(self.found) == self.k else -math.inf

    def take(self, count: int) -> list[tuple[int, float]]:
        """Remove up to `count` prefixes that may lead to one of the best k, the most probable first, with scores."""
        # As probable as the k-th best is enough: it may lead to an equal answer of a smaller number.
        open_ones = self.scores >= self.floor
        self.prefixes = self.prefixes[open_ones]
        self.scores = self.scores[open_ones]
        order = np.argsort(-self.scores, kind="stable")
        chosen, rest = order[:count], order[count:]
        taken = list(zip(self.prefixes[chosen].tolist(), self.scores[chosen].tolist(), strict=True))
        self.prefixes = self.prefixes[rest]
        self.scores = self.scores[rest]
        return taken

    def add(self, prefix: int, score: float, log_probs: np.ndarray, end: int) -> None:
        """Take in what was read of a prefix.

        Args:
            prefix: of `take`.
            score: its log-probability.
            log_probs: what follows each prefix from it to its end, (prefixes, V).
            end: the token that ends an answer.
        """
        tree = self.tree
        last = int(tree.ends[prefix])
        for row, place in enumerate(range(prefix + 1, last + 1)):
            score += float(log_probs[row, tree.tokens[place]])
        if tree.answers[last] >= 0:
            insort(self.found, (-score - float(log_probs[-1, end]), int(tree.answers[last])))
            del self.found[self.k :]
        children = tree.children[tree.starts[last] : tree.starts[last + 1]]
        if len(children):
            self.prefixes = np.concatenate([self.prefixes, children])
            self.scores = np.concatenate([self.scores, score + log_probs[-1, tree.tokens[children]]])


def read_prefixes(
    model: PreTrainedModel, read: ReadTexts, tree: SearchTree, jobs: Sequence[tuple[int, int]]
) -> list[np.ndarray]:
    """Return the log-probabilities of what follows each prefix, and those from it to its end, of some questions.

    Args:
        read: the questions.
        jobs: the number of a question and a prefix, R times.

    Returns:
        (prefixes, V) for each of the R, in float32.
    """
    device = read.tokens.device
    rows = [tree.path(int(tree.ends[prefix])) for _, prefix in jobs]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)  # (R, S)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    real = torch.arange(longest, device=device) < lengths[:, None]
    question = torch.tensor([question for question, _ in jobs], device=device)
    states = continue_texts(model, read, question, tokens, real)  # (R, S, C)
    # The head is applied where something is to be learned alone: from the prefix to its end.
    counts = [len(row) - int(tree.lengths[prefix]) + 1 for row, (_, prefix) in zip(rows, jobs, strict=True)]
    needed = real & (torch.arange(longest, device=device) >= (lengths - torch.tensor(counts, device=device))[:, None])
    log_probs = next_logits(model, states[needed]).log_softmax(-1).cpu().numpy()
    return np.split(log_probs, np.cumsum(counts)[:-1])


@torch.inference_mode()
def top_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    trie: AnswerTrie,
    k: int,
    cutoff: float = 0.0,
    rows_together: int = 128,
    read: ReadTexts | None = None,
) -> list[list[Answer]]:
    """Return the k most probable answers of a trie to each question of one batch, with their exact probabilities.

    The most probable is first, among equals the earlier one in the trie; all are returned where there are no more
    than k. Questions are read once, together; then each round reads the most probable prefixes of every question.

    Args:
        cutoff: answers whose first token is less probable than this are not read and have probability 0.
        rows_together: prefixes of a forward pass.
        read: the questions, where they have been read.
    """
    tree = trie.search_tree
    read = read or read_questions(model, tokenizer, questions)
    first_token_log_probs = next_logits(model, read.states[:, -1]).log_softmax(-1).cpu().numpy()  # (B, V)
    k = min(k, trie.size)
    lowest = log_cutoff(cutoff)
    searches = [Search(tree, k, log_probs, lowest) for log_probs in first_token_log_probs]
    active = list(range(len(searches)))
    while active:
        width = min(MAX_WIDTH, max(1, rows_together // len(active)))
        taken = [(number, *job) for number in active for job in searches[number].take(width)]
        for start in range(0, len(taken), rows_together):
            some = taken[start : start + rows_together]
            jobs = [(number, prefix) for number, prefix, _ in some]
            following = read_prefixes(model, read, tree, jobs)
            for (number, prefix, score), log_probs in zip(some, following, strict=True):
                searches[number].add(prefix, score, log_probs, trie.end)
        active = sorted({number for number, _, _ in taken})
    return [best_answers(search, trie) for search in searches]


def best_answers(search: Search, trie: AnswerTrie) -> list[Answer]:
    """Return what a search found, and after that the first of the answers that it was not to read."""
    found = [Answer(trie.texts[number], math.exp(-cost)) for cost, number in search.found]
    numbers = {number for _, number in search.found}
    rest = (text for number, text in enumerate(trie.texts) if number not in numbers)
    return [*found, *(Answer(text, 0.0) for text, _ in zip(rest, range(search.k - len(found)), strict=False))]
