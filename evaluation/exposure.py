"""Why pretraining matters: accuracy and confidence by how often training showed the person, the place, and both."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from data_scripts.name_finder import NameFinder
from data_scripts.questions import Question
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.confidence_minigpt import Scores

BOUNDS = (1, 2, 4, 16)  # times seen: never, once, 2 to 3, 4 to 15, more
HEADS = ("known", "correct")
LABELS = ("never", "once", "2 – 3", "4 – 15", "16 or more")


def count_exposures(
    questions: Sequence[Question], documents: Iterable[str], train: Iterable[Question]
) -> dict[str, list[int]]:
    """Return how often each question's person and answers were there to be learned from, in one pass.

    Args:
        questions: those that are asked.
        documents: what was pretrained on.
        train: the training questions.

    Returns:
        "person": documents that name the person; "place": documents that name one of the question's answers, and
        training answers that are one; "both": documents that name the person and one of the answers.
    """
    finder = NameFinder(phrase for question in questions for phrase in (question.name, *question.answers))
    # Questions with the same answers share a count: one place is the answer to many of them.
    by_answer: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    by_name: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for question in questions:
        by_name[question.name].add(question.answers)
        for answer in question.answers:
            by_answer[answer].add(question.answers)
    people: Counter[str] = Counter()
    places: Counter[tuple[str, ...]] = Counter()
    both: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for document in documents:
        named = finder.find(document)
        # A set: a document that names two of a question's answers is one document.
        answers = {answers for phrase in named if phrase in by_answer for answers in by_answer[phrase]}
        for wanted in answers:
            places[wanted] += 1
        for name in named:
            if name in by_name:
                people[name] += 1
                for wanted in by_name[name] & answers:
                    both[name, wanted] += 1
    learned = Counter(question.answer for question in train)
    return {
        "person": [people[question.name] for question in questions],
        "place": [
            places[question.answers] + sum(learned[answer] for answer in set(question.answers))
            for question in questions
        ],
        "both": [both[question.name, question.answers] for question in questions],
    }


def chances_by_exposure(times: Sequence[int], scores: Sequence[Scores], right: Sequence[bool]) -> list[dict]:
    """Return the mean probabilities and the accuracy for each range of how often the person was seen.

    Args:
        times: documents that name each question's person.
        scores: of each answer, with both chances.
        right: which answers are right.

    Returns:
        Rows `{"times", "questions", "known", "correct", "accuracy"}`: means, and the share of right answers.
    """
    ranges = np.array([bisect_right(BOUNDS, count) for count in times])
    rows = []
    for place, label in enumerate(LABELS):
        chosen = np.flatnonzero(ranges == place)
        if len(chosen):
            means = {head: float(np.mean([getattr(scores[one], head) for one in chosen])) for head in HEADS}
            accuracy = float(np.mean([right[one] for one in chosen]))
            rows.append({"times": label, "questions": len(chosen), **means, "accuracy": accuracy})
    return rows


def exposure_rows(
    counts: dict[str, list[int]], models: dict[str, tuple[Sequence[Answer], Sequence[bool]]]
) -> list[dict]:
    """Return a row for each kind of exposure and range of times seen that any question falls in.

    Args:
        counts: of `count_exposures`.
        models: each model's answers to the questions, and which are right.

    Returns:
        Rows `{"seen", "times", "questions", MODEL: {"accuracy", "confidence"}, …}`, confidence the mean probability
        of an answer.
    """
    rows = []
    for seen, times in counts.items():
        ranges = np.array([bisect_right(BOUNDS, count) for count in times])
        for place, label in enumerate(LABELS):
            chosen = np.flatnonzero(ranges == place)
            if not len(chosen):
                continue
            row: dict = {"seen": seen, "times": label, "questions": len(chosen)}
            for model, (answers, right) in models.items():
                row[model] = {
                    "accuracy": float(np.mean([right[index] for index in chosen])),
                    "confidence": float(np.mean([answers[index].probability for index in chosen])),
                }
            rows.append(row)
    return rows
