"""Exact-match accuracy of birthplaces, or other answers, as an `evaluate` metric.

evaluate.load("evaluation/birthplace_accuracy")
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

_DESCRIPTION = "Share of answers equal to the reference once surrounding white space is stripped, as published."
_KWARGS_DESCRIPTION = """
Args:
    predictions: answers, one string per question; None, an abstention, is not right.
    references: the right places, one string per question; or a list of strings per question, any of which is right.
Returns:
    accuracy: correct / total, between 0 and 1.
    correct: how many answers were right.
    total: how many questions there were.
"""
_CITATION = "Stanford CS224N, assignment 5 (2021): self-attention, transformers, pretraining."


def is_exact_match(answer: str | None, reference: str | Sequence[str]) -> bool:
    """Return whether an answer is the reference, or one of them, surrounding white space aside; None is no answer."""
    accepted = [reference] if isinstance(reference, str) else reference
    return answer is not None and any(answer.strip() == text.strip() for text in accepted)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BirthplaceAccuracy(evaluate.Metric):
    """Strip, compare, count."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": text, "references": text}),
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
            ],
        )

    def _infer_feature_from_batch(self, batch: dict) -> datasets.Features:
        # The library looks at the first question, even where there is none.
        return super()._infer_feature_from_batch(batch) if len(batch["references"]) else self.features[0]

    def _enforce_nested_string_type(self, schema: Any, obj: Any) -> Any:
        # The library refuses a batch whose first text is None, and takes None anywhere else.
        return None if obj is None else super()._enforce_nested_string_type(schema, obj)

    def _compute(self, predictions: list[str | None], references: list[str] | list[list[str]]) -> dict:
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} references; wanted as many of each")
        if not references:
            raise ValueError("there are no answers to score")
        for number, reference in enumerate(references):
            if reference is None or (isinstance(reference, list) and None in reference):
                raise ValueError(f"reference {number} is None, wanted a place")
            if not isinstance(reference, str) and not reference:
                raise ValueError(f"reference {number} is an empty list, wanted at least one place")
        correct = sum(map(is_exact_match, predictions, references))
        return {"accuracy": correct / len(references), "correct": correct, "total": len(references)}
