"""Exact-match accuracy of birthplaces, as an `evaluate` metric: `evaluate.load("evaluation/birthplace_accuracy")`."""

from typing import Any

import datasets
import evaluate

_DESCRIPTION = "Share of answers equal to the reference once surrounding white space is stripped, as published."
_KWARGS_DESCRIPTION = """
Args:
    predictions: answers, one string per question; None, an abstention, is not right.
    references: the right places, one string per question.
Returns:
    accuracy: correct / total, between 0 and 1.
    correct: how many answers were right.
    total: how many questions there were.
"""
_CITATION = "Stanford CS224N, assignment 5 (2021): self-attention, transformers, pretraining."


def is_exact_match(answer: str | None, place: str) -> bool:
    """Return whether an answer is the reference place, surrounding white space aside; None is no answer."""
    return answer is not None and answer.strip() == place.strip()


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BirthplaceAccuracy(evaluate.Metric):
    """Strip, compare, count."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _enforce_nested_string_type(self, schema: Any, obj: Any) -> Any:
        # The library refuses a batch whose first text is None, and takes None anywhere else.
        return None if obj is None else super()._enforce_nested_string_type(schema, obj)

    def _compute(self, predictions: list[str | None], references: list[str]) -> dict[str, float | int]:
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} references; wanted as many of each")
        if not references:
            raise ValueError("there are no answers to score")
        if None in references:
            raise ValueError(f"reference {references.index(None)} is None, wanted a place")
        correct = sum(map(is_exact_match, predictions, references))
        return {"accuracy": correct / len(references), "correct": correct, "total": len(references)}
