"""Recall beside speed: what each attention variant still knows of a context of 4,096 tokens, and of longer ones.

    python -m benchmarks.attention_recall            # every named subject once, four minutes each on two cores
    python -m benchmarks.attention_recall --subjects vanilla linformer --output recall.json
    python -m benchmarks.attention_recall --seeds 0 1 2 --tasks people mqar several similar
    python -m benchmarks.attention_recall --subjects vanilla --read-lengths 1024 2048 4096 8192 16384
    python -m benchmarks.attention_recall --subjects vanilla --save runs/recall     # for python -m attention_lab.found

Texts are those of `recall_texts.py`: associative recall with many queries (Arora et al. 2023, "Zoology", arXiv
2312.04927, section 4). Every variant trains on the same texts, first short ones, then long ones, and on nothing but
the answers. Then it reads contexts that are the same for all subjects and seeds. It is scored by one question at the
end of a long context, about anything not asked before; all such questions share a context through copies of its cache.
In "mqar" all questions are in the text, and one pass answers them. Contexts longer than those trained on have as many
facts, further apart; they are also read with scaled rotation (--rope-scalings).

Each subject, task and seed is one training, by default of 420 steps of 4,096 tokens: 1.5 to 4 minutes on two cores, in
proportion to --steps and --tokens. Reading 12 contexts takes up to half a minute at 4,096 tokens, and up to 2 minutes
at 16,384, for each scaling. So three seeds and four tasks take some half an hour to an hour for each subject. What an
earlier run of the same command measured is read from --output; an interrupted training starts again. Last, a forward
and backward pass of every subject is timed. A figure beside the report (.svg) shows recall against distance, and
against that time.
"""

import argparse
import copy
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.files import write_json
from artifacts.machine import describe_machine
from artifacts.memory import tune_glibc_malloc
from benchmarks.command_line import (
    new_parser,
    non_negative_int,
    output_folder,
    positive_int,
    seed_number,
    thread_count,
)
from benchmarks.harness import Point, Record, in_this_process
from benchmarks.recall_models import (
    SCALINGS,
    SHARES,
    SUBJECTS,
    UNSCALED,
    build_model,
    milliseconds_a_token,
    rescaled,
    train,
)
from benchmarks.recall_report import draw, report
from benchmarks.recall_texts import LONGEST_QUESTION, TASKS, Fact, Text
from configuration.errors import run_main, show
from modeling_minigpt import MiniGPTForCausalLM
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES

NEAREST = 64  # tokens; recall is reported by how far a fact is from its question: up to 64, 256, 1,024, …
MAX_ASKED = 96  # open facts of a context; of more, this many are drawn
SAVED_TEXTS = 4
TIMINGS = 3  # of each subject, in turn
CACHED = 2**18  # tokens in all copies of a cache: with 4,096 tokens 64 questions are asked at once

Found = list[tuple[int, bool]]  # of each question, how many tokens the fact is back, and whether the answer is right


