"""MiniGPT beside its peers in one run: training, generation, data path and memory at one shape.

    python -m benchmarks.peers --data FOLDER --output runs/peers/peers.cpu.json   # a quarter of an hour on two cores
    python -m benchmarks.peers --rounds 1 --batch-size 32 --plain-questions 5          # invented people, minutes

The peers are transformers' GPT-2, trained as its Trainer does, and the published recipe in plain PyTorch
(`plain_mingpt`); all have 4 layers, 8 heads, width 256, 128 positions and a character vocabulary of 256, and learn the
same text in float32 (MiniGPT in bfloat16, too, where the processor multiplies that faster). Every measurement runs in
a fresh process; they are interleaved over rounds; a ratio is taken within a round. Writes the results as JSON and,
beside it, as Markdown after each round, and exits with 1 where a bar printed at the end is missed.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.run_folder import write_json
from benchmarks.measurement import describe_machine, interleave, name_machine
from benchmarks.peer_contenders import CONTENDERS, Point, describe_settings, measure_point
from benchmarks.peer_models import CHUNK, GPT2, OURS, PLAIN, Settings, Texts
from benchmarks.plain_mingpt import Shape
from data_scripts.bios_folder import DataError
from data_scripts.synthetic_bios import invent
from evaluation.tables import markdown_table

QUANTITIES = [  # task, field, heading, units in one of the field's, whether more is better
    ("training", "text_tokens_per_second", "text tokens/s", 1, True),
    ("training", "positions_per_second", "positions/s", 1, True),
    ("training", "peak_bytes", "peak memory, MiB", 2**-20, False),
    ("generation", "seconds", "all questions, s", 1, False),
    ("generation", "questions_per_second", "questions/s", 1, True),
    ("generation", "peak_bytes", "peak memory, MiB", 2**-20, False),
    ("data path", "examples_per_second", "examples/s", 1, True),
]
BARS = [  # task, field, peer, at least so many times better than it
    ("training", "text_tokens_per_second", PLAIN, 1.2),
    ("training", "text_tokens_per_second", GPT2, 2.0),
    ("data path", "examples_per_second", PLAIN, 20.0),
    ("generation", "questions_per_second", PLAIN, 20.0),
]
NOTES = """\
- Text tokens are the characters predicted, padding aside; positions are those computed, padding and all. The published
  loop always computes 127 a row, GPT-2's collator pads to a batch's longest row, MiniGPT batches rows of like length.
- "{ours}" trains as the recipe `cs224n-speedrun` does (rotary positions, RMSNorm, squared ReLU, no dropout, Muon,
  compiled blocks and loss), on this text, in float32, but for Muon's products: those are in bfloat16 where the
  processor multiplies it faster, as torch's Muon takes them everywhere. "{ours}, bfloat16" is the same with all in the
  format that the recipe takes by itself; "{ours}, seed recipe" is the published model and its AdamW, with the
  package's loop around them. Whatever is compiled is so before the clock starts.
- Every answer has {new_tokens} tokens: nobody stops at the sentinel. {scaled}
- A data path has one core: its rate is by the processor time of all its threads. MiniGPT tokenises all texts once,
  before the clock starts, in half a second.
