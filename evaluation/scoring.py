"""`train.py evaluate`: answers, baselines, predictions, results.json and the report.

results.json has the figures of each relation under `relations`, and those of the first one that is scored at the top:

    {"dataset", "split": SPLIT, SPLIT: {"accuracy", "correct", "total", "seconds"}, "baselines", "trust", "exposure",
     "errors", "samples", …,
     "relations": {NAME: {"accuracy", "correct", "total", "ceiling", "majority", …, "trust", "errors"}, …},
     "sets": {NAME: …, as `evaluation.question_sets` has it}}
"""

import os
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.logging import get_logger

from artifacts.files import sha256, write_json, write_text
from artifacts.loading import load_pipeline
from artifacts.run_folder import ELSEWHERE, RunError, RunFolder, read_json, training_record
from artifacts.safe_loading import as_run_error
from configuration.schema import Recipe
from data_scripts.bios_folder import DataError
from data_scripts.questions import Question
from data_scripts.splits import TrainingData, load_scoring_questions, made_up_people
from evaluation.calibration import split_withheld, unknown_names
from evaluation.errors import find_errors
from evaluation.exposure import count_exposures
from evaluation.knowledge import questions_of
from evaluation.provenance import describe_provenance
from evaluation.question_sets import SetAnswers, ask_sets, read_sets, set_results
from evaluation.relation_scores import (
    RelationAnswers,
    ask_readable,
    ask_relation,
    choose_questions,
    relation_results,
)
from evaluation.report import print_results, write_report
from evaluation.scored_data import check_same_files, digest_files, digest_questions
from evaluation.trained_on import TrainedOn, count_known, read_record
from evaluation.trust import STRANGERS
from evaluation.trust_plots import plot_trust
from modeling_minigpt import ClosedBookPipeline

logger = get_logger(__name__)


def sibling_baseline(model_path: Path, folder: RunFolder) -> Path | None:
    """Return the model without pretraining that belongs to a model: in this run, or beside it in its own."""
    candidates = (folder.stage("no_pretraining"), model_path.parent / "no_pretraining")
    return next((path for path in candidates if (path / "config.json").is_file()), None)


def own_run(model_path: Path) -> RunFolder | None:
    """Return the run that a model was trained in; None where only the model is there, as after a download."""
    found = model_path.resolve()
    return RunFolder(found.parent) if found.name == "finetune" and os.path.isfile(found / "training.json") else None


def read_records(model_path: Path, baseline_path: Path | None) -> dict[str, dict]:
    """Return the records of the stages that a model and its baseline were trained in, by stage; empty if not known."""
    run = own_run(model_path)
    if run is None:
        return {}
    records = {stage: run.training_record(stage) for stage in ("pretrain", "finetune")}
    if baseline_path is not None:
        records["no_pretraining"] = training_record(baseline_path)
    return {stage: record for stage, record in records.items() if record}


def weights_of(model_path: Path) -> str | None:
    """Return the SHA-256 of a model's weights; None where they are not in a file of the usual name."""
    weights = model_path / "model.safetensors"
    return sha256(weights) if os.path.isfile(weights) else None


def scoring_settings(folder: RunFolder, recipe: Recipe) -> dict:
    """Return what of `evaluate` a run's results depend on, with whole paths; a model is None where it is the run's."""

    def whole(place: str) -> str:
        return os.path.realpath(place) if os.path.exists(place) else place  # or an id on the Hub

    how = recipe.evaluate
    is_own = how.model is None or whole(how.model) == whole(str(folder.stage("finetune")))
    return {
        "model": None if is_own else whole(how.model),
        "questions": how.questions,
        "sets": {name: whole(place) for name, place in how.sets.items()},
        "max_new_tokens": how.max_new_tokens,
    }


def scored_data(recipe: Recipe, found: Sequence[RelationAnswers]) -> dict:
    """Return digests of what was scored: of the questions and their answers, and of the files that they are from."""
    questions = (question for one in found for question in one.questions)
    return {"scored": digest_questions(questions), "files": digest_files(recipe)}


def check_same_scoring(folder: RunFolder, recipe: Recipe) -> None:
    """Check that a run's results are what its recipe would give now.

    Raises:
        RunError: the recipe scores another model, other questions or longer answers; or the weights or the data have
            changed.
    """
    before = read_json(folder.scoring) if folder.scoring.exists() else {}  # none in a run of before it was recorded
    for key, value in scoring_settings(folder, recipe).items():
        if before.get(key, value) != value:
            raise RunError(
                f"{folder.results}: evaluate.{key} was {before[key]!r}, now {value!r}; set it as it was, or "
                f"{ELSEWHERE}"
            )
    check_same_files(folder, recipe, before)
    model_path = Path(recipe.evaluate.model or folder.stage("finetune"))
    weights = weights_of(model_path)
    if weights is not None and read_json(folder.results).get("weights", weights) != weights:
        raise RunError(f"{folder.results}: is of other weights than {model_path} has now; {ELSEWHERE}")


