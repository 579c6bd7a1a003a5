"""Recall beside speed: what each attention variant still knows of a context of 4,096 tokens.

    python -m benchmarks.attention_recall            # seven models on two cores, half an hour
    python -m benchmarks.attention_recall --subjects vanilla linformer --output recall.json

A text is biographies, `NAME PLACE word … STOP`, with no name twice, and questions in between, `ASK NAME PLACE`, about
people met before: associative recall with many queries (Arora et al. 2023, "Zoology", arXiv 2312.04927, section 4).
Each variant trains on the same texts, first short ones, then long ones, and on nothing but the answers. It is scored
by one question at the end of a long context, about anybody not asked for before; all such questions share a context
through copies of its cache.
"""

import copy
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.memory import tune_glibc_malloc
from benchmarks.attention_subjects import SIZES
from benchmarks.harness import (
    Point,
    Record,
    failures,
    in_this_process,
    new_parser,
    results_of,
    successes,
    write_report,
)
from benchmarks.measurement import describe_machine, name_machine
from configuration.errors import run_main
from configuration.schema import StageArguments
from evaluation.tables import markdown_table, percent
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from training.stepper import Stepper

ASK, STOP = range(2)
WORDS = range(2, 34)
PLACES = range(34, 66)
NAMES = range(66, 322)
SHARES = (256, 64, 16, 4, 1)  # of the context, as lengths of the texts trained on, one after the other
NEAREST = 64  # tokens; recall is reported by how far a place is from its question: up to 64, 256, 1,024, …
SUBJECTS: dict[str, str | list[str]] = {
    "vanilla": "vanilla",
    "linformer": "linformer",
    "linformer, content slots": "linformer",
    "bigbird": "bigbird",
    "window": "window",
    "performer": "performer",
    "linformer below vanilla": ["linformer", "vanilla"],
}


@dataclass
class Text:
    """A text and what can be asked of it.

    Attributes:
        ids: its tokens.
        answers: positions of places that answer a question.
        open: (name, place, position of the place) of the people that no question is about.
    """

    ids: np.ndarray
    answers: list[int]
    open: list[tuple[int, int, int]]


