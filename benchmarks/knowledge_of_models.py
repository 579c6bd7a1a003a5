"""What models know: the same public questions, asked in the same way, of any causal models, in a table by their size.

    python -m benchmarks.knowledge_of_models gpt2 EleutherAI/pythia-160m runs/mine/finetune \\
        --set popqa=akariasai/PopQA --set entity_questions=FOLDER/P19.test.json
    python -m benchmarks.knowledge_of_models gpt2 --set popqa=test.tsv --questions 100 --candidates 8   # minutes

Each model, named by its id on the Hub or its folder, is asked "Where was NAME born?", after some examples about people
who are not scored, and answers greedily on one line. An answer is right if it exactly matches any accepted one. With
`--candidates N` the model also ranks the right answer among N - 1 others of the set by their probabilities. The same
command, given again, asks only models that are new or failed, and folders whose weights have changed since.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from artifacts.machine import describe_machine, name_machine
from benchmarks.causal_answers import EXAMPLE, PROMPT, Subject, load_subject
from benchmarks.command_line import available_device, default_device, new_parser, non_negative_int, positive_int
from benchmarks.harness import Point, Record, failures, results_of, section, write_report
from benchmarks.inputs import weights_digest
from configuration.errors import UserError, run_main, show
from data_scripts.person_splits import hash_number
from data_scripts.question_sets import QuestionSet, SetQuestion, parse_sets, read_question_set
from data_scripts.questions import Question
from evaluation.answers import exact_matches
from evaluation.popularity import contains_answer, count_right, popularity_rows
from evaluation.question_sets_report import interval
from evaluation.relation_scores import choose_questions
from evaluation.tables import percent
from evaluation.trust import fraction
from modeling_minigpt.relations_minigpt import BIRTHPLACE

SAMPLES = 3  # answers that a record shows


@dataclass(frozen=True)
class Options:
    """How every model is asked; records of other options are not continued.

    Attributes:
        shots: examples before each question.
        questions: most questions of a set, those of the people with the smallest hashes; all when None.
        candidates: answers that are ranked, the right one among them; 0 ranks none.
        max_new_tokens: longest answer in tokens.
        dtype: number format of the weights, "auto" the one that they were saved in.
    """

    shots: int = 4
    questions: int | None = None
    candidates: int = 0
    max_new_tokens: int = 24
    dtype: str = "auto"

    def __post_init__(self):
        if self.candidates == 1:
            raise UserError(f"--candidates must be 0 or at least 2, found {self.candidates}")


@dataclass(frozen=True)
class AskedSet:
    """A set as all models are asked it.

    Attributes:
        of_set: the set.
        examples: questions that are shown with their answers.
        questions: those that are scored, about other people.
    """

    of_set: QuestionSet
    examples: Sequence[Question]
    questions: Sequence[SetQuestion]

    def describe(self) -> dict:
        """Return what a record says of it; not where it lies, which differs between machines."""
        names = [example.name for example in self.examples]
        return {"kind": self.of_set.kind, **self.of_set.version, "scored": len(self.questions), "examples": names}


def separate_examples(of_set: QuestionSet, shots: int, limit: int | None = None) -> AskedSet:
    """Choose the examples and the questions of a set, by hashes of the names: whatever its order, they are the same.

    Raises:
        UserError: it has no people left to be scored.
    """
    by_name = {one.name: one.question for one in of_set.questions}
    shown = sorted(by_name, key=lambda name: hash_number(f"example {name}"))[:shots]
    scored = [one for one in of_set.questions if one.name not in shown]
    if not scored:
        raise UserError(f"{of_set.path}: found {len(by_name)} people, wanted more than the {shots} of --shots")
    return AskedSet(of_set, [by_name[name] for name in shown], choose_questions(scored, limit))


def offer_answers(questions: Sequence[Question], candidates: int) -> list[list[str]]:
    """Return for each question, the same for every model, its answer as the last of as many; the others are wrong.

    Raises:
        UserError: the questions do not have as many different answers.
    """
    answers = sorted({question.answer for question in questions})
    offered = []
    for question in questions:
        wrong = [answer for answer in answers if answer not in question.answers]
        if len(wrong) < candidates - 1:
            raise UserError(
                f"--candidates is {candidates}, but {question.text!r} has {len(wrong)} answers of other questions "
                f"that are wrong for it; wanted at most {len(wrong) + 1}"
            )
        others = random.Random(hash_number(question.name)).sample(wrong, candidates - 1)
        offered.append([*others, question.answer])
    return offered


def rank_answers(subject: Subject, questions: Sequence[Question], candidates: int) -> list[bool]:
    """Return of each question whether the model finds its answer likelier than each of `candidates - 1` others."""
    right = []
    for question, offered in zip(questions, offer_answers(questions, candidates), strict=True):
        is_asked = subject.can_read(question.text)
        # The first of several that are as likely is chosen, and the right one is last: it must be likelier.
        right.append(is_asked and subject.likeliest(question.text, offered) == len(offered) - 1)
    return right


def ask_one_set(subject: Subject, asked: AskedSet, options: Options) -> dict:
    """Return what a model knows of a set."""
    questions = [one.question for one in asked.questions]
    answers = subject.answer(questions)
    texts = [answer or "" for answer in answers]
    right = exact_matches(texts, questions)
    contains = [contains_answer(text, one.answers) for text, one in zip(texts, questions, strict=True)]
    return {
        **count_right(right),
        "contains": fraction(contains),
        "not_asked": sum(answer is None for answer in answers),
        "ranked": count_right(rank_answers(subject, questions, options.candidates)) if options.candidates else None,
        "by_popularity": popularity_rows([one.popularity for one in asked.questions], right),
        "samples": [
            {"question": question.text, "answer": answer, "accepted": list(question.answers)}
            for question, answer in list(zip(questions, answers, strict=True))[:SAMPLES]
        ],
    }


def discard_stale(record: Record, models: Sequence[str]) -> None:
    """Drop what a record has of folders whose weights have changed since, and say so."""
    for model in models:
        rounds = record.results.get(Point(model), [])
        if any("error" not in found and found["weights"] != weights_digest(model) for found in rounds):
            show(f"{model}: the weights have changed, so it is asked again")
            del record.results[Point(model)]


def measure(point: Point, sets: Sequence[AskedSet], options: Options, batch_size: int, device: str) -> dict:
    """Return a model's size, and what it knows of each set."""
    start = time.monotonic()
    model, tokenizer = load_subject(point.subject, options.dtype, device)
    found = {}
    for asked in sets:
        subject = Subject(model, tokenizer, asked.examples, batch_size, options.max_new_tokens)
        found[asked.of_set.name] = ask_one_set(subject, asked, options)
    return {
        "parameters": model.num_parameters(),
        "weights": weights_digest(point.subject),
        "sets": found,
        "seconds": time.monotonic() - start,
    }


