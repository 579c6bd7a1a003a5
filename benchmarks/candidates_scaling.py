"""Time and memory of ranking answers against the number of candidates: best-first search beside full scoring.

    python -m benchmarks.candidates_scaling                             # 60 … 50,000 places on one core, 6 minutes
    python -m benchmarks.candidates_scaling --sizes 60 500 --rounds 1 --output candidates.json

A model of the quickstart's shape trains for some hundred steps on questions about invented people: it knows most of
them, and is asked about as many strangers, where it hesitates. Places are put together from syllables, the popular
ones first. Each point runs in a fresh process. Times are CPU time of one question in a batch of 32; memory is that of
the trie and of all that the batch needs, over the model's. Every best answer is compared with that of full scoring, of
many places for a few questions, part by part. A figure (.svg) is written beside the report. Exits with 1 where a bar
printed at the end is missed.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.files import write_json
from artifacts.machine import describe_machine, name_machine
from artifacts.run_folder import read_json
from benchmarks.bars import Bar, print_bars
from benchmarks.command_line import new_parser, non_negative_float, positive_int
from benchmarks.harness import (
    Point,
    Record,
    Results,
    failures,
    median_and_range,
    results_of,
    section,
    successes,
    write_report,
)
from benchmarks.measurement import PeakMemory
from configuration.errors import run_main, show
from configuration.schema import StageArguments
from data_scripts.questions import Question, question_about
from data_scripts.synthetic_bios import PLACE_ENDINGS, invent_distinct, invent_word
from evaluation.plots import label_plainly, label_sizes, legend_beside, new_figure, save_figure, style_of
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, build_bpe_tokenizer
from modeling_minigpt.answer_search_minigpt import top_answers
from modeling_minigpt.answer_trie_minigpt import AnswerTrie
from modeling_minigpt.answers_minigpt import score_answers
from training.stepper import Stepper

SIZES = (60, 200, 500, 2_000, 10_000, 50_000)
FULL = "full scoring"
SEARCH = {"best-first, top 1": 1, "best-first, top 5": 5, "best-first, top 20": 20}
MAX_SCORED_IN_FULL = 2_000  # places of which full scoring is measured: its memory grows with the square
QUESTIONS = 32  # of a batch, half of them about people of the training questions
COMPARED = 4  # questions whose best answer of more places is compared with full scoring
PART = 1_000  # places scored together for that
PEOPLE = 1_500
STEPS = 400
CONTEXT = 128
# The bars, at 50,000 places.
MAX_MILLISECONDS = {"best-first, top 1": 5.0, "best-first, top 5": 10.0}
MAX_MEGABYTES = 60.0


def invent_places(count: int) -> list[str]:
    """Return different places of one or two syllables and an ending."""
    rng = random.Random("places of candidates_scaling")
    return invent_distinct(count, lambda: invent_word(rng, rng.choice((1, 2))) + rng.choice(PLACE_ENDINGS))


def invent_questions(people: int, places: Sequence[str]) -> list[Question]:
    """Return the questions about invented people, whose places have weights 1 / (rank + 3)."""
    rng = random.Random("people of candidates_scaling")
    names = invent_distinct(people, lambda: f"{invent_word(rng, 2)} {invent_word(rng, 2)}")
    drawn = rng.choices(places, [1 / (rank + 3) for rank in range(len(places))], k=people)
    return [question_about(name, place) for name, place in zip(names, drawn, strict=True)]


def batch_of(questions: Sequence[Question], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Return `question⁇answer⁇` rows as `{"input_ids", "labels"}` (B, T), with labels at the answers only."""
    texts = [question.training_text(tokenizer.mask_token) for question in questions]
    rows = [torch.tensor(ids) for ids in tokenizer(texts)["input_ids"]]
    ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    sentinels = (ids == tokenizer.mask_token_id).long()
    is_answer = (sentinels.cumsum(-1) - sentinels > 0) & (ids != tokenizer.pad_token_id)
    return {"input_ids": ids, "labels": ids.masked_fill(~is_answer, -100)}


