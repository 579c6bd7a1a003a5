"""The metadata of a model card: what the Hub files the model under, lists of its data and licence, and shows of it."""

import re
from collections.abc import Collection, Iterable

from huggingface_hub import EvalResult, ModelCardData

from evaluation.report import by_relation
from hub.licenses import LICENSES
from hub.local_paths import is_hub_id
from modeling_minigpt.pipeline_minigpt import HUB_TASK
from modeling_minigpt.relations_minigpt import BIRTHPLACE

METRICS = {  # key in results["trust"]: the metric's type, and its name
    "auroc_correct": ("roc_auc", "AUROC, right against wrong answers"),
    "auroc_made_up": ("roc_auc", "AUROC, known against made-up people"),
    "coverage_at_precision_90": ("coverage", "Coverage at 90 % precision"),
    "auroc_withheld": ("roc_auc", "AUROC, known against withheld people"),
    "ece_known": ("ece", "Expected calibration error of the chance to be known"),
    "ece_correct": ("ece", "Expected calibration error of the chance to be right"),
    "ece": ("ece", "Expected calibration error"),  # of before there were two chances
}
HUB_METRICS = ("exact_match", "roc_auc")  # those of the types above that https://hf.co/metrics has
DONT_KNOW = "I don't know"


def questions_of(results: dict) -> dict[str, str]:
    """Return the question of each relation, about NAME, by the relations' names as `by_relation` has them."""
    relations = results.get("relations", {})
    asked = {name: relations.get(name, {}).get("question", BIRTHPLACE.question) for name in by_relation(results)}
    return {name: question.replace("{name}", "NAME") for name, question in asked.items()}


def find_example(view: dict) -> dict | None:
    """Return a question of a relation with its right answer, as the pipeline gives it; None where none is known.

    Results of older versions have no such example; there it is one of the samples, answered rightly if one is.
    """
    if view.get("example"):
        return view["example"]
    samples = [sample for sample in view["samples"] if sample["place"] is not None]

    def is_right(sample: dict) -> bool:
        return sample["answer"] in sample.get("accepted", [sample["place"]])

    return max(samples, key=is_right, default=None)


def find_stranger(view: dict) -> dict | None:
    """Return the sample about a made-up person; None where there is none."""
    return next((sample for sample in view["samples"] if sample["place"] is None), None)


def widget_examples(results: dict) -> list[dict]:
    """Return examples for the Hub's widget, each with the pipeline's answer, so that no server has to compute it.

    The widget for questions takes only examples with a context, the text to read the answer from. Here there is none.
    """
    shown = []
    for view in by_relation(results).values():
        examples = {"Somebody in the training texts": find_example(view), "A made-up name": find_stranger(view)}
        for title, sample in examples.items():
            if sample is not None:
                output = {"answer": sample["answer"] or DONT_KNOW, "score": round(sample.get("score", 0.0), 4)}
                shown.append({"example_title": title, "text": sample["question"], "context": "", "output": output})
    return shown


def evaluation_results(results: dict) -> Iterable[EvalResult]:
    """Yield the metrics of each relation, for the card's metadata."""
    questions = questions_of(results)
    for name, view in by_relation(results).items():
        scores = [("exact_match", "Exact match", view[view["split"]]["accuracy"])]
        scores += [(kind, label, view["trust"][key]) for key, (kind, label) in METRICS.items() if key in view["trust"]]
        for kind, label, value in scores:
            if value is None:
                continue
            yield EvalResult(
                task_type="question-answering",
                task_name=questions[name],
                # The Hub joins the metrics of one type of data set.
                dataset_type="minigpt-birthplaces" if name in ("", BIRTHPLACE.name) else f"minigpt-{name}",
                dataset_name=results["dataset"],
                dataset_split=results["split"],
                metric_type=kind,
                metric_name=label,
                metric_value=round(value, 4),
            )


def find_dataset_id(source: dict) -> str | None:
    """Return the id on the Hub of the data set that a run was trained on, None where it was not read from there.

    Args:
        source: of the results; a folder may have the form of an id too, but has no revision.
    """
    name = source.get("path") if source.get("revision") else None
    return name if name and is_hub_id(name) else None


def license_fields(license: str | None) -> dict:
    """Return a licence as the Hub takes it: its name or names, else `other` with a name; nothing where None.

    Args:
        license: as the source of the data has it; several with commas between.
    """
    if license is None:
        return {}
    names = [name.strip() for name in license.split(",")]
    if all(name in LICENSES for name in names):
        return {"license": names[0] if len(names) == 1 else names}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", license.lower()).strip("-")}


def card_data(results: dict, repo_id: str, license: str | None, tasks: Collection[str]) -> ModelCardData:
    """Return the card's metadata.

    Args:
        results: of the run.
        repo_id: USER/NAME.
        license: what the model is published under, None where that is not known.
        tasks: those that the model's folder has a pipeline for.
    """
    start_from = results.get("start_from")
    dataset = find_dataset_id(results.get("source", {}))
    return ModelCardData(
        language="en",
        **license_fields(license),
        library_name="transformers",
        # The code on the model's page asks for a pipeline of this task, which models of older versions do not have.
        pipeline_tag=HUB_TASK if HUB_TASK in tasks else "text-generation",
        tags=["minigpt", "custom_code", "closed-book-question-answering"],
        base_model=start_from if start_from and is_hub_id(start_from) else None,
        datasets=[dataset] if dataset else None,
        metrics=list(HUB_METRICS),
        widget=widget_examples(results) or None,
        model_name=repo_id.split("/")[-1],
        eval_results=list(evaluation_results(results)),
    )
