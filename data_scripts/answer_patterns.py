"""What the answers of a relation look like in documents: learned from people whose answers are known.

    Ada Stone. Ada Stone (born 3 May 1841 in Győr, Hungary) was a painter who lived in Rome .

Whoever has seen that "Where was … born?" is answered by what follows "born … in", near the beginning, finds Győr here,
though no training question has that answer, and takes neither Hungary nor Rome. So does a naive Bayes classifier
(Maron 1961) whose features are the words around a phrase, its rank among the document's phrases and its length.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from data_scripts.words import WORD

TOKEN = re.compile(r"\w+|[^\w\s]")
NEAR = 8  # tokens before a phrase among which order does not count
LONGEST = 3  # of the sequences of tokens right before and right after it
MAX_RANK = 4  # phrases after the first four are alike
MAX_WORDS = 3  # and so are longer ones
SMOOTHING = 0.5  # observations that every feature is given of either kind
EDGE = "^"  # beyond the text

Spans = Sequence[tuple[int, int]]


def shape(token: str) -> str:
    """Return a token without case, and "0" for every number."""
    return "0" if token.isdecimal() else token.lower()


def features_of(body: str, spans: Spans) -> list[list[str]]:
    """Return the features of each of a body's phrases, (start, end) in their order.

    Those of "Győr" above are its rank and length, "in", "0 in", "may 0 in" before it, "," and ", hungary" after it,
    and which of "(", "born", "0", "may", "in" are near.
    """
    found = [(token.start(), shape(token.group())) for token in TOKEN.finditer(body)]
    starts = [start for start, _ in found]
    tokens = [EDGE] * LONGEST + [token for _, token in found] + [EDGE] * (LONGEST - 1)
    features = []
    first = 0
    for rank, (start, end) in enumerate(spans):
        while first < len(starts) and starts[first] < start:
            first += 1
        last = first
        while last < len(starts) and starts[last] < end:
            last += 1
        at = first + LONGEST
        after = last + LONGEST
        before = tokens[max(LONGEST, at - NEAR) : at]
        features.append(
            [
                f"rank {min(rank, MAX_RANK)}",
                f"words {min(len(WORD.findall(body[start:end])), MAX_WORDS)}",
                *(f"before {' '.join(tokens[at - count : at])}" for count in range(1, LONGEST + 1)),
                *(f"after {' '.join(tokens[after : after + count])}" for count in range(1, LONGEST)),
                *(f"near {token}" for token in dict.fromkeys(before)),  # in one order, so that sums are the same
            ]
        )
    return features


class AnswerPatterns:
    """A naive Bayes classifier of a document's phrases: is this one the answer?

    Attributes:
        answers, others: how many right answers, and how many other phrases of the same documents, have each feature.
        observed: how many other phrases, and how many answers there were.
        documents: in which they were.
        weights: of each feature that was observed, the logarithm of how much more likely an answer has it than
            another phrase of the same document.
    """

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.observed = [0, 0]
        self.documents = 0
        self.weights: dict[str, float] = {}

    def observe(self, features: Sequence[Sequence[str]], is_answer: Sequence[bool]) -> None:
        """Take a document about somebody whose right answers are known: its phrases' features, and which are right."""
        # Where a document does not say it, nothing is to be learned of where it would.
        if not any(is_answer):
            return
        self.documents += 1
        for own, answers in zip(features, is_answer, strict=True):
            self.observed[answers] += 1
            (self.answers if answers else self.others).update(own)

    def fit(self) -> None:
        """Compute the weights."""
        others, answers = self.observed
        self.weights = {
            feature: math.log((self.answers[feature] + SMOOTHING) / (answers + 2 * SMOOTHING))
            - math.log((self.others[feature] + SMOOTHING) / (others + 2 * SMOOTHING))
            for feature in self.answers | self.others
        }

    def find(self, features: Sequence[Sequence[str]]) -> int | None:
        """Return the number of the phrase that looks most like the answer; None without phrases or observations."""
        if not features or not self.weights:
            return None
        scores = [sum(self.weights.get(one, 0.0) for one in own) for own in features]
        return max(range(len(scores)), key=scores.__getitem__)
