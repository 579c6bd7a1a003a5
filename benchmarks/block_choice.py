"""What does a choice of blocks find? Full attention's mass and the facts asked for, in the blocks that a rule chooses.

    python -m benchmarks.block_choice                               # trains the recall model first, five minutes
    python -m benchmarks.block_choice --model runs/recall           # trains it into a folder, or reads it from there
    python -m benchmarks.block_choice --run runs/quickstart --data runs/quickstart/data/synthetic-900-0

The model has full attention, so that each head shows what it looks for: the two-layer `vanilla` of `attention_recall`,
or the finetuned one of a run. `attention_lab/selection.py` has the rules: the blocks with the most attention, those by
boxes of keys, by mean keys, and BigBird's random ones. A query sees its window besides; 0 blocks are the window alone.

Of the recall model's texts, all questions inside count whose fact is before the window: its block has to be found
where the answer is read. A run answers from its weights; there, the questions are those of training whose answers it
knows, the fact is the last token of the name, and blocks are small, as the questions are. A figure (.svg) is written
beside the report.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.loading import load_model
from artifacts.run_folder import RunError
from attention_lab.model_report import known_questions
from attention_lab.selection import what_is_found
from attention_lab.trained import ask, load_eager
from benchmarks.attention_recall import add_training_options, answer_inside
from benchmarks.block_choice_report import draw, report
from benchmarks.harness import Point, Record, in_this_process, new_parser
from benchmarks.measurement import describe_machine
from benchmarks.recall_models import build_model, train
from benchmarks.recall_texts import TASKS, Text
from configuration.errors import run_main
from data_scripts.bios_folder import FILES, check_folder, read_questions

RECALL_SIZES = {"block": 16, "window": 4, "counts": [0, 1, 2, 4, 8, 16]}  # those of `selected` in attention_subjects
RUN_SIZES = {"block": 2, "window": 1, "counts": [0, 1, 2]}

Asked = tuple[torch.Tensor, torch.Tensor]  # ids (1, T), and of each question: row, reader, fact, (N, 3)


def questions_inside(text: Text) -> Asked:
    """Return a recall text and its questions: each answer is read from the token before it."""
    asked = [(0, at - 1, source) for at, source in text.answers.items()]
    return torch.from_numpy(text.ids)[None], torch.tensor(asked, dtype=torch.long).view(-1, 3)


def questions_of_run(run: Path, data: Path) -> tuple[PreTrainedModel, Iterator[Asked]]:
    """Return a run's finetuned model, and each question that it knows with its answer; RunError for no such run."""
    check_folder(data)
    try:
        model, tokenizer = load_eager(run / "finetune")
        questions = known_questions(model, tokenizer, read_questions(data / FILES["train"]))
    except ValueError as error:
        raise RunError(str(error)) from error
    laid_out = (ask(tokenizer, [question]) for question in questions)
    # The name's last token is where a head can have put together which person it is.
    return model, (
        (one.inputs["input_ids"], torch.stack([torch.tensor(0), one.place[0], one.name[0].nonzero().max()])[None])
        for one in laid_out
    )


