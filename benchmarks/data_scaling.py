"""Time and memory of everything between people and training steps, against the number of people.

    python -m benchmarks.data_scaling                                 # 10,000 … 1,000,000 people, 20 minutes
    python -m benchmarks.data_scaling --sizes 1000 3000 --output scaling.json
    python -m benchmarks.data_scaling --recipe wikipedia --sizes 1000 10000 100000 --output data_scaling.wikipedia.json

Every phase of every size runs in a fresh process, with one thread, and finds on the disk what the phase before has
left:

- prepare: invented people, four lines each, are prepared into a corpus, with 50 to calibrate on and 50 withheld;
- tokenizer: the vocabulary, of 800 entries, of 200,000 documents at most;
- tokens: the token tables;
- open: the tables are opened, and the first batch of 64 rows is drawn;
- steps: 100 optimizer steps with a small model;
- statistics: of a report on 2,000 questions: exposures, ceiling, made-up people;
- feed: batches alone, of documents drawn from all over the file, in 8 and in 16 batches at a time.

With `--recipe wikipedia` a size is a number of made-up articles in the columns of structured-wikipedia, one in five of
which is about a person. They are joined with made-up statements of Wikidata, with the recipe's own vocabulary and
corruption. What the phases take at the recipes' sizes is extrapolated, and a training step of each recipe is timed on
the corpus of the largest size. There are no bars for this.

Times are CPU seconds. The slope is the exponent p of seconds ∝ people^p over all sizes. A figure (.svg) is written
beside the report. Exits with 1 where a bar printed at the end is missed.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.loading import load_tokenizer
from artifacts.machine import describe_machine, name_machine
from benchmarks.bars import Bar, print_bars
from benchmarks.command_line import new_parser, output_folder, positive_int
from benchmarks.harness import (
    Point,
    Record,
    Results,
    failures,
    results_of,
    section,
    successes,
    write_number,
    write_report,
)
from benchmarks.measurement import PeakMemory, exponent, resident
from benchmarks.recipe_costs import (
    JOIN,
    STEP,
    WIKIPEDIA,
    extrapolation_section,
    join,
    join_line,
    measure_step,
    step_points,
    step_section,
    stored,
    wikipedia_recipe,
)
from configuration.errors import run_main, show
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from configuration.schema import CorruptionOptions, Recipe, StageArguments
from data_scripts.annotated_texts import Annotator
from data_scripts.batches import TrainingBatches
from data_scripts.record_file import RecordFile
from data_scripts.splits import load_scoring_questions, load_training_data, made_up_people
from data_scripts.tokens import DocumentTable, QuestionTable, document_rows, question_rows, write_table
from data_scripts.vocabulary import vocabulary_texts
from evaluation.baselines import ceiling
from evaluation.exposure import count_exposures
from evaluation.plots import label_plainly, label_sizes, legend_beside, new_figure, save_figure, style_of
from evaluation.trust import STRANGERS
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, build_bpe_tokenizer
from training.stepper import Stepper

SIZES = [10_000, 31_600, 100_000, 316_000, 1_000_000]
OPTIONS = CorruptionOptions(max_length=96)
CONTEXT = 128
STEPS = 100
ASKED = 2_000  # questions of the statistics
FEEDS = ((64, 8), (128, 16))  # rows of a batch, batches drawn together
# The bars: how steep a phase may be, and what it may take at 1,000,000 people.
SLOPE = 1.05
FLAT_SECONDS = 0.5
FEED_RATE = 100_000.0
TRAINING_BYTES = 1.0e9
BUILDING_BYTES = 250e6


def bios_recipe(people: int) -> Recipe:
    """Return the recipe of a size: invented people who are asked for their birthplaces, a few of them held out."""
    held_out = [f"data.{name}={min(50, people // 10)}" for name in ("calibration_questions", "withheld_people")]
    sizes = ["data.source=bios", f"data.people={people}", "data.places=300"]
    return replace(load_recipe(find_recipe("quickstart"), [*sizes, *held_out]), corruption=OPTIONS)


def prepare(folder: Path, recipe: Recipe) -> None:
    """Prepare the corpus, again if it is there."""
    shutil.rmtree(folder / "corpus", ignore_errors=True)
    load_training_data(recipe, folder)


def build_tokenizer(folder: Path, recipe: Recipe) -> None:
    """Learn the vocabulary and save the tokenizer."""
    data = load_training_data(recipe, folder)
    texts = vocabulary_texts(data.documents, data.train, recipe.corruption)
    build_bpe_tokenizer(texts, recipe.tokenizer.vocab_size, CONTEXT).save_pretrained(folder / "tokenizer")


def build_tokens(folder: Path, recipe: Recipe) -> None:
    """Write the token tables."""
    data = load_training_data(recipe, folder)
    tokenizer = load_tokenizer(folder / "tokenizer")
    annotator = Annotator.for_questions(data.train, recipe.corruption, data.documents)
    rows = {
        "documents": lambda dtype: document_rows(data.documents, tokenizer, annotator, dtype),
        "questions": lambda dtype: question_rows(data.train, tokenizer, CONTEXT),
    }
    for name, make in rows.items():
        write_table(lambda name=name: (folder / f"{name}.arrow").open("wb"), make, len(tokenizer))


def open_batches(folder: Path, recipe: Recipe, batch_size: int = 64, bucket_batches: int = 8) -> TrainingBatches:
    """Open the tables."""
    stage = StageArguments(
        steps=100_000, batch_size=batch_size, bucket_batches=bucket_batches, question_fraction=0.1, title_loss=False
    )
    documents = DocumentTable(RecordFile.open(folder / "documents.arrow"))
    questions = QuestionTable(RecordFile.open(folder / "questions.arrow"))
    tokenizer = load_tokenizer(folder / "tokenizer")
    return TrainingBatches(documents, questions, tokenizer, stage, recipe.corruption, 0, CONTEXT)


def train(folder: Path, recipe: Recipe) -> None:
    """Open the data and take the steps."""
    data = load_training_data(recipe, folder)
    batches = open_batches(folder, recipe)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": CONTEXT}
    special = {"pad_token_id": batches.pad_token_id, "eos_token_id": batches.sentinel}
    model = MiniGPTForCausalLM(MiniGPTConfig(vocab_size=recipe.tokenizer.vocab_size, **sizes, **special))
    stepper = Stepper.prepare(model, batches.stage, Accelerator(cpu=True, mixed_precision="no"), STEPS)
    for step in range(STEPS):
        stepper.step(step, batches[step])
    assert batches.documents == len(data.documents)


def count(folder: Path, recipe: Recipe) -> None:
    """Take the statistics of a report: what was there to learn from of each question, the ceiling, made-up people."""
    data = load_training_data(recipe, folder)
    _, questions = load_scoring_questions(data)
    asked = list(islice(questions, ASKED))
    count_exposures(asked, data.documents, data.train)
    ceiling(data.documents, asked)
    made_up_people(data, "evaluation", STRANGERS)


@contextmanager
def measured(found: dict) -> Iterator[None]:
    """Add the CPU seconds of the block, its peak memory over what was in use, and all of the process's then."""
    memory = PeakMemory(torch.device("cpu"))
    start = time.process_time()
    yield
    found["seconds"] = time.process_time() - start
    found["bytes"] = memory.read()
    found["resident"] = resident("VmHWM") if found["bytes"] is not None else None


