"""`train.py evaluate`: answers, baselines, predictions, results.json and the report."""

import time
from pathlib import Path

import evaluate

from data_scripts.bios_folder import name_in, question_for
from data_scripts.strangers import made_up_names
from evaluation.answers import answer_questions
from evaluation.baselines import ceiling, popular_places
from evaluation.report import print_results, write_report
from evaluation.trust import STRANGERS, judge_trust, plot_trust
from modeling_minigpt.answers_minigpt import Answer
from training.arguments import Recipe
from training.data import Pairs, TrainingData, load_scoring_pairs
from training.models import load_model, load_tokenizer
from training.run_folder import STAGES, RunFolder, write_json

METRIC = Path(__file__).parent.parent / "evaluation" / "birthplace_accuracy"
SAMPLES = 3  # questions shown with their answers, before one about a stranger


def accuracy(texts: list[str], pairs: Pairs) -> dict:
    """Score answers by the `birthplace_accuracy` metric."""
    metric = evaluate.load(str(METRIC))
    return metric.compute(predictions=texts, references=[place for _, place in pairs])


def sibling_baseline(model_path: Path, folder: RunFolder) -> Path | None:
    """Return the model without pretraining that belongs to a model: in this run, or beside it in its own."""
    candidates = (folder.stage("no_pretraining"), model_path.parent / "no_pretraining")
    return next((path for path in candidates if (path / "config.json").is_file()), None)


def sample_answers(texts: list[str], pairs: Pairs, strangers: list[str], made_up: list[Answer]) -> list[dict]:
    """Return the first questions with their answers, and one about a person who is in no document."""
    shown = zip(pairs[:SAMPLES], texts, strict=False)
    samples = [{"question": question, "answer": answer, "place": place} for (question, place), answer in shown]
    stranger = zip(strangers[:1], made_up, strict=False)
    return samples + [{"question": question, "answer": answer.text, "place": None} for question, answer in stranger]


def score_run(folder: RunFolder, recipe: Recipe, data: TrainingData) -> dict:
    """Score a model, write everything about it into the run's folder, print the table; return the results.

    The model is `evaluate.model` of the recipe, or the run's own `finetune`. Its questions are the dev file's, which
    is opened here for the first time, or the held-out training questions where the recipe holds some out.
    """
    model_path = Path(recipe.evaluate.model or folder.stage("finetune"))
    model, tokenizer = load_model(model_path), load_tokenizer(model_path)
    split, pairs = load_scoring_pairs(data, folder.data)
    questions = [question for question, _ in pairs]

    def ask(questions: list[str], model=model, tokenizer=tokenizer) -> list[Answer]:
        return answer_questions(
            model, tokenizer, questions, recipe.evaluate.batch_size, recipe.evaluate.max_new_tokens
        )

    start = time.monotonic()
    answers = ask(questions)
    seconds = time.monotonic() - start
    texts = [answer.text for answer in answers]
    baseline_path = sibling_baseline(model_path, folder)
    baseline = None
    if baseline_path is not None:
        baseline_answers = ask(questions, load_model(baseline_path), load_tokenizer(baseline_path))
        baseline = accuracy([answer.text for answer in baseline_answers], pairs)["accuracy"]
    popular = popular_places((place for _, place in data.train), 2)
    names = made_up_names([name_in(question) for question, _ in data.train], data.documents, STRANGERS)
    strangers = [question_for(name) for name in names]
    made_up = ask(strangers)
    right = [text == place.strip() for text, (_, place) in zip(texts, pairs, strict=True)]
    records = {stage: folder.training_record(stage) for stage in STAGES}
    results = {
        "dataset": data.name,
        "split": split,
        "seed": recipe.seed,
        "model": model_path.name,
        "parameters": model.num_parameters(),
        "train_minutes": {stage: record["minutes"] for stage, record in records.items() if record},
        "start_from": next((r["start_from"] for r in records.values() if r.get("start_from")), None),
        split: {**accuracy(texts, pairs), "seconds": seconds},
        "baselines": {
            "majority": accuracy(popular[:1] * len(pairs), pairs)["accuracy"],
            "majority_place": popular[0],
            "no_pretraining": baseline,
            "ceiling": ceiling(data.documents, pairs),
        },
        "trust": judge_trust(answers, right, made_up, popular),
        "samples": sample_answers(texts, pairs, strangers, made_up),
    }
    (folder.path / f"predictions.{split}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    plot_trust(answers, right, made_up, folder.path / "trust.png")
    write_report(results, {stage: record["history"] for stage, record in records.items() if record}, folder.path)
    write_json(folder.results, results)
    print_results(results)
    return results