def train_model(folder: Path, places: Sequence[str], people: int, steps: int) -> None:
    """Train a model of the quickstart's shape on questions; save it with its tokenizer and a batch of questions."""
    questions = invent_questions(people + QUESTIONS // 2, places)
    strangers, known = questions[: QUESTIONS // 2], questions[QUESTIONS // 2 :]
    tokenizer = build_bpe_tokenizer([f"{one.text} {one.answer}" for one in questions], 800, CONTEXT)
    torch.manual_seed(0)
    config = MiniGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_attention_heads=4,
        num_hidden_layers=3,
        max_position_embeddings=CONTEXT,
        zero_init_residual=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = MiniGPTForCausalLM(config)
    stage = StageArguments(steps=steps, batch_size=64)
    stepper = Stepper.prepare(model, stage, Accelerator(cpu=True, mixed_precision="no"), steps)
    rng = random.Random(0)
    for step in range(steps):
        stepper.step(step, batch_of(rng.sample(known, min(64, len(known))), tokenizer))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    asked = [one.text for one in (*known[: QUESTIONS - len(strangers)], *strangers)]
    write_json(folder / "questions.json", {"questions": asked})


def cpu_seconds(call: Callable[[], object], at_least: float = 0.5) -> float:
    """Return the median CPU time of a call, repeated for at least `at_least` seconds."""
    times: list[float] = []
    while sum(times) < at_least or len(times) < 3:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def best_by_parts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], places: Sequence[str]
) -> list[str]:
    """Return the best place for each question by full scoring, `PART` places at a time."""
    scores = [
        score_answers(model, tokenizer, questions, AnswerTrie(places[start : start + PART], tokenizer))
        for start in range(0, len(places), PART)
    ]
    return [places[number] for number in torch.cat(scores, dim=1).argmax(-1).tolist()]


