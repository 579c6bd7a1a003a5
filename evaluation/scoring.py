"""`train.py evaluate`: answers, baselines, predictions, results.json and the report."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from accelerate.logging import get_logger
from transformers import PreTrainedTokenizerFast

from artifacts.files import write_json, write_text
from artifacts.loading import load_pipeline
from artifacts.run_folder import STAGES, RunFolder, training_record
from artifacts.safe_loading import as_run_error
from configuration.schema import EvaluateArguments, Recipe
from data_scripts.questions import Question, question_about
from data_scripts.splits import TrainingData, load_scoring_questions, made_up_people
from evaluation.answers import answer_questions, exact_matches
from evaluation.baselines import ceiling, popular_places
from evaluation.birthplace_accuracy.birthplace_accuracy import BirthplaceAccuracy
from evaluation.exposure import count_exposures, exposure_rows
from evaluation.report import print_results, write_report
from evaluation.trained_on import TrainedOn, count_known, read_record
from evaluation.trust import STRANGERS, EvaluatedAnswers, confidence_metrics, fraction, plot_trust
from modeling_minigpt import BirthplacePipeline, MiniGPTForCausalLM
from modeling_minigpt.answers_minigpt import Answer

logger = get_logger(__name__)

SAMPLES = 3  # questions shown with their answers, before one about a stranger


def accuracy(texts: list[str], questions: Sequence[Question]) -> dict:
    """Score answers by the `birthplace_accuracy` metric."""
    # Not by `evaluate.load`, which copies the code to the home folder's cache: that may be read-only, or full.
    with tempfile.TemporaryDirectory() as cache:
        metric = BirthplaceAccuracy(keep_in_memory=True, cache_dir=cache)
    return metric.compute(predictions=texts, references=[question.answer for question in questions])


def ask_model(
    model: MiniGPTForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    how: EvaluateArguments,
) -> tuple[list[Answer], list[bool]]:
    """Return a model's answers to questions, and which of them are right."""
    texts = [question.text for question in questions]
    answers = answer_questions(model, tokenizer, texts, how.batch_size, how.max_new_tokens)
    return answers, exact_matches([answer.text for answer in answers], questions)


def sibling_baseline(model_path: Path, folder: RunFolder) -> Path | None:
    """Return the model without pretraining that belongs to a model: in this run, or beside it in its own."""
    candidates = (folder.stage("no_pretraining"), model_path.parent / "no_pretraining")
    return next((path for path in candidates if (path / "config.json").is_file()), None)


def sample_answers(
    texts: list[str], questions: Sequence[Question], strangers: list[str], made_up: Sequence[Answer]
) -> list[dict]:
    """Return the first questions with their answers, and one about a person who is in no document."""
    shown = zip(questions[:SAMPLES], texts, strict=False)
    samples = [{"question": one.text, "answer": answer, "place": one.answer} for one, answer in shown]
    stranger = zip(strangers[:1], made_up, strict=False)
    return samples + [
        {"question": question_about(n).text, "answer": answer.text, "place": None} for n, answer in stranger
    ]


def ask_all(
    pipeline: BirthplacePipeline, questions: Sequence[Question], made_up: list[str], withheld: Sequence[Question]
) -> EvaluatedAnswers:
    """Ask the pipeline, abstention aside, about known people and both kinds of strangers."""

    def ask(names: list[str]) -> list[Answer]:
        results = pipeline(names, batch_size=64, threshold=0.0)
        return [Answer(result["answer"] or "", result["score"]) for result in results]

    known = ask([question.name for question in questions])
    confidence = pipeline.confidence
    return EvaluatedAnswers(
        known,
        exact_matches([answer.text for answer in known], questions),
        ask(made_up),
        ask([question.name for question in withheld]),
        calibrated=confidence is not None,
        certificate=None if confidence is None else confidence.certificate,
    )


def describe(records: dict[str, dict], recipe: Recipe, data: TrainingData, model_path: Path) -> dict:
    """Return what the results say about the model and, by its stages' records, how it came to be."""
    return {
        "dataset": data.name,
        "seed": recipe.seed,
        "model": model_path.name,
        "train_minutes": {stage: record["minutes"] for stage, record in records.items()},
        "start_from": next((r["start_from"] for r in records.values() if r.get("start_from")), None),
    }


def warn_of_trained_questions(record: TrainedOn, questions: Sequence[Question], split: str) -> None:
    """Warn where questions that a model is scored on came with their answers in its training."""
    if count := count_known(questions, record.questions):
        logger.warning(
            f"answers to {count} of the {len(questions)} {split} questions were trained on: the accuracy is not on "
            "new questions alone"
        )


def score_run(folder: RunFolder, recipe: Recipe, data: TrainingData) -> dict:
    """Score a model, write everything about it into the run's folder, print the table; return the results.

    The model is `evaluate.model` of the recipe, or the run's own `finetune`. Its questions are the dev file's, which
    is opened here for the first time, or the held-out training questions where the recipe holds some out.
    """
    model_path = Path(recipe.evaluate.model or folder.stage("finetune"))
    pipeline = load_pipeline(model_path)
    split, questions = load_scoring_questions(data)
    start = time.monotonic()
    models = {"pretrained": ask_model(pipeline.model, pipeline.tokenizer, questions, recipe.evaluate)}
    seconds = time.monotonic() - start
    texts = [answer.text for answer in models["pretrained"][0]]
    baseline_path = sibling_baseline(model_path, folder)
    if baseline_path is not None:
        baseline = load_pipeline(baseline_path)
        models["no_pretraining"] = ask_model(baseline.model, baseline.tokenizer, questions, recipe.evaluate)
    popular = popular_places((question.answer for question in data.train), 2)
    strangers = made_up_people(data, "evaluation", STRANGERS)
    with as_run_error(f"{model_path}: what it was trained on cannot be read"):
        trained_on = read_record(pipeline.model)
    warn_of_trained_questions(trained_on, questions, split)
    withheld_refusal = trained_on.explain_withheld(data.withheld)
    if withheld_refusal is not None:
        logger.warning(f"withheld people are not counted: {withheld_refusal}")
    withheld = [] if withheld_refusal else data.withheld
    asked = ask_all(pipeline, questions, strangers, withheld)
    uncalibrated = pipeline.uncalibrated or training_record(model_path).get("uncalibrated")
    refusal = getattr(pipeline.confidence, "refusal", uncalibrated)
    records = {stage: found for stage in STAGES if (found := folder.training_record(stage))}
    results = {
        **describe(records, recipe, data, model_path),
        "parameters": pipeline.model.num_parameters(),
        "split": split,
        split: {**accuracy(texts, questions), "seconds": seconds},
        "baselines": {
            "majority": accuracy(popular[:1] * len(questions), questions)["accuracy"],
            "majority_place": popular[0],
            "no_pretraining": fraction(models["no_pretraining"][1]) if baseline_path else None,
            "ceiling": ceiling(data.documents, questions),
        },
        "trust": {**confidence_metrics(asked, popular), "refusal": refusal, "withheld_refusal": withheld_refusal},
        "exposure": exposure_rows(count_exposures(questions, data.documents, data.train), models),
        "samples": sample_answers(texts, questions, strangers, asked.made_up),
    }
    write_text(folder.path / f"predictions.{split}.txt", "\n".join(texts) + "\n")
    plot_trust(asked, folder.path / "trust.png")
    write_report(results, {stage: record["history"] for stage, record in records.items()}, folder.path)
    write_json(folder.results, results)
    print_results(results)
    return results
