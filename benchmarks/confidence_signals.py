"""Which signal shows best what a model knows? Each alone, the shipped heads, and agreement among seeds.

    python -m benchmarks.confidence_signals RUN [RUN_OF_ANOTHER_SEED …] --output confidence_signals.json

RUN is the output folder of a recipe with `data.calibration_questions`; of several, the table has the mean ± the
standard deviation. All numbers are of the fitting half of each run's calibration people, and of made-up people, for
the first relation; no dev file is opened. Fitted signals are scored by cross-validation. A signal's cost is in
milliseconds per question, beyond finding the answer. The other seeds of a run give an expensive reference: the mean
probability of the answer over all seeds.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from artifacts.loading import load_model, load_tokenizer
from artifacts.machine import describe_machine, name_machine
from artifacts.run_folder import RunError, RunFolder, read_json
from benchmarks.command_line import new_parser
from benchmarks.confidence_measures import (
    FOLDS,
    RARE,
    cross_validate,
    fit_correct,
    fit_known,
    fit_probe,
    judge,
    margin,
    mean_probability,
    name_states,
    typicality,
)
from benchmarks.harness import Point, Record, results_of, write_report
from configuration.errors import run_main, show
from configuration.recipe import recipe_from_json
from data_scripts.splits import TrainingData, load_training_data, made_up_people
from evaluation.answers import exact_matches
from evaluation.calibration import (
    BATCH,
    CalibrationError,
    head_features,
    rank_and_measure,
    readable,
    split_halves,
)
from evaluation.knowledge import questions_of
from evaluation.tables import markdown_table, mean_and_spread
from modeling_minigpt import ClosedBookPipeline
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.features_minigpt import (
    feature_names,
    format_prompts,
    prompt_templates,
    title_features,
)

STRANGERS = 1000  # made-up people, at most
PRIOR_STRANGERS = 300  # others, whose answers give the prior
KNOWN_NAMES = 1000  # names of training whose states are what a known name looks like, at most
COLUMNS = {  # key: heading, factor, digits
    "auroc_correct": ("AUROC: right against wrong answers", 1, 3),
    "auroc_made_up": ("AUROC: known against made-up people", 1, 3),
    "coverage_at_precision_90": ("answered at 90 % precision, %", 100, 1),
    "coverage_at_5_percent_of_strangers": ("answered where 5 % of made-up are, %", 100, 1),
    "milliseconds": ("ms per question", 1, 2),
}


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


def milliseconds(measure: Callable[[], object], count: int) -> float:
    """Return how long each of `count` questions takes, the middle of three measurements."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        measure()
        taken.append(1e3 * (time.perf_counter() - start) / max(1, count))
    return statistics.median(taken)


def open_run(run: Path) -> ClosedBookPipeline:
    """Return the pipeline of a run's finetuned model."""
    folder = run / "finetune"
    model = load_model(folder)
    tokenizer = load_tokenizer(folder)
    return ClosedBookPipeline(model=model, tokenizer=tokenizer, device=model.device)


