"""Which signal shows best what a model knows? Each alone, the shipped combination, and agreement among seeds.

    python -m benchmarks.confidence_signals RUN [RUN_OF_ANOTHER_SEED …] --output confidence_signals.json

RUN is the output folder of a recipe with `data.calibration_questions`. All numbers are of its calibration people and
of made-up ones, asked for the first relation; no dev file is opened. What has to be fitted is scored by
cross-validation. Other runs of the same recipe, with other seeds, give the costly upper reference: the mean
probability that all of them give to the answer.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from artifacts.loading import load_model, load_tokenizer
from artifacts.run_folder import RunError, RunFolder, read_json
from benchmarks.harness import Point, Record, new_parser, results_of, write_report
from configuration.errors import run_main
from configuration.recipe import recipe_from_json
from data_scripts.splits import TrainingData, load_training_data, made_up_people
from evaluation.answers import exact_matches
from evaluation.calibration import BATCH, CalibrationError, fit_logistic, rank_and_measure
from evaluation.knowledge import questions_of
from evaluation.tables import markdown_table, number, percent
from evaluation.trust_metrics import auroc, coverage_at_precision
from modeling_minigpt import ClosedBookPipeline
from modeling_minigpt.answers_minigpt import Answer, encode_prompts
from modeling_minigpt.features_minigpt import answer_features, feature_names, format_prompts, prompt_templates

STRANGERS = 1000  # made-up people, at most
PRIOR_STRANGERS = 300  # others, whose answers give the prior
FOLDS = 5
RARE = 1e-4  # a prior below this counts as this


def by_place(ranked: list[list[Answer]]) -> list[dict[str, float]]:
    """Return the probability of each candidate for each name."""
    return [{answer.text: answer.probability for answer in candidates} for candidates in ranked]


def mean_candidates(found: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean probability of each candidate."""
    total: dict[str, float] = {}
    for candidates in found:
        for place, probability in candidates.items():
            total[place] = total.get(place, 0.0) + probability / len(found)
    return total


def margin(answer: str, candidates: dict[str, float]) -> float:
    """Return how much more probable an answer is than the next candidate, in nats."""
    rest = max((share for place, share in candidates.items() if place != answer), default=0.0)
    return float(np.log(candidates[answer] + RARE) - np.log(rest + RARE))


@torch.inference_mode()
def name_states(pipeline: ClosedBookPipeline, names: list[str]) -> np.ndarray:
    """Return the last layer's hidden state at the last token of each name in its question, (N, C)."""
    states = [np.zeros((0, pipeline.model.config.hidden_size))]
    relation = pipeline.find_facts().relation
    after = len(pipeline.tokenizer(relation.templates[0].suffix + pipeline.tokenizer.mask_token)["input_ids"])
    for first in range(0, len(names), BATCH):
        questions = [relation.format(name) for name in names[first : first + BATCH]]
        batch = encode_prompts(pipeline.tokenizer, questions, pipeline.model.device)
        outputs = pipeline.model(**batch, output_hidden_states=True)
        states.append(outputs.hidden_states[-1][:, -1 - after].cpu().double().numpy())
    return np.concatenate(states)


def agreement(others: list[ClosedBookPipeline], names: list[str], answers: list[str], own: np.ndarray) -> np.ndarray:
    """Return the mean probability that all seeds' models give to the first one's answers, (N,)."""
    total = np.exp(own)
    for other in others:
        for first in range(0, len(names), BATCH):
            some = slice(first, first + BATCH)
            prompts = [other.find_facts().relation.format(name) for name in names[some]]
            said = answer_features(other.model, other.tokenizer, prompts, answers[some])["answer"]
            total[some] += said.cpu().double().exp().numpy()
    return total / (1 + len(others))