def report(content: dict) -> str:
    """Return the tables as Markdown: the models by their size."""
    results = results_of(content)
    measured = [(point.subject, rounds[0]) for point, rounds in results.items() if "error" not in rounds[0]]
    measured.sort(key=lambda pair: pair[1]["parameters"])
    asked = content["options"]
    introduction = (
        f"{name_machine(content['machine'])}. {asked['shots']} examples before each question (none to a MiniGPT, "
        "which is asked as it was trained), greedy answers, exact match with any accepted answer after normalisation, "
        "95 % intervals (Wilson). “Contains” also counts answers with an accepted one in them."
    )
    parts = []
    for name, about in content["sets"].items():
        found = [(model, values["parameters"], values["sets"][name]) for model, values in measured]
        parts.append(accuracy_section(f"{name}: {about['scored']} questions", found, asked["candidates"]))
        parts.append(popularity_section(f"{name}, by page views per month", found))
    return write_report("What models know", introduction, *parts, failures(results))


def accuracy_section(heading: str, found: Sequence[tuple[str, int, dict]], candidates: int) -> str:
    """Return the table of one set: (model, parameters, results) become a row each."""
    columns = ["model", "parameters", "accuracy", "contains", "not asked"]
    rows = [
        [model, f"{parameters:,}", interval(values), percent(values["contains"]), str(values["not_asked"])]
        for model, parameters, values in found
    ]
    if candidates:
        columns.append(f"likeliest of {candidates}")
        for row, (_, _, values) in zip(rows, found, strict=True):
            row.append(interval(values["ranked"]))
    return section(heading, columns, rows)


def popularity_section(heading: str, found: Sequence[tuple[str, int, dict]]) -> str:
    """Return the table of one set by popularity; empty where the set has none."""
    bins = found[0][2]["by_popularity"] if found else []
    if not bins:
        return ""
    columns = [f"{row['min']:,} – {row['max']:,} ({row['total']})" for row in bins]
    rows = [[model, *(interval(row) for row in values["by_popularity"])] for model, _, values in found]
    return section(heading, ["model", *columns], rows)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "runs/knowledge_of_models.json")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="id on the Hub, or folder")
    parser.add_argument(
        "--set", action="append", required=True, dest="sets", metavar="NAME=PATH",
        help="a file, folder or Hub id of PopQA or EntityQuestions; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--shots", type=non_negative_int, default=Options.shots, help="examples before each question (%(default)s)"
    )
    parser.add_argument(
        "--questions", type=positive_int, help="at most this many questions of each set; all by default"
    )
    parser.add_argument(
        "--candidates", type=non_negative_int, default=Options.candidates,
        help="how many answers to rank, 0 for none (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-new-tokens", type=positive_int, default=Options.max_new_tokens,
        help="longest answer, in tokens (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument(
        "--batch-size", type=positive_int, default=16, help="questions computed together (%(default)s)"
    )
    parser.add_argument("--device", type=available_device, default=default_device(), help="(%(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Ask every model; return the exit status, 1 where one could not be asked."""
    arguments = parse_arguments(argv)

    def command() -> int:
        options = Options(**{name: getattr(arguments, name) for name in Options.__dataclass_fields__})
        sets = [
            separate_examples(read_question_set(name, path, [BIRTHPLACE]), options.shots, options.questions)
            for name, path in parse_sets(arguments.sets).items()
        ]
        for asked in sets if options.candidates else ():
            offer_answers([one.question for one in asked.questions], options.candidates)  # before hours, not after
        settings = {
            "sets": {asked.of_set.name: asked.describe() for asked in sets},
            "options": asdict(options),
            "prompt": EXAMPLE + PROMPT,
        }
        notes = {"machine": describe_machine(torch.device(arguments.device))}
        record = Record(arguments.output, report, settings, notes)
        discard_stale(record, arguments.models)
        record.measure([Point(name) for name in arguments.models], measure, sets, options, arguments.batch_size,
                       arguments.device)  # fmt: skip
        show(record.text())
        return int(any("error" in result for rounds in record.results.values() for result in rounds))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