class Asked:
    """What a run's model says of its calibration people and of made-up ones.

    Args:
        pipeline: of the run.
        data: of the run.

    Raises:
        CalibrationError: too few people to cross-validate on.
    """

    def __init__(self, pipeline: ClosedBookPipeline, data: TrainingData):
        self.pipeline = pipeline
        self.relation = pipeline.find_facts().relation
        # The half that fits the heads: nothing is chosen on the people who certify.
        asked = {question.name: question for question in questions_of(self.relation, data.calibration)}
        names = readable(pipeline, list(asked), self.relation.name)
        questions = [asked[names[index]] for index in split_halves(len(names), seed=0)[0]]
        strangers = made_up_people(data, "calibration", STRANGERS + PRIOR_STRANGERS)
        count = len(strangers) * PRIOR_STRANGERS // (STRANGERS + PRIOR_STRANGERS)
        self.for_prior = strangers[:count]
        self.names = ([question.name for question in questions], strangers[count:])
        if min(map(len, self.names)) < 2 * FOLDS:
            raise CalibrationError(
                f"{len(self.names[0])} calibration people, {len(self.names[1])} made-up ones; wanted {2 * FOLDS} of "
                "each"
            )
        ranked, features = zip(*(rank_and_measure(pipeline, names) for names in self.names), strict=True)
        self.features: tuple[np.ndarray, np.ndarray] = features
        self.answers = [[candidates[0].text for candidates in every] for every in ranked]
        self.places = [by_place(every) for every in ranked]
        self.right = np.array(exact_matches(self.answers[0], questions))
        self.familiar = [question.name for question in questions_of(self.relation, data.train)][:KNOWN_NAMES]

    def column(self, name: str) -> tuple[np.ndarray, ...]:
        """Return a feature of both groups."""
        index = feature_names(self.relation).index(name)
        return tuple(features[:, index] for features in self.features)

    def head(self, fit: Callable, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return what a head that uses some features says of both groups, by cross-validation."""
        columns = [feature_names(self.relation).index(name) for name in names]
        return cross_validate(fit, self.features[0][:, columns], self.right, self.features[1][:, columns])

    def of_candidates(self, measured: Callable[[str, dict], float]) -> tuple[np.ndarray, ...]:
        """Return a function of the answer and its candidates for both groups."""
        parts = zip(self.answers, self.places, strict=True)
        return tuple(np.array([measured(*pair) for pair in zip(*part, strict=True)]) for part in parts)

    def agreement(self, ways: Sequence[tuple[ClosedBookPipeline, str]]) -> tuple[np.ndarray, ...]:
        """Return the answers' mean probability over ways to ask for both groups."""
        groups = zip(self.names, self.answers, strict=True)
        return tuple(mean_probability(ways, names, answers) for names, answers in groups)


def find_signals(
    asked: Asked, others: Sequence[ClosedBookPipeline]
) -> dict[str, tuple[tuple[np.ndarray, ...], float]]:
    """Return each signal of both groups, and what it takes in milliseconds per question beyond finding the answer."""
    pipeline, relation = asked.pipeline, asked.relation
    question = relation.question
    # The beginning of a biography that asks the most, and the one that asks the least.
    labels = list(prompt_templates(relation))
    prompts = format_prompts("NAME", relation)
    prior = mean_candidates(by_place(rank_and_measure(pipeline, asked.for_prior)[0]))
    states = [name_states(pipeline, names) for names in (*asked.names, asked.familiar)]
    own = [(pipeline, template) for template in (question, *relation.paraphrases)]
    seeds = [(one, question) for one in (pipeline, *others)]
    some = asked.names[0][:BATCH]
    said = asked.answers[0][:BATCH]
    once = milliseconds(lambda: mean_probability(own[:1], some, said), len(some))
    title = milliseconds(lambda: title_features(pipeline.model, pipeline.tokenizer, some), len(some))
    state = milliseconds(lambda: name_states(pipeline, some), len(some))
    every = len(labels) * once + title
    heads = head_features(relation)
    found = {
        "log-probability of the answer": (asked.column("question: answer"), once),
        "margin to the next candidate": (asked.of_candidates(margin), 0.0),
        "entropy of the candidates": (asked.column("candidates: neg_entropy"), 0.0),
        "contrast with the prior over strangers": (
            asked.of_candidates(
                lambda answer, candidates: np.log(candidates[answer] + RARE) - np.log(prior.get(answer, 0.0) + RARE)
            ),
            0.0,
        ),
        f"log-probability after `{prompts[1]}`": (asked.column(f"{labels[1]}: answer"), once),
        f"entropy after `{prompts[-1]}`": (asked.column(f"{labels[-1]}: neg_entropy"), once),
        "log-probability of the name, mean over its tokens": (asked.column("title: mean"), title),
        "log-probability of the name's least expected token": (asked.column("title: least"), title),
        "probe on the last name token": (cross_validate(fit_probe, states[0], asked.right, states[1]), state),
        "Mahalanobis distance of the last name token": (
            tuple(typicality(part, states[2]) for part in states[:2]),
            state,
        ),
        "all features, fitted on who is right": (asked.head(fit_correct, feature_names(relation)), every),
        "`known`": (asked.head(fit_known, heads["known"]), every),
        "`correct`": (asked.head(fit_correct, heads["correct"]), len(heads["correct"]) * once),
    }
    if relation.paraphrases:
        found[f"agreement of {len(own)} paraphrases"] = (asked.agreement(own), len(own) * once)
    if others:
        found[f"agreement of {len(seeds)} seeds"] = (asked.agreement(seeds), len(seeds) * once)
    return found


def compare(pipeline: ClosedBookPipeline, others: Sequence[ClosedBookPipeline], data: TrainingData) -> dict:
    """Return each signal's metrics and cost for one run, and on how many people they are; raises as `Asked`."""
    asked = Asked(pipeline, data)
    signals = find_signals(asked, others)
    return {
        "dataset": data.name,
        "people": len(asked.names[0]),
        "strangers": len(asked.names[1]),
        "signals": {
            name: {**judge(scores[0], asked.right, scores[1]), "milliseconds": cost}
            for name, (scores, cost) in signals.items()
        },
    }


def report(content: dict) -> str:
    """Return the comparison as Markdown."""
    rows = []
    for point, rounds in results_of(content).items():
        cells = [
            mean_and_spread([scale * one[key] for one in rounds if one.get(key) is not None], digits)
            for key, (_, scale, digits) in COLUMNS.items()
        ]
        rows.append([point.subject, *cells])
    introduction = (
        f"{name_machine(content['machine'])}. {content['people']} calibration people of {content['dataset']}, "
        f"{content['strangers']} made-up ones; {content['runs']} runs of the recipe with different seeds, mean ± "
        "standard deviation. The answer itself is found before, so signals of its candidates take no time."
    )
    table = markdown_table(["signal", *(heading for heading, _, _ in COLUMNS.values())], rows)
    return write_report("Which signal shows what a model knows", introduction, table)


def read_run(run: Path) -> tuple[ClosedBookPipeline, TrainingData]:
    """Return the pipeline and the data of a run; RunError where a folder is none."""
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise RunError(f"{folder.recipe} not found; wanted a run's output folder")
    return open_run(run), load_training_data(recipe_from_json(read_json(folder.recipe)), folder.data)


def main(argv: list[str] | None = None) -> int:
    """Compare the signals of some runs; return the exit status."""
    parser = new_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folders: one recipe, several seeds")
    arguments = parser.parse_args(argv)

    def command() -> None:
        opened = [read_run(run) for run in arguments.runs]
        pipelines = [pipeline for pipeline, _ in opened]
        compared = [
            compare(pipeline, [other for other in pipelines if other is not pipeline], data)
            for pipeline, data in opened
        ]
        settings = {key: compared[0][key] for key in ("dataset", "people", "strangers")}
        machine = describe_machine(torch.device("cpu"))
        record = Record(arguments.output, report, {"machine": machine, "runs": len(compared), **settings})
        record.results = {Point(name): [one["signals"][name] for one in compared] for name in compared[0]["signals"]}
        record.write()
        show(record.text())

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