def measure_feed(batches: TrainingBatches) -> float:
    """Return how many rows per CPU second are put into batches, over 32 pools."""
    pool = batches.stage.bucket_batches
    for step in range(4 * pool):  # reads what the system has not in its cache yet
        batches[step]
    start = time.process_time()
    for step in range(4 * pool, 36 * pool):
        batches[step]
    return 32 * pool * batches.stage.batch_size / (time.process_time() - start)


PHASES = {
    "prepare": prepare,
    "tokenizer": build_tokenizer,
    "tokens": build_tokens,
    "open": lambda folder, recipe: open_batches(folder, recipe)[0],
    "steps": train,
    "statistics": count,
}


def measure_point(point: Point, folder: Path, largest: int) -> dict:
    """Measure one phase of one size, or a training step of a recipe on the data of the largest size."""
    torch.set_num_threads(1)
    if point.subject == STEP:
        return measure_step(point, folder / str(largest), largest)
    place = folder / str(point.size)
    recipe = bios_recipe(point.size) if point.task is None else wikipedia_recipe(place, point.size)
    found: dict = {}
    if point.subject == "feed":
        for rows, number in FEEDS:
            found[f"{rows} x {number}"] = measure_feed(open_batches(place, recipe, rows, number))
    else:
        with measured(found):
            {**PHASES, JOIN: join}[point.subject](place, recipe)
        found["stored"] = stored(place, point.subject)
    return found


def collect(results: Results, field: str) -> dict[str, dict[int, float]]:
    """Return a field of each phase by size, where it was measured."""
    table: dict[str, dict[int, float]] = {}
    for point, rounds in results.items():
        for result in successes(rounds):
            if result.get(field) is not None:
                table.setdefault(point.subject, {})[point.size] = result[field]
    return table


def slope(values: dict[int, float]) -> float | None:
    """Return the exponent over all sizes; None for fewer than three."""
    sizes = sorted(values)
    return exponent(sizes, [values[size] for size in sizes])[0] if len(sizes) > 2 else None


def sizes_of(results: Results) -> list[int]:
    """Return the sizes in order, but for those of training steps, which are rows of a batch."""
    return sorted({point.size for point in results if point.subject != STEP})