def describe(records: dict[str, dict], recipe: Recipe, data: TrainingData, model_path: Path) -> dict:
    """Return what the results say about the model and, by its stages' records, how it came to be."""
    return {
        "dataset": data.name,
        "source": data.source_info,
        "seed": recipe.seed,
        "model": model_path.name,
        "weights": weights_of(model_path),
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


def check_relations(pipeline: ClosedBookPipeline, data: TrainingData, model_path: Path) -> None:
    """Raise RunError where a model does not know a relation of the data, or knows it by another question."""
    for relation in data.relations:
        known = pipeline.relations.get(relation.name)
        if known is None:
            raise RunError(
                f"{model_path}: answers questions of {', '.join(pipeline.relations)} alone, but the data ask for "
                f"{relation.name}; remove it with --set relations.{relation.name}=null"
            )
        if known.question != relation.question:
            raise RunError(
                f"{model_path}: {relation.name} is {known.question!r} to the model, but {relation.question!r} in the "
                "recipe"
            )


def recorded_refusal(model_path: Path, name: str, first: str) -> str | None:
    """Return why training has left a relation of a model uncalibrated; None where it did not, or does not say."""
    reasons = training_record(model_path).get("uncalibrated")
    if not isinstance(reasons, dict):  # of before there were several relations
        reasons = {first: reasons}
    return reasons.get(name)


def add_refusals(
    relations: dict[str, dict], pipeline: ClosedBookPipeline, model_path: Path, withheld_refusal: str | None
) -> None:
    """Add to each relation's results why nothing is certified, and why withheld people are not counted."""
    for name, values in relations.items():
        facts = pipeline.facts[name]
        uncalibrated = facts.uncalibrated or recorded_refusal(model_path, name, next(iter(pipeline.facts)))
        values["trust"]["refusal"] = uncalibrated if facts.confidence is None else facts.confidence.refusal
        values["trust"]["withheld_refusal"] = withheld_refusal


def ask_all(
    pipelines: dict[str, ClosedBookPipeline],
    questions: Sequence[Question],
    recipe: Recipe,
    data: TrainingData,
    withheld: Sequence[Question],
) -> list[RelationAnswers]:
    """Ask for every relation that there are questions of, RunError if of none; every process must call this."""
    strangers = unknown_names(pipelines["pretrained"], made_up_people(data, "evaluation", STRANGERS))
    found = []
    for relation in data.relations:
        asked = choose_questions(questions_of(relation, questions), recipe.evaluate.questions)
        if asked:
            own = questions_of(relation, withheld)
            logger.info(
                f"scoring {relation.name}: {len(asked):,} questions, {len(strangers):,} made-up people, {len(own):,} "
                "withheld ones"
            )
            found.append(ask_relation(relation, pipelines, asked, strangers, own, recipe.evaluate))
    if not found:
        raise RunError(f"{data.name}: there is no question to score of {', '.join(r.name for r in data.relations)}")
    return found


def answer_test_questions(pipeline: ClosedBookPipeline, recipe: Recipe, data: TrainingData) -> list[str]:
    """Return the answers to the test questions, whose labels nothing reads; every process must call this.

    If their file cannot be used, this warns and returns no answers, so that the scores are not lost.
    """
    try:
        texts = [question.text for question in data.open_test()]
    except DataError as error:
        logger.warning(f"predictions.test.txt is not written: {error}")
        return []
    answers = ask_readable(pipeline.model, pipeline.tokenizer, texts, recipe.evaluate, shared=True)
    return [answer.text for answer in answers]


def results_of_relations(found: Sequence[RelationAnswers], data: TrainingData) -> dict[str, dict]:
    """Return what `results.json` says of each relation, by its name."""
    # One pass over the documents for the questions of all relations, and one for the wrong answers to them.
    everything = [question for answers in found for question in answers.questions]
    counts = count_exposures(everything, data.documents, data.train)
    answered = {one.relation.name: (one.questions, *one.models["pretrained"]) for one in found}
    errors = find_errors(answered, data.documents, data.train)
    results = {}
    first = 0
    for answers in found:
        last = first + len(answers.questions)
        own = {seen: times[first:last] for seen, times in counts.items()}
        name = answers.relation.name
        results[name] = {**relation_results(answers, data, own), "errors": errors[name]}
        first = last
    return results


def first_relation(values: dict, split: str) -> dict:
    """Return a relation's results as they are at the top of results.json."""
    return {
        split: {key: values[key] for key in ("accuracy", "correct", "total", "seconds")},
        "wrong_answers": values["wrong_answers"],
        "baselines": {
            "majority": values["majority"],
            "majority_place": values["majority_answer"],
            "no_pretraining": values["no_pretraining"],
            "ceiling": values["ceiling"],
        },
        **{
            key: values[key]
            for key in ("trust", "exposure", "reliability_by_exposure", "errors", "samples", "example")
        },
    }


def score_run(folder: RunFolder, recipe: Recipe, data: TrainingData) -> dict | None:
    """Score a model, write everything about it into the run's folder, print the table; return the results.

    Every process must call this: they share the questions, and the main process alone writes and returns the results.
    The model is `evaluate.model` of the recipe, or the run's own `finetune`. Its questions are the dev file's, which
    is opened here for the first time, or the held-out training questions where the recipe holds some out.

    Raises:
        RunError: no model that can be loaded, or one that does not know a relation of the data.
    """
    model_path = Path(recipe.evaluate.model or folder.stage("finetune"))
    pipelines = {"pretrained": load_pipeline(model_path)}
    run = own_run(model_path)
    machine = {} if run is None else run.number_formats()
    pipeline = pipelines["pretrained"]
    check_relations(pipeline, data, model_path)
    with PartialState().main_process_first():  # it may have to add them to the corpus
        split, questions = load_scoring_questions(data)
    baseline_path = sibling_baseline(model_path, folder)
    if baseline_path is not None:
        pipelines["no_pretraining"] = load_pipeline(baseline_path)
    with as_run_error(f"{model_path}: what it was trained on cannot be read"):
        trained_on = read_record(pipeline.model)
    withheld_refusal = trained_on.explain_withheld(data.withheld)
    if withheld_refusal is not None:
        logger.warning(f"withheld people are not counted: {withheld_refusal}")
    _, withheld = split_withheld(data.withheld)  # those that no calibration has used
    found = ask_all(pipelines, questions, recipe, data, [] if withheld_refusal else withheld)
    is_tuning = split != "dev"  # on held-out training questions: what is left must not be seen
    test_answers = [] if is_tuning else answer_test_questions(pipeline, recipe, data)
    of_sets = ask_sets(pipeline, read_sets(recipe, data), recipe, data)
    if not PartialState().is_main_process:
        return None
    warn_of_trained_questions(trained_on, [question for one in found for question in one.questions], split)
    relations = results_of_relations(found, data)
    add_refusals(relations, pipeline, model_path, withheld_refusal)
    records = read_records(model_path, baseline_path)
    results = {
        **describe(records, recipe, data, model_path),
        "provenance": describe_provenance(),
        "machine": machine,
        "parameters": pipeline.model.num_parameters(),
        "split": split,
        **first_relation(next(iter(relations.values())), split),
        "relations": relations,
        "sets": set_results(of_sets, data, trained_on),
    }
    write_predictions(folder, test_answers, of_sets)
    write_json(folder.scoring, {**scoring_settings(folder, recipe), **scored_data(recipe, found)})
    write_results(folder, results, found, {stage: record["history"] for stage, record in records.items()})
    print_results(results)
    return results


def write_predictions(folder: RunFolder, test_answers: Sequence[str], of_sets: Sequence[SetAnswers]) -> None:
    """Write the answers to the test questions, and to each public set's, where there are any.

    A line each; an empty one where the model cannot read a question.
    """
    if test_answers:
        write_text(folder.path / "predictions.test.txt", "\n".join(test_answers) + "\n")
    for answers in of_sets:
        several = sum(one.of_set is answers.of_set for one in of_sets) > 1
        name = answers.of_set.name + (f".{answers.relation.name}" if several else "")
        lines = "\n".join(text or "" for text in answers.texts)
        write_text(folder.path / f"predictions.{name}.txt", lines + "\n")


def write_results(
    folder: RunFolder, results: dict, found: Sequence[RelationAnswers], histories: dict[str, list]
) -> None:
    """Write predictions, plots, the report and, last of all, results.json into a run's folder."""
    for number, answers in enumerate(found):
        # The first relation's files have no name in theirs: they are as they were when there was one relation.
        name = f".{answers.relation.name}" if number else ""
        write_text(folder.path / f"predictions.{results['split']}{name}.txt", "\n".join(answers.texts) + "\n")
        trust = results["relations"][answers.relation.name]["trust"]
        plot_trust(answers.asked, trust, folder.path / f"trust{name}.png")
    write_report(results, histories, folder.path)
    write_json(folder.results, results)