def measure(point: Point, folder: Path, at_least: float) -> dict:
    """Measure one way of ranking places: seconds and bytes, and its best answers beside full scoring's."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    questions = read_json(folder / "questions.json")["questions"]
    places = invent_places(point.size)
    k = SEARCH.get(point.subject)

    def rank(trie: AnswerTrie) -> object:
        if k is None:
            return score_answers(model, tokenizer, questions, trie)
        return top_answers(model, tokenizer, questions, trie, k)

    rank(AnswerTrie(places[:10], tokenizer))  # what the first pass of a model needs is not the candidates'
    memory = PeakMemory(torch.device("cpu"))
    start = time.process_time()
    trie = AnswerTrie(places, tokenizer)
    result = {"trie_seconds": time.process_time() - start}
    rank(trie)
    result["bytes"] = memory.read()
    result["seconds"] = cpu_seconds(lambda: rank(trie), at_least) / len(questions)
    if k == 1:
        found = top_answers(model, tokenizer, questions, trie, 1)
        step = 1 if point.size <= MAX_SCORED_IN_FULL else len(questions) // COMPARED
        expected = best_by_parts(model, tokenizer, questions[::step], places)
        result["compared"] = len(expected)
        result["same"] = sum(one[0].text == best for one, best in zip(found[::step], expected, strict=True))
        result["probabilities"] = [one[0].probability for one in found]
    return result


def values(results: Results, subject: str, field: str) -> dict[int, list]:
    """Return a field of all rounds of a subject, by size; an empty list for a failure."""
    return {
        point.size: [result[field] for result in successes(rounds) if result.get(field) is not None]
        for point, rounds in results.items()
        if point.subject == subject
    }


def report(content: dict) -> str:
    """Return time, memory and agreement as Markdown tables."""
    results = results_of(content)
    sizes = sorted({point.size for point in results})
    columns = [f"{size:,}" for size in sizes]
    sections = []
    for field, heading, unit, scale in (
        ("seconds", "A question", "ms of CPU time, by places", 1e3),
        ("bytes", "Memory of the trie and of a batch", "MB, by places", 1e-6),
        ("trie_seconds", "Building the trie", "ms of CPU time, by places", 1e3),
    ):
        rows = []
        for subject in (FULL, *SEARCH):
            found = values(results, subject, field)
            cells = ["fails" if found.get(n) == [] else median_and_range(found.get(n), scale) for n in sizes]
            rows.append([subject, *cells])
        sections.append(section(heading, [unit, *columns], rows))
    same, compared = (values(results, "best-first, top 1", field) for field in ("same", "compared"))
    agreement = [f"{sum(same.get(n, []))} of {sum(compared.get(n, []))}" for n in sizes]
    sections.append(section("Best answers that are full scoring's", ["by places", *columns], [["same", *agreement]]))
    rounds = max(map(len, results.values()), default=0)
    by_size = values(results, "best-first, top 1", "probabilities")
    # Of the most places: fewer lack the answers to some of the questions.
    shares = next((found[0] for _, found in sorted(by_size.items(), reverse=True) if found), None)
    spread = f"{min(shares):.1%} – {max(shares):.1%}" if shares else "–"
    introduction = (
        f"{name_machine(content['machine'])}. Medians (and ranges) of {rounds} rounds; one question of a batch of "
        f"{QUESTIONS}. A model of 0.9 M parameters, three layers of width 128, was trained for {content['steps']} "
        f"steps on questions about {content['people']:,} invented people. Half of the questions are about them, half "
        f"about strangers; their best answers have probabilities of {spread}. Full scoring is measured up to "
        f"{MAX_SCORED_IN_FULL:,} places. Of more, the best answers of {COMPARED} questions per round are compared "
        f"with full scoring, {PART:,} places at a time."
    )
    return write_report("Ranking answers against the number of candidates", introduction, *sections, failures(results))


def draw(content: dict, path: Path) -> None:
    """Draw time and memory against the number of places, both axes logarithmic."""
    results = results_of(content)
    figure, axes = new_figure(1, 2, width=11.4, height=3.8)
    quantities = (("seconds", "CPU time a question, ms", 1e3), ("bytes", "memory, MB", 1e-6))
    for (field, label, scale), plot in zip(quantities, axes.flat, strict=True):
        for number, subject in enumerate((FULL, *SEARCH)):
            found = sorted(values(results, subject, field).items())
            points = [(size, scale * statistics.median(some)) for size, some in found if some and min(some)]
            if points:
                plot.plot(*zip(*points, strict=True), label=subject, **style_of(number))
        plot.set(xlabel="candidate places", ylabel=label)
        label_sizes(plot, sorted({point.size for point in results}))
        label_plainly(plot)
        plot.grid(alpha=0.3)
    legend_beside(figure)
    save_figure(figure, path)


def judge(results: Results, sizes: Sequence[int]) -> list[Bar]:
    """Return each bar that the sizes asked for allow."""
    bars = []
    largest = SIZES[-1]
    if largest in sizes:
        for subject, limit in MAX_MILLISECONDS.items():
            found = values(results, subject, "seconds").get(largest)
            bars.append(
                Bar(f"{subject}: ms at {largest:,}", 1e3 * statistics.median(found) if found else None, "<=", limit)
            )
        found = values(results, "best-first, top 1", "bytes").get(largest)
        bars.append(Bar(f"MB at {largest:,}", 1e-6 * statistics.median(found) if found else None, "<=", MAX_MEGABYTES))
    for size in sizes:
        same, compared = (values(results, "best-first, top 1", name).get(size) for name in ("same", "compared"))
        share = sum(same) / sum(compared) if same and compared else None
        bars.append(Bar(f"best answers that are full scoring's at {size:,}", share, ">=", 1.0))
    return bars


def plan(sizes: Sequence[int]) -> list[Point]:
    """Return all points to measure."""
    full = [Point(FULL, size=size) for size in sizes if size <= MAX_SCORED_IN_FULL]
    return [*full, *(Point(subject, size=size) for subject in SEARCH for size in sizes)]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "runs/candidates_scaling.cpu.json")
    parser.add_argument(
        "--sizes", type=positive_int, nargs="+", default=list(SIZES), help="numbers of places (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=3, help="times each point is measured (default: %(default)s)"
    )
    parser.add_argument(
        "--people", type=positive_int, default=PEOPLE, help="people to train on (default: %(default)s)"
    )
    parser.add_argument("--steps", type=positive_int, default=STEPS, help="training steps (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=non_negative_float, default=0.5, help="seconds per round (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure every point; return the exit status, 1 where a bar is missed."""
    arguments = parse_arguments(argv)

    def command() -> int:
        torch.set_num_threads(1)
        settings = {name: getattr(arguments, name) for name in ("people", "steps")}
        machine = describe_machine(torch.device("cpu"))
        machine["device"] += f" ({torch.backends.cpu.get_cpu_capability()})"
        record = Record(arguments.output, report, {"machine": machine, **settings})
        with tempfile.TemporaryDirectory() as folder:
            train_model(Path(folder), invent_places(max(arguments.sizes)), arguments.people, arguments.steps)
            where = (Path(folder), arguments.seconds)
            record.measure(plan(arguments.sizes), measure, *where, rounds=arguments.rounds)
        draw(record.content(), arguments.output.with_suffix(".svg"))
        show(record.text())
        return print_bars(judge(record.results, arguments.sizes))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