def write_text(rng: np.random.Generator, length: int, question_share: float = 0.4) -> Text:
    """Write a text of `length` tokens: about a hundred people in a long one, up to length / 64 words each.

    A question is as likely near as far, in octaves, and no person has two.
    """
    names = iter(rng.permutation(NAMES))
    ids = []
    answers = []
    people: list[tuple[int, int, int]] = []
    while len(ids) < length:
        if len(people) > 1 and rng.random() < question_share:
            back = min(len(people), math.floor((len(people) + 1) ** rng.random()))  # log-uniform over 1 … all
            name, place, _ = people.pop(-back)
            answers.append(len(ids) + 2)
            ids += [ASK, name, place]
        else:
            name = int(next(names))
            place = int(rng.choice(PLACES))
            people.append((name, place, len(ids) + 1))
            ids += [name, place, *rng.choice(WORDS, size=rng.integers(length // 64 + 1)).tolist(), STOP]
    return Text(
        ids=np.array(ids[:length]),
        answers=[position for position in answers if position < length],
        open=[person for person in people if person[2] < length],
    )


def batch_of(rng: np.random.Generator, rows: int, length: int) -> dict[str, torch.Tensor]:
    """Return `rows` texts as `{"input_ids", "labels"}` (B, T), with labels at the answers only."""
    texts = [write_text(rng, length) for _ in range(rows)]
    ids = torch.from_numpy(np.stack([text.ids for text in texts]))
    labels = torch.full_like(ids, -100)
    for row, text in enumerate(texts):
        labels[row, text.answers] = ids[row, text.answers]
    return {"input_ids": ids, "labels": labels}


def build_model(subject: str, length: int) -> MiniGPTForCausalLM:
    """Return a two-layer model of a subject, the same random weights for one seed."""
    torch.manual_seed(0)
    return MiniGPTForCausalLM(
        MiniGPTConfig(
            vocab_size=NAMES.stop,
            hidden_size=128,
            num_attention_heads=2,
            num_hidden_layers=2,
            max_position_embeddings=length,
            attention_type=SUBJECTS.get(subject, subject),
            zero_init_residual=True,
            linformer_slot_type="content" if subject.endswith("content slots") else "positional",
            **SIZES,
        )
    )


def train(model: MiniGPTForCausalLM, subject: str, length: int, steps: list[int], tokens: int) -> dict:
    """Train on texts of `SHARES` of `length`, the shortest first, `steps` of each; return minutes and loss."""
    stage = StageArguments(steps=sum(steps), decay_fraction=0.4, muon_learning_rate=0.005, muon_bfloat16=False)
    stepper = Stepper.prepare(model, stage, Accelerator(cpu=True, mixed_precision="no"), stage.steps)
    rng = np.random.default_rng(1)
    start = time.monotonic()
    losses = []
    lengths = [length // share for share, count in zip(SHARES, steps, strict=True) for _ in range(count)]
    with tqdm(lengths, desc=subject, unit="step", dynamic_ncols=True) as bar:
        for step, n in enumerate(bar):
            loss, _ = stepper.step(step, batch_of(rng, max(1, tokens // n), n))
            losses.append(loss.item())
            if step % 20 == 0:
                bar.set_postfix_str(f"{n} tokens, loss {losses[-1]:.3f}")
    return {"minutes": (time.monotonic() - start) / 60, "loss": float(np.mean(losses[-20:]))}


@torch.inference_mode()
def ask(model: MiniGPTForCausalLM, text: Text, people: list[tuple[int, int, int]], at_once: int = 64) -> list[bool]:
    """Ask for each person alone, at the end of the text; return which answers are right."""
    read = model(torch.from_numpy(text.ids)[None], use_cache=True, logits_to_keep=1).past_key_values
    right = []
    for start in range(0, len(people), at_once):
        asked = people[start : start + at_once]
        cache = copy.deepcopy(read)
        cache.batch_repeat_interleave(len(asked))
        questions = torch.tensor([[ASK, name] for name, _, _ in asked])
        answers = model(questions, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1)
        right += [answer == place for answer, (_, place, _) in zip(answers.tolist(), asked, strict=True)]
    return right


def score(model: MiniGPTForCausalLM, length: int, contexts: int) -> dict:
    """Return the share of right answers over all people of some contexts, and by distance in tokens."""
    rng = np.random.default_rng(2)
    found = []
    model.eval()
    for _ in range(contexts):
        text = write_text(rng, length)
        # The answer comes two tokens after the context.
        distances = [length + 2 - position for _, _, position in text.open]
        found += zip(distances, ask(model, text, text.open), strict=True)
    low = 0
    parts = []
    for high in (*(NEAREST * 4**step for step in range(20) if NEAREST * 4**step < length), length + 2):
        hits = [right for distance, right in found if low < distance <= high]
        parts.append({"above": low, "to": high, **share(hits)})
        low = high
    return {**share([right for _, right in found]), "by_distance": parts}


def share(hits: list[bool]) -> dict:
    """Return how many questions there were, the share of right answers and the reach of its 95 % interval."""
    if not hits:
        return {"questions": 0, "recall": None, "plus_minus": None}
    recall = float(np.mean(hits))
    return {
        "questions": len(hits),
        "recall": recall,
        "plus_minus": 1.96 * math.sqrt(recall * (1 - recall) / len(hits)),
    }


def cell(part: dict) -> str:
    """Write a share with its interval."""
    return "–" if part["recall"] is None else f"{percent(part['recall'])} ± {100 * part['plus_minus']:.1f}"


def measure(point: Point, length: int, steps: list[int], tokens: int, contexts: int) -> dict:
    """Train a model of a subject and score it."""
    model = build_model(point.subject, length)
    training = train(model, point.subject, length, steps, tokens)
    return {**training, **score(model, length, contexts)}


def report(content: dict) -> str:
    """Return the results as Markdown."""
    results = results_of(content)
    found = {point.subject: good[0] for point, rounds in results.items() if (good := successes(rounds))}
    if not found:
        return write_report("Recall", name_machine(content["machine"]), failures(results))
    first = next(iter(found.values()))
    *near, far = first["by_distance"]
    distances = [*(f"{part['above']:,}–{part['to']:,}" for part in near), f"over {far['above']:,}"]
    rows = []
    for subject, one in found.items():
        recall = [cell(part) for part in (*one["by_distance"], one)]
        rows.append([subject, *recall, f"{one['loss']:.2f}", f"{one['minutes']:.1f}"])
    asked = ", ".join(str(part["questions"]) for part in first["by_distance"])
    introduction = (
        f"Two layers of width 128, one seed, {sum(content['steps'])} steps of {content['tokens']:,} tokens; "
        f"{name_machine(content['machine'])}. Right answers to {first['questions']} questions ({asked} by distance), "
        f"with 95 % intervals; a guess is right for {100 / len(PLACES):.1f} %. `SIZES` of `attention_subjects.py` "
        "gives each variant's segments and blocks."
    )
    columns = ["recall, by tokens back", *distances, "anybody", "loss", "training minutes"]
    title = f"Recall in a context of {content['length']:,} tokens"
    return write_report(title, introduction, markdown_table(columns, rows), failures(results))


def main(argv: list[str] | None = None) -> int:
    """Train and score every subject; return the exit status."""
    parser = new_parser(__doc__, "runs/attention_recall.cpu.json")
    known = [*dict.fromkeys((*SUBJECTS, *ATTENTION_CLASSES))]
    parser.add_argument(
        "--subjects", nargs="+", choices=known, default=list(SUBJECTS), metavar="NAME", help=f"of {', '.join(known)}"
    )
    parser.add_argument("--length", type=int, default=4096, help="tokens of a context (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a step (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, nargs=5, default=[100, 60, 60, 60, 140], metavar="N",
        help="steps on texts of 1/256, 1/64, 1/16, 1/4 and all of the length (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--contexts", type=int, default=12, help="contexts to score on (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default: %(default)s)")
    arguments = parser.parse_args(argv)

    def command() -> None:
        torch.set_num_threads(arguments.threads)
        tune_glibc_malloc()
        names = ("length", "steps", "tokens", "contexts")
        settings = {name: getattr(arguments, name) for name in names}
        machine = describe_machine(torch.device("cpu"))
        record = Record(arguments.output, report, {"machine": machine, **settings})
        points = [Point(subject) for subject in arguments.subjects]
        record.measure(points, measure, *settings.values(), run=in_this_process)
        print(record.text())

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