def average(model: PreTrainedModel, texts: Iterable[Asked], block: int, window: int, counts: list[int]) -> dict:
    """Return the rows of `what_is_found`, means over texts (mass) and over their questions (found).

    Questions about what is in the window are left out, and texts without any other or too short for a choice.

    Raises:
        RunError: no text is left.
    """
    needed = (window + max(counts)) * block
    found = defaultdict(list)
    questions = []
    for ids, asked in texts:
        _, reader, fact = asked.unbind(-1)
        asked = asked[fact // block <= reader // block - window]
        if len(asked) == 0 or ids.shape[1] <= needed:
            continue
        questions.append(len(asked))
        for row in what_is_found(model, ids, asked, counts, block, window):
            key = tuple(row[name] for name in ("layer", "head", "rule", "blocks"))
            found[key].append((row["mass"], row["found"]))
    if not questions:
        raise RunError(f"no text of more than {needed} tokens with a question about what is before the window")
    rows = []
    for (layer, head, rule, blocks), values in found.items():
        masses, shares = np.array(values).T
        means = {"mass": masses.mean(), "found": np.average(shares, weights=questions)}
        rows.append({"layer": layer, "head": head, "rule": rule, "blocks": blocks}
                    | {name: float(value) for name, value in means.items()})  # fmt: skip
    return {"texts": len(questions), "questions": sum(questions), "rows": rows}


def recall_model(arguments: argparse.Namespace) -> PreTrainedModel:
    """Read the recall model from `--model`, or train it, into that folder if one is named.

    Raises:
        RunError: the folder's model has other attention or another vocabulary than the task.
    """
    folder = arguments.model
    vocabulary = TASKS[arguments.task].vocabulary
    if folder is not None and (folder / "config.json").is_file():
        model = load_model(folder)
        types = set(model.config.layer_attention_types)
        if types != {"vanilla"} or model.config.vocab_size != vocabulary:
            raise RunError(
                f"{folder}: wanted a model with vanilla attention and {vocabulary} tokens, found "
                f"{' and '.join(sorted(types))} and {model.config.vocab_size}"
            )
    else:
        model = build_model("vanilla", arguments.length, arguments.task, arguments.seed)
        settings = (arguments.task, arguments.length, arguments.steps, arguments.tokens, arguments.seed)
        train(model, "vanilla", *settings)
        if folder is not None:
            model.save_pretrained(folder)
    model.set_attn_implementation("eager")
    return model.eval()


def measure_recall(point: Point, arguments: argparse.Namespace) -> dict:
    """Train or read the recall model; return what is found in its contexts, and how many answers are right."""
    model = recall_model(arguments)
    rng = np.random.default_rng(2)  # the contexts of attention_recall
    texts = [TASKS[arguments.task].write(rng, arguments.length) for _ in range(arguments.contexts)]
    right = [is_right for text in texts for _, is_right in answer_inside(model, text)]
    asked = (questions_inside(text) for text in tqdm(texts, desc=str(point), unit="context", dynamic_ncols=True))
    found = average(model, asked, arguments.block, arguments.window, arguments.counts)
    return {"right": float(np.mean(right)) if right else None, **found}


def measure_run(point: Point, arguments: argparse.Namespace) -> dict:
    """Return what is found in the questions that a run's model knows."""
    model, asked = questions_of_run(arguments.run, arguments.data)
    return average(model, asked, arguments.block, arguments.window, arguments.counts)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "runs/block_choice.cpu.json")
    add = parser.add_argument
    add("--task", choices=list(TASKS), default="people", help="of the recall model (default: %(default)s)")
    add_training_options(parser)
    add("--seed", type=int, default=0, help="of the recall model (default: %(default)s)")
    add("--contexts", type=int, default=4, help="texts of --length tokens to read (default: %(default)s)")
    add("--model", type=Path, metavar="FOLDER", help="of the recall model; it is trained and saved there if missing")
    add("--run", type=Path, metavar="RUN", help="look into the finetuned model of a run instead")
    add("--data", type=Path, metavar="FOLDER", help="the run's data, in the cs224n layout")
    add("--block", type=int, help="tokens of a block (default: 16; of a run 2)")
    add("--window", type=int, help="the last blocks, which are always seen (default: 4; of a run 1)")
    add("--counts", type=int, nargs="+", metavar="K", help="blocks chosen (default: 0 1 2 4 8 16; of a run 0 1 2)")
    add("--threads", type=int, default=2, help="threads (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if (arguments.run is None) != (arguments.data is None):
        parser.error("--run and --data go together")
    for name, value in (RECALL_SIZES if arguments.run is None else RUN_SIZES).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if min(arguments.block, arguments.window) < 1 or min(arguments.counts) < 0:
        parser.error("--block and --window must be at least 1, --counts at least 0")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Measure one model; return the exit status."""
    arguments = parse_arguments(argv)

    def command() -> None:
        torch.set_num_threads(arguments.threads)
        names = ["block", "window", "counts"]
        if arguments.run is None:
            names += ["length", "steps", "tokens", "contexts"]
            point = Point("vanilla", arguments.task, seed=arguments.seed)
        else:
            point = Point(arguments.run.name)
        settings = {name: getattr(arguments, name) for name in names}
        machine = describe_machine(torch.device("cpu"))
        record = Record(arguments.output, report, {"machine": machine, **settings})
        measure = measure_recall if arguments.run is None else measure_run
        record.measure([point], measure, arguments, run=in_this_process)
        print(record.text())
        draw(record.content(), arguments.output.with_suffix(".svg"))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