- Memory is the peak of a process over what its imports and the texts take.
"""


def good(rounds: list[dict], field: str) -> list[float]:
    """Return a field of the rounds that have it."""
    return [result[field] for result in rounds if result.get(field) is not None]


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(results: dict[Point, list[dict]]) -> list[dict]:
    """Return a row for each task, field and contender: its spread, and how many times better ours is, by round."""
    rows = []
    for task, field, *_, more in QUANTITIES:
        ours = results.get(Point(task, OURS), [])
        for point, rounds in results.items():
            if point.task != task or not (values := good(rounds, field)):
                continue
            pairs = [
                (one[field], other[field])
                for one, other in zip(ours, rounds, strict=False)
                if one.get(field) and other.get(field)
            ]
            ratios = [mine / theirs if more else theirs / mine for mine, theirs in pairs]
            rows.append(
                {
                    "task": task,
                    "field": field,
                    "subject": point.subject,
                    **spread(values),
                    "times_better": spread(ratios) if ratios and point.subject != OURS else None,
                }
            )
    return rows


def judge(rows: list[dict], tasks: list[str]) -> list[dict]:
    """Return each bar of the tasks asked for: what, the median ratio found (None: failed), the bar."""
    found = {(row["task"], row["field"], row["subject"]): row["times_better"] for row in rows}
    bars = []
    for task, field, peer, bar in BARS:
        ratio = (found.get((task, field, peer)) or {}).get("median")
        what = f"{task}: {field.replace('_per_second', '/s').replace('_', ' ')} over {peer}'s"
        if task in tasks:
            bars.append({"what": what, "found": ratio, "bar": bar, "holds": ratio is not None and ratio >= bar})
    return bars


def cell(values: dict[str, float] | None, scale: float = 1) -> str:
    """Write a median and its range."""
    if values is None:
        return "–"
    low, middle, high = (write_number(scale * values[key]) for key in ("min", "median", "max"))
    return middle if low == high else f"{middle} ({low}–{high})"


def write_number(value: float) -> str:
    """Write three digits, or all those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_tables(record: dict, results: dict[Point, list[dict]]) -> str:
    """Return the results as Markdown."""
    machine, settings, shape = record["machine"], record["settings"], record["settings"]["shape"]
    parts = [
        "# MiniGPT and its peers\n",
        f"{shape['layers']} layers, {shape['heads']} heads, width {shape['width']}, block {shape['block']}, "
        f"vocabulary {shape['vocabulary']}; {settings['steps']} steps of {settings['batch_size']} rows; "
        f"{settings['documents']:,} documents, {settings['questions']} questions ({record['data']}). "
        f"{name_machine(machine)}. Medians (and ranges) of "
        f"{record['rounds']} rounds; × is how many times better MiniGPT is, by round.\n",
    ]
    for task in dict.fromkeys(row["task"] for row in record["summary"]):
        columns, cells = [task], {row["subject"]: [] for row in record["summary"] if row["task"] == task}
        for _, field, heading, scale, _ in (quantity for quantity in QUANTITIES if quantity[0] == task):
            rows = {r["subject"]: r for r in record["summary"] if (r["task"], r["field"]) == (task, field)}
            columns += [heading, "×"]
            for subject, row in cells.items():
                found = rows.get(subject)
                row += [cell(found, scale), cell(found and found["times_better"])]
        parts.append(markdown_table(columns, [[subject, *row] for subject, row in cells.items()]))
    asked, answered = settings["questions"], min(settings["plain_questions"], settings["questions"])
    scaled = f"The plain loop answered {answered} of {asked}, its seconds are scaled up." if answered < asked else ""
    parts.append(NOTES.format(ours=OURS, new_tokens=settings["new_tokens"], scaled=scaled))
    errors = {f"- {point}: {r['error']}" for point, rounds in results.items() for r in rounds if "error" in r}
    return "\n".join([*parts, *(["## What failed\n", *sorted(errors), ""] if errors else [])])


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    base, shape, device = Settings(), Shape(), "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="cs224n layout (default: 1,400 invented people)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device, help=f"default here: {device}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on a CPU (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="times each point is measured (%(default)s)")
    parser.add_argument(
        "--shape", type=int, nargs=4, default=[shape.layers, shape.heads, shape.width, shape.block],
        metavar=("LAYERS", "HEADS", "WIDTH", "BLOCK"), help="of all models (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=base.batch_size, help="rows of a step (%(default)s)")
    parser.add_argument("--warmup", type=int, default=base.warmup, help="steps before the clock starts (%(default)s)")
    parser.add_argument("--steps", type=int, default=base.steps, help="steps timed, a multiple of 8 (%(default)s)")
    parser.add_argument("--questions", type=int, default=500, help="first so many dev questions (%(default)s)")
    parser.add_argument(
        "--plain-questions", type=int, default=base.plain_questions,
        help="how many of them the one-at-a-time loop answers, its time scaled to all (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--data-seconds", type=float, default=base.data_seconds, help="of a data path (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="default: runs/peers/peers.DEVICE.json")
    arguments = parser.parse_args(argv)
    counts = (arguments.steps, arguments.rounds, arguments.questions, arguments.plain_questions)
    if min(counts) < 1 or arguments.steps % CHUNK:
        parser.error(f"counts must be at least 1, --steps a multiple of {CHUNK}: so many batches are drawn at once")
    arguments.output = arguments.output or Path("runs/peers") / f"peers.{arguments.device}.json"
    return arguments


def load_texts(arguments: argparse.Namespace) -> Texts:
    """Return the documents and the first questions."""
    if arguments.data is None:
        bios = invent(1400, lines=3)
        texts = Texts(bios.documents, [question for question, _ in bios.validation])
    else:
        texts = Texts.read(arguments.data)
    return replace(texts, questions=texts.questions[: arguments.questions])


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    chosen = ("batch_size", "warmup", "steps", "plain_questions", "data_seconds", "device", "threads")
    settings = Settings(shape=Shape(*arguments.shape), **{name: getattr(arguments, name) for name in chosen})
    try:
        texts = load_texts(arguments)
        texts.check(settings.shape, settings.new_tokens)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    points = [Point(task, subject) for task in arguments.tasks for subject in CONTENDERS[task]]
    torch.set_num_threads(arguments.threads)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": describe_machine(torch.device(arguments.device)),
        "data": "invented people" if arguments.data is None else arguments.data.resolve().name,
        "settings": describe_settings(settings, texts),
    }
    text = ""
    for done, results in enumerate(interleave(measure_point, points, arguments.rounds, texts, settings), start=1):
        summary = summarise(results)
        record |= {"rounds": done, "summary": summary, "bars": judge(summary, arguments.tasks)}
        record["points"] = [{**vars(point), "rounds": rounds} for point, rounds in results.items()]
        text = write_tables(record, results)
        write_json(arguments.output, record)
        arguments.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    for bar in record["bars"]:
        found = "failed" if bar["found"] is None else f"{bar['found']:.2f}"
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['what']}: {found} >= {bar['bar']:g}")
    return int(not all(bar["holds"] for bar in record["bars"]))


if __name__ == "__main__":
    sys.exit(main())
