"""Why pretraining matters: accuracy and confidence by how often training showed the person, the place, and both."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data_scripts.questions import Question
from data_scripts.words import is_named
from modeling_minigpt.answers_minigpt import Answer

BOUNDS = (1, 2, 4, 16)  # times seen: never, once, 2 to 3, 4 to 15, more
LABELS = ("never", "once", "2 – 3", "4 – 15", "16 or more")


def count_exposures(
    questions: Sequence[Question], documents: Sequence[str], train: Sequence[Question]
) -> dict[str, list[int]]:
    """Return how often each question's person and answer were there to be learned from.

    Args:
        questions: those that are asked.
        documents: what was pretrained on.
        train: the training questions.

    Returns:
        "person": documents that name the person; "place": documents that name the place and training answers that
        are it; "both": documents that name both.
    """
    answers = Counter(question.answer for question in train)
    counts: dict[str, list[int]] = {"person": [], "place": [], "both": []}
    for question in questions:
        place = question.answer
        own = [document for document in documents if is_named(question.name, document)]
        counts["person"].append(len(own))
        counts["place"].append(sum(is_named(place, document) for document in documents) + answers[place])
        counts["both"].append(sum(is_named(place, document) for document in own))
    return counts


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