@torch.inference_mode()
def ask(model: MiniGPTForCausalLM, text: Text, facts: list[Fact]) -> list[bool]:
    """Ask for each fact alone, at the end of the text; return which answers are right."""
    at_once = max(1, CACHED // len(text.ids))
    read = model(torch.from_numpy(text.ids)[None], use_cache=True, logits_to_keep=1).past_key_values
    right = []
    for start in range(0, len(facts), at_once):
        asked = facts[start : start + at_once]
        cache = copy.deepcopy(read)
        cache.batch_repeat_interleave(len(asked))
        questions = torch.tensor([fact.question for fact in asked])
        answers = model(questions, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1)
        right += [answer == fact.answer for answer, fact in zip(answers.tolist(), asked, strict=True)]
    return right


def answer_at_end(model: MiniGPTForCausalLM, text: Text) -> Found:
    """Ask for the open facts of a text at its end."""
    # The answer would come right after the context and the question.
    distances = [len(text.ids) + len(fact.question) - fact.position for fact in text.open]
    return list(zip(distances, ask(model, text, text.open), strict=True))


@torch.inference_mode()
def answer_inside(model: MiniGPTForCausalLM, text: Text) -> Found:
    """Answer every question in a text, in one pass."""
    answers = np.array(list(text.answers), dtype=int)
    logits = model(torch.from_numpy(text.ids)[None], use_cache=False).logits[0]
    right = logits[torch.from_numpy(answers - 1)].argmax(-1).numpy() == text.ids[answers]
    distances = answers - np.array(list(text.answers.values()), dtype=int)
    return list(zip(distances.tolist(), right.tolist(), strict=True))


def score(model: MiniGPTForCausalLM, task: str, length: int, contexts: int) -> dict:
    """Return the share of right answers to all questions of some contexts, and by distance in tokens."""
    rng = np.random.default_rng(2)  # whatever the model and its seed: all read the same contexts
    answer = answer_inside if TASKS[task].in_one_pass else answer_at_end
    found: Found = []
    model.eval()
    for _ in tqdm(range(contexts), desc=f"reading {length:,} tokens", unit="context", leave=False, dynamic_ncols=True):
        text = TASKS[task].write(rng, length)
        if len(text.open) > MAX_ASKED:
            text.open = [text.open[number] for number in sorted(rng.permutation(len(text.open))[:MAX_ASKED])]
        found += answer(model, text)
    borders = [NEAREST * 4**step for step in range(20) if NEAREST * 4**step < length]
    parts = []
    for low, high in pairwise([0, *borders, length + LONGEST_QUESTION]):
        hits = [right for distance, right in found if low < distance <= high]
        parts.append({"above": low, "to": high, **share(hits)})
    return {**share([right for _, right in found]), "by_distance": parts}


def share(hits: list[bool]) -> dict:
    """Return how many questions there were, and the share of right answers."""
    return {"questions": len(hits), "recall": float(np.mean(hits)) if hits else None}


def measure(
    point: Point,
    length: int,
    steps: list[int],
    tokens: int,
    contexts: int,
    read_lengths: list[int],
    rope_scalings: list[str],
    save: Path | None = None,
) -> dict:
    """Train a model of a subject on a task, and score it at each length; save it into a folder below `save`."""
    model = build_model(point.subject, length, point.task, point.seed)
    training = train(model, str(point), point.task, length, steps, tokens, point.seed)
    if save is not None:
        save_with_texts(model, saved_folder(save, point), point.task, length)
    reads = []
    for read_length in read_lengths:
        for scaling in rope_scalings if read_length > length else [UNSCALED]:
            reader = rescaled(model, read_length, scaling)
            found = score(reader, point.task, read_length, contexts)
            reads.append({"length": read_length, "scaling": scaling, **found})
    return {**training, "reads": reads}


def saved_folder(save: Path, point: Point) -> Path:
    """Return the folder of a point's model."""
    return save / str(point).replace(", ", "-").replace(" ", "_")


def save_with_texts(model: MiniGPTForCausalLM, folder: Path, task: str, length: int) -> None:
    """Save a model, and beside it texts with where their answers are read from and where the facts are."""
    model.save_pretrained(folder)
    rng = np.random.default_rng(2)  # the contexts that `score` reads
    texts = []
    for text in (TASKS[task].write(rng, length) for _ in range(SAVED_TEXTS)):
        asked = [[answer - 1, fact] for answer, fact in text.answers.items()]
        texts.append({"ids": text.ids.tolist(), "asked": asked})
    write_json(folder / "texts.json", {"texts": texts})


def time_subject(point: Point, length: int) -> dict:
    """Time a model of a subject: what it has learned changes nothing."""
    return {"milliseconds": milliseconds_a_token(build_model(point.subject, length), length)}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "runs/attention_recall.cpu.json")
    known = [*dict.fromkeys((*SUBJECTS, *ATTENTION_CLASSES))]
    add = parser.add_argument
    add("--subjects", nargs="+", choices=known, default=list(SUBJECTS), metavar="NAME", help=f"of {', '.join(known)}")
    add("--tasks", nargs="+", choices=list(TASKS), default=["people"], help="default: people")
    add("--seeds", type=seed_number, nargs="+", default=[0], metavar="N",
        help="of weights and training texts (default: 0)")  # fmt: skip
    add("--length", type=positive_int, default=4096,
        help="tokens of the longest texts to train on (default: %(default)s)")  # fmt: skip
    add("--tokens", type=positive_int, default=4096, help="tokens per step (default: %(default)s)")
    add(
        "--steps", type=non_negative_int, nargs=5, default=[100, 60, 60, 60, 140], metavar="N",
        help="steps on texts of 1/256, 1/64, 1/16, 1/4 and all of the length (default: %(default)s)",
    )  # fmt: skip
    add(
        "--contexts", type=positive_int, default=12, help="contexts to score on, at each length (default: %(default)s)"
    )
    add(
        "--read-lengths", type=positive_int, nargs="+", default=[], metavar="N",
        help="tokens of the contexts to score on, beside --length, which is always among them",
    )  # fmt: skip
    add(
        "--rope-scalings", nargs="+", choices=SCALINGS, default=[UNSCALED, "yarn"],
        help="how contexts longer than --length are read (default: none yarn)",
    )  # fmt: skip
    add("--save", type=output_folder, metavar="FOLDER",
        help="also save each trained model, and texts to analyse it with")  # fmt: skip
    add("--threads", type=thread_count, default=2, help="threads (default: %(default)s)")
    arguments = parser.parse_args(argv)
    shares = [share for share, steps in zip(SHARES, arguments.steps, strict=True) if steps]
    if not shares:
        parser.error("argument --steps: must have a step at one of the lengths, found 0 0 0 0 0")
    if arguments.length < shares[0]:
        parser.error(f"argument --length: must be at least {shares[0]} with these --steps, found {arguments.length}")
    arguments.read_lengths = sorted({arguments.length, *arguments.read_lengths})
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Train and score every subject; return the exit status."""
    arguments = parse_arguments(argv)

    def command() -> None:
        torch.set_num_threads(arguments.threads)
        tune_glibc_malloc()
        names = ("length", "steps", "tokens", "contexts", "read_lengths", "rope_scalings")
        settings = {name: getattr(arguments, name) for name in names}
        machine = describe_machine(torch.device("cpu"))
        record = Record(arguments.output, report, {"machine": machine, **settings})
        points = [
            Point(subject, task, seed=seed)
            for seed in arguments.seeds
            for task in arguments.tasks
            for subject in arguments.subjects
        ]
        if arguments.save is not None:  # also models that an earlier run measured and did not save
            for point in points:
                if not saved_folder(arguments.save, point).is_dir():
                    record.results.pop(point, None)
        record.measure(points, measure, *settings.values(), arguments.save, run=in_this_process)
        subjects = [Point(subject) for subject in arguments.subjects]
        record.measure(subjects, time_subject, arguments.length, rounds=TIMINGS, run=in_this_process)
        draw(record.content(), arguments.output.with_suffix(".svg"))
        show(record.text())

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
