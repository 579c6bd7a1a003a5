"""Exact-match accuracy of birthplaces, as an `evaluate` metric: `evaluate.load("evaluation/birthplace_accuracy")`."""

import datasets
import evaluate

_DESCRIPTION = "Share of answers equal to the reference once surrounding white space is stripped, as published."
_KWARGS_DESCRIPTION = """
Args:
    predictions: answers, one string a question.
    references: the right places, one string a question.
Returns:
    accuracy: correct / total, between 0 and 1.
    correct: how many answers were right.
    total: how many questions there were.
"""
_CITATION = "Stanford CS224N, assignment 5 (2021): self-attention, transformers, pretraining."


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

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float | int]:
        if not references:
            raise ValueError("there are no answers to score")
        correct = sum(guess.strip() == place.strip() for guess, place in zip(predictions, references, strict=True))
        return {"accuracy": correct / len(references), "correct": correct, "total": len(references)}