def unit_of(results: Results) -> str:
    """Return what a size counts."""
    return "articles" if any(point.task is not None for point in results) else "people"


def report(content: dict) -> str:
    """Return times, memory and rates as Markdown tables."""
    results = results_of(content)
    sizes = sizes_of(results)
    heads = [f"{size:,}" for size in sizes]
    fields = [f"{rows} x {number}" for rows, number in FEEDS]
    tables = [
        ("CPU seconds", "seconds", "phase", 1.0),
        ("Peak memory over the start of the phase, MB", "bytes", "phase", 1e-6),
        ("Peak memory of the process, libraries included, MB", "resident", "phase", 1e-6),
        ("On the disk, MB", "stored", "phase", 1e-6),
        *((f"Rows per CPU second into batches of {field}", field, "", 1.0) for field in fields),
    ]
    sections = []
    for heading, field, first, scale in tables:
        rows = []
        for phase, values in collect(results, field).items():
            fit = slope(values)
            cells = [write_number(scale * values[size]) if size in values else "–" for size in sizes]
            rows.append([phase, *cells, "–" if fit is None else f"{fit:.2f}"])
        sections.append(section(heading, [first or unit_of(results), *heads, "p"], rows))
    introduction = f"{name_machine(content['machine'])}. p is the exponent over all sizes."
    if unit_of(results) == "articles":
        introduction += " A size is a number of made-up articles, one in five of which is about a person."
        expected = extrapolation_section(*(collect(results, field) for field in ("seconds", "bytes", "stored")))
        sections += [expected, join_line(results), step_section(results)]
    return write_report("Data against people", introduction, *sections, failures(results))


def draw(content: dict, path: Path) -> None:
    """Draw seconds and memory against people, both axes logarithmic."""
    results = results_of(content)
    figure, axes = new_figure(1, 2, width=11.4, height=4.0)
    for plot, (field, label, scale) in zip(
        axes.flat, (("seconds", "CPU seconds", 1.0), ("resident", "peak memory, MB", 1e-6)), strict=True
    ):
        for number, (phase, values) in enumerate(collect(results, field).items()):
            sizes = sorted(values)
            plot.plot(sizes, [scale * values[size] for size in sizes], label=phase, **style_of(number))
        plot.set(xlabel=unit_of(results), ylabel=label)
        label_sizes(plot, sizes_of(results))
        label_plainly(plot)
        plot.grid(alpha=0.3)
    legend_beside(figure)
    save_figure(figure, path)


def judge(results: Results, sizes: list[int]) -> list[Bar]:
    """Return each bar that the sizes allow."""
    seconds = collect(results, "seconds")
    bars = []
    if len(sizes) > 2:
        for phase in PHASES:
            bars.append(Bar(f"{phase}: exponent of time", slope(seconds.get(phase, {})), "<=", SLOPE))
    largest = max(sizes)
    bars.append(Bar("open and first batch, s", seconds.get("open", {}).get(largest), "<=", FLAT_SECONDS))
    for rows, number in FEEDS:
        rate = collect(results, f"{rows} x {number}").get("feed", {}).get(largest)
        bars.append(Bar(f"rows/s into batches of {rows} x {number}", rate, ">=", FEED_RATE))
    trained = collect(results, "resident").get("steps", {}).get(largest)
    bars.append(Bar("memory of training, GB", trained and trained / 1e9, "<=", TRAINING_BYTES / 1e9))
    for phase in ("prepare", "tokens"):
        built = collect(results, "bytes").get(phase, {}).get(largest)
        bars.append(Bar(f"memory of {phase}, MB", built and built / 1e6, "<=", BUILDING_BYTES / 1e6))
    return bars


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "runs/data_scaling.cpu.json")
    parser.add_argument(
        "--sizes", type=positive_int, nargs="+", default=SIZES, help="numbers of people (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=output_folder, default="runs/data_scaling", help="for what phases leave (%(default)s)"
    )
    parser.add_argument("--recipe", choices=[WIKIPEDIA], help="measure this recipe on made-up rows of its source")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure every phase; return the exit status, 1 where a bar is missed."""
    arguments = parse_arguments(argv)

    def command() -> int:
        torch.set_num_threads(1)
        record = Record(arguments.output, report, {"machine": describe_machine(torch.device("cpu"))})
        task = arguments.recipe
        points = [Point(phase, task, size) for size in arguments.sizes for phase in (*PHASES, "feed")]
        if task is not None:
            points += [*(Point(JOIN, task, size) for size in arguments.sizes), *step_points()]
            for size in arguments.sizes:  # not in the time of a phase
                wikipedia_recipe(arguments.folder / str(size), size)
        record.measure(points, measure_point, arguments.folder, max(arguments.sizes))
        draw(record.content(), arguments.output.with_suffix(".svg"))
        show(record.text())
        return print_bars(judge(record.results, arguments.sizes) if task is None else [])

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
