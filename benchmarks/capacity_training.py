"""One case of `capacity`: a model trained on biographies, the bits that it stores, the questions that it answers."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import fmean, median

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from benchmarks.capacity_texts import BATCH, PAD, QUESTIONS, ROW, SENTINEL, Case, Lessons, Text, Writer
from benchmarks.command_line import default_device
from configuration.schema import StageArguments
from data_scripts.sources.bios_uniform import COUNTED_WITH
from evaluation.stored_bits import SpanScore, StoredBits, count_all_bits, score_spans
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM
from training.loop import MIN_STEPS_TO_COMPILE
from training.precision import compiled_parts
from training.stepper import Stepper

HEAD_WIDTH = 16
SCORED = 4000  # people at most whose bits are counted, evenly spaced
QUESTIONED = 1000  # people at most of each half whose questions are scored
QUESTION_RATE = 0.1  # of the learning rates, for questions after the biographies
WARMUP = 2  # steps before some are timed
TIMED = 5


def build_config(case: Case, writer: Writer) -> MiniGPTConfig:
    """Return the config of a case's model; ValueError or StrictDataclassError for sizes that no model has."""
    return MiniGPTConfig(
        vocab_size=writer.vocabulary,
        hidden_size=case.width,
        num_attention_heads=max(1, case.width // HEAD_WIDTH),
        num_hidden_layers=case.layers,
        max_position_embeddings=ROW,
        attention_type=case.attention,
        tie_word_embeddings=True,
        zero_init_residual=True,
        pad_token_id=PAD,
        eos_token_id=SENTINEL,
    )


def build_model(case: Case, writer: Writer) -> MiniGPTForCausalLM:
    """Return a case's model, the same random weights for one seed."""
    torch.manual_seed(case.seed)
    return MiniGPTForCausalLM(build_config(case, writer)).to(default_device())


def stage_of(steps: int, rate: float = 1.0) -> StageArguments:
    """Return how a number of steps are trained; every stage ends with learning rate 0."""
    return StageArguments(
        steps=steps,
        warmup_steps=min(100, steps // 10),
        learning_rate=5e-3 * rate,
        muon_learning_rate=0.02 * rate,
        muon_bfloat16=False,
    )


def new_stepper(model: MiniGPTForCausalLM, stage: StageArguments, precision: str) -> Stepper:
    """Return what trains a model where it is."""
    accelerator = Accelerator(cpu=model.device.type == "cpu", mixed_precision=precision)
    return Stepper.prepare(model, stage, accelerator, stage.steps)


def take_steps(model: MiniGPTForCausalLM, lessons: Lessons, steps: range, rate: float, what: str) -> float:
    """Train on some of the lessons' steps as a stage of its own; return the mean loss of the last tenth, in nats."""
    stepper = new_stepper(model, stage_of(len(steps), rate), lessons.case.precision)
    losses = []
    rows = len(lessons[steps.start].input_ids) if len(steps) >= MIN_STEPS_TO_COMPILE else None
    with compiled_parts(model, model.device, rows), tqdm(steps, desc=what, unit="step", dynamic_ncols=True) as bar:
        for number, step in enumerate(bar):
            loss, _ = stepper.step(number, lessons[step].batch)
            losses.append(loss.item())
            if number % 50 == 0:
                bar.set_postfix_str(f"loss {fmean(losses[-50:]):.3f}")
    stepper.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # ends autocast
    return fmean(losses[-max(1, len(losses) // 10) :])


def seconds_a_step(case: Case, writer: Writer) -> float:
    """Return the time of a step over biographies, texts included; the median of a few."""
    lessons = Lessons(case, writer)
    stepper = new_stepper(build_model(case, writer), stage_of(WARMUP + TIMED), case.precision)
    seconds = []
    for step in range(WARMUP + TIMED):
        start = time.perf_counter()
        stepper.step(step, lessons[step % case.steps].batch)[0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return median(seconds[WARMUP:])


def recall_texts(
    model: MiniGPTForCausalLM, writer: Writer, texts: Sequence[Text]
) -> Iterator[list[tuple[str, SpanScore]]]:
    """Yield, for each text, the facts that it says and how the model recalls them, in rows packed as in training."""
    for start in range(0, len(texts), BATCH):
        rows = writer.pack(texts[start : start + BATCH])
        recalls = iter(score_spans(model, rows.input_ids, [span for spans in rows.spans for span in spans]))
        for spans in rows.spans:
            yield [(span.fact, next(recalls)) for span in spans]


def spread(first: int, end: int, most: int) -> np.ndarray:
    """Return at most `most` numbers in [first, end), evenly spaced; all of them where they are few."""
    return np.unique(np.linspace(first, end - 1, min(most, end - first)).round().astype(np.int64))


def score_storage(model: MiniGPTForCausalLM, case: Case, writer: Writer) -> dict[str, StoredBits]:
    """Return the bits that a model stores of all people, by relation, and together.

    The biographies are as in training: the next version, which has not been seen, or one of those that have.
    """
    people = spread(0, case.people, SCORED)
    texts = writer.biographies(people, case.version(np.full_like(people, case.exposures)))
    log_probs: dict[str, list[float]] = {}
    for recalls in recall_texts(model, writer, texts):
        own: dict[str, float] = {}
        for fact, recall in recalls:
            counted = COUNTED_WITH.get(fact, fact)
            own[counted] = own.get(counted, 0.0) + recall.log_prob
        for fact, log_prob in own.items():
            log_probs.setdefault(fact, []).append(log_prob)
    population = writer.population
    return count_all_bits(log_probs, population.entropies, case.people, population.names)


def score_questions(model: MiniGPTForCausalLM, case: Case, writer: Writer) -> dict[str, dict[str, float]]:
    """Return the share of questions that greedy decoding answers, by relation and half of the people.

    Returns:
        "trained": about people whose questions were trained on; "others": about those of whom only biographies were.
    """
    halves = {"trained": spread(0, case.asked, QUESTIONED), "others": spread(case.asked, case.people, QUESTIONED)}
    accuracy = {}
    for half, people in halves.items():
        accuracy[half] = {}
        for relation in QUESTIONS:
            texts = [writer.question(number, relation) for number in people.tolist()]
            right = [recall.is_likeliest for ((_, recall),) in recall_texts(model, writer, texts)]
            accuracy[half][relation] = fmean(right)
    return accuracy


def run_case(case: Case, writer: Writer) -> dict:
    """Train a case's model and score it; return all that the report needs.

    Bits are counted before questions alone are trained on: they are of the model that has seen biographies last.
    """
    model = build_model(case, writer)
    lessons = Lessons(case, writer)
    start = time.monotonic()
    what = f"{case.attention} {case.width}x{case.layers}"
    loss = take_steps(model, lessons, range(case.steps), 1.0, what)
    model.eval()
    result = {
        **asdict(case),
        "parameters": model.num_parameters(),
        "parameters_without_embeddings": model.num_parameters(exclude_embeddings=True),
        "loss": loss,
        "bits": {fact: asdict(bits) for fact, bits in score_storage(model, case, writer).items()},
    }
    if case.question_steps:
        model.train()
        take_steps(model, lessons, range(case.steps, len(lessons)), QUESTION_RATE, f"{what}, questions")
        model.eval()
    if case.questions is not None:
        result["accuracy"] = score_questions(model, case, writer)
    return {**result, "minutes": (time.monotonic() - start) / 60}