def cross_validate(fit, known: np.ndarray, right: np.ndarray, strangers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of known people and strangers, each by `fit(known, right, strangers)` on the other folds."""
    scores = [np.zeros(len(known)), np.zeros(len(strangers))]
    splits = [KFold(FOLDS, shuffle=True, random_state=0).split(part) for part in (known, strangers)]
    for (train, test), (stranger_train, stranger_test) in zip(*splits, strict=True):
        score = fit(known[train], right[train], strangers[stranger_train])
        scores[0][test] = score(known[test])
        scores[1][stranger_test] = score(strangers[stranger_test])
    return scores[0], scores[1]


def fit_combination(known: np.ndarray, right: np.ndarray, strangers: np.ndarray):
    """Fit what a calibration ships: the chance to be known, times the chance to be right given that, in logarithms."""
    exists = np.repeat([True, False], [len(known), len(strangers)])
    heads = [fit_logistic(np.concatenate([known, strangers]), exists, balanced=True)]
    if 0 < right.sum() < len(right):
        heads.append(fit_logistic(known, right))
    return lambda signals: -sum(np.logaddexp(0.0, -(signals @ weights + bias)) for weights, bias in heads)


def fit_probe(known: np.ndarray, right: np.ndarray, strangers: np.ndarray):
    """Fit a logistic probe of hidden states that separates known people from strangers."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=2000))
    model.fit(np.concatenate([known, strangers]), [True] * len(known) + [False] * len(strangers))
    return model.decision_function


def judge(known: np.ndarray, right: np.ndarray, strangers: np.ndarray) -> dict[str, float]:
    """Return a signal's metrics; it may have any scale."""
    ranks = np.unique(np.concatenate([known, strangers]), return_inverse=True)[1]
    ranks = ranks / max(1, ranks.max())
    known, strangers = ranks[: len(known)], ranks[len(known) :]
    sure = known > np.quantile(strangers, 0.95)
    return {
        "auroc_correct": auroc(known[right], known[~right]),
        "auroc_made_up": auroc(known, strangers),
        "coverage_at_precision_90": coverage_at_precision(known, right, 0.9),
        "coverage_at_5_percent_of_strangers": float(sure.mean()),
    }


def open_run(run: Path) -> ClosedBookPipeline:
    """Return the pipeline of a run's finetuned model."""
    folder = run / "finetune"
    model = load_model(folder)
    tokenizer = load_tokenizer(folder)
    return ClosedBookPipeline(model=model, tokenizer=tokenizer, device=model.device)


def compare(pipeline: ClosedBookPipeline, others: list[ClosedBookPipeline], data: TrainingData) -> dict:
    """Return each signal's metrics, and on how many people they are.

    Raises:
        CalibrationError: too few people to cross-validate on.
    """
    relation = pipeline.find_facts().relation
    asked = questions_of(relation, data.calibration)
    names = [question.name for question in asked]
    strangers = made_up_people(data, "calibration", STRANGERS + PRIOR_STRANGERS)
    count = len(strangers) * PRIOR_STRANGERS // (STRANGERS + PRIOR_STRANGERS)
    for_prior = strangers[:count]
    strangers = strangers[count:]
    if min(len(names), len(strangers)) < 2 * FOLDS:
        raise CalibrationError(
            f"{len(names)} calibration people, {len(strangers)} made-up ones; wanted {2 * FOLDS} of each"
        )
    ranked, known = rank_and_measure(pipeline, names)
    strange_ranked, strange = rank_and_measure(pipeline, strangers)
    answers, strange_answers = ([candidates[0].text for candidates in every] for every in (ranked, strange_ranked))
    right = np.array(exact_matches(answers, asked))
    places = [by_place(ranked), by_place(strange_ranked)]
    prior = mean_candidates(by_place(rank_and_measure(pipeline, for_prior)[0]))
    column = {name: (known[:, index], strange[:, index]) for index, name in enumerate(feature_names(relation))}

    def of_candidates(measured) -> tuple[np.ndarray, np.ndarray]:
        parts = zip((answers, strange_answers), places, strict=True)
        return tuple(np.array([measured(*pair) for pair in zip(*part, strict=True)]) for part in parts)

    # The beginning of a biography that asks the most, and the one that asks the least.
    labels = list(prompt_templates(relation))
    prompts = format_prompts("NAME", relation)
    signals = {
        "log-probability of the answer": column["question: answer"],
        "margin to the next candidate": of_candidates(margin),
        "entropy of the candidates": column["candidates: neg_entropy"],
        "contrast with the prior over strangers": of_candidates(
            lambda answer, candidates: np.log(candidates[answer] + RARE) - np.log(prior.get(answer, 0.0) + RARE)
        ),
        "probe on the last name token": cross_validate(
            fit_probe, name_states(pipeline, names), right, name_states(pipeline, strangers)
        ),
        f"log-probability after `{prompts[1]}`": column[f"{labels[1]}: answer"],
        f"entropy after `{prompts[-1]}`": column[f"{labels[-1]}: neg_entropy"],
        "the shipped combination": cross_validate(fit_combination, known, right, strange),
    }
    if others:
        own = [column["question: answer"][index] for index in (0, 1)]
        signals[f"agreement of {1 + len(others)} seeds"] = (
            agreement(others, names, answers, own[0]),
            agreement(others, strangers, strange_answers, own[1]),
        )
    found = {name: judge(scores[0], right, scores[1]) for name, scores in signals.items()}
    return {"dataset": data.name, "people": len(names), "strangers": len(strangers), "signals": found}


def report(content: dict) -> str:
    """Return the comparison as Markdown."""
    rows = [
        [
            point.subject,
            *(number(found[key]) for key in ("auroc_correct", "auroc_made_up")),
            *(percent(found[key]) for key in ("coverage_at_precision_90", "coverage_at_5_percent_of_strangers")),
        ]
        for point, (found,) in results_of(content).items()
    ]
    columns = [
        "signal", "right over wrong (AUROC)", "known over made-up (AUROC)", "answered at 90 % precision",
        "answered where 5 % of made-up are",
    ]  # fmt: skip
    introduction = (
        f"{content['people']} calibration people of {content['dataset']}, {content['strangers']} made-up ones."
    )
    return write_report("Which signal shows what a model knows", introduction, markdown_table(columns, rows))


def main(argv: list[str] | None = None) -> int:
    """Compare the signals of a run; return the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("run", type=Path, help="a run's output folder")
    parser.add_argument("others", type=Path, nargs="*", help="runs of the same recipe with other seeds")
    arguments = parser.parse_args(argv)

    def command() -> None:
        folder = RunFolder(arguments.run)
        if not folder.recipe.is_file():
            raise RunError(f"{folder.recipe} not found; wanted a run's output folder")
        pipeline = open_run(arguments.run)
        data = load_training_data(recipe_from_json(read_json(folder.recipe)), folder.data)
        results = compare(pipeline, [open_run(run) for run in arguments.others], data)
        signals = results.pop("signals")
        record = Record(arguments.output, report, results)
        record.results = {Point(signal): [found] for signal, found in signals.items()}
        record.write()
        print(record.text())

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
