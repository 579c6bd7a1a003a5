"""What `peers` measures of each subject: training steps, answers to questions, the data path; and the peak memory.

Weights are random, and no model stops at the sentinel, so that all generate equally many tokens.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice

import torch
from transformers import PreTrainedTokenizerFast

from artifacts.memory import tune_glibc_malloc
from benchmarks.harness import Point
from benchmarks.measurement import PeakMemory, wait_for
from benchmarks.peer_models import (
    CHUNK,
    GPT2,
    OUR_RECIPES,
    OURS,
    PLAIN,
    TRAINERS,
    Settings,
    Texts,
    build_model,
    endless,
    our_batches,
    our_recipe,
    plain_loader,
)
from benchmarks.plain_mingpt import Shape, answers
from evaluation.answers import answer_questions
from modeling_minigpt.answers_minigpt import encode_prompts
from modeling_minigpt.tokenization_minigpt import build_character_tokenizer

TOY = Shape(layers=1, heads=1, width=16)


def measure_training(subject: str, texts: Texts, settings: Settings) -> dict:
    """Time training steps; the memory is that of model, optimizer, data and activations together."""
    tokenizer = build_character_tokenizer(texts.lines, settings.shape.block)
    device = torch.device(settings.device)
    small = replace(settings, shape=replace(TOY, block=settings.shape.block), batch_size=2, warmup=0)
    toy = TRAINERS[subject](subject, texts, tokenizer, small)  # loads what the libraries load on first use
    toy.step(next(toy.batches))
    del toy
    peak = PeakMemory(device)
    training = TRAINERS[subject](subject, texts, tokenizer, settings)
    for batch in islice(training.batches, settings.warmup):
        training.step(batch)
    targets = positions = 0
    wait_for(device)
    start = time.perf_counter()
    for batch in islice(training.batches, settings.steps):
        loss = training.step(batch)
        counted = training.count(batch)
        targets = targets + counted[0]
        positions = positions + counted[1]
    wait_for(device)
    seconds = time.perf_counter() - start
    return {
        "text_tokens_per_second": targets / seconds,
        "positions_per_second": positions / seconds,
        "step_seconds": seconds / settings.steps,
        "peak_bytes": peak.read(),
        "loss": loss,
    }


def answer_ours(model, questions: list[str], tokenizer: PreTrainedTokenizerFast, settings: Settings) -> list[str]:
    """Answer as `train.py evaluate` does."""
    batch_size = our_recipe(OURS, settings.shape).evaluate.batch_size
    return [one.text for one in answer_questions(model, tokenizer, questions, batch_size, settings.new_tokens)]


def answer_gpt2(model, questions: list[str], tokenizer: PreTrainedTokenizerFast, settings: Settings) -> list[str]:
    """Answer by the library's batched, cached `generate`."""
    batch_size = our_recipe(OURS, settings.shape).evaluate.batch_size
    texts = []
    for first in range(0, len(questions), batch_size):
        prompts = encode_prompts(tokenizer, questions[first : first + batch_size], model.device)
        ids = model.generate(**prompts, max_new_tokens=settings.new_tokens, do_sample=False)
        texts += tokenizer.batch_decode(ids[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def answer_plain(model, questions: list[str], tokenizer: PreTrainedTokenizerFast, settings: Settings) -> list[str]:
    """Answer one question at a time, uncached."""
    return list(answers(model, questions, tokenizer.get_vocab(), settings.new_tokens))


ANSWERERS = {OURS: answer_ours, GPT2: answer_gpt2, PLAIN: answer_plain}


def measure_generation(subject: str, texts: Texts, settings: Settings) -> dict:
    """Time the answers to all questions; where only some are asked, the seconds are scaled up to all."""
    tokenizer = build_character_tokenizer(texts.lines, settings.shape.block)
    device = torch.device(settings.device)
    answer = ANSWERERS[subject]
    questions = texts.questions
    if subject == PLAIN and settings.plain_questions < len(questions):
        some = settings.plain_questions
        questions = [questions[len(questions) * number // some] for number in range(some)]
    toy = build_model(subject, replace(TOY, block=settings.shape.block), tokenizer).to(device).eval()
    answer(toy, questions[:2], tokenizer, settings)
    del toy
    peak = PeakMemory(device)
    model = build_model(subject, settings.shape, tokenizer).to(device).eval()
    answer(model, questions[:2], tokenizer, settings)
    wait_for(device)
    start = time.perf_counter()
    answer(model, questions, tokenizer, settings)
    wait_for(device)
    seconds = (time.perf_counter() - start) * len(texts.questions) / len(questions)
    return {
        "questions_per_second": len(texts.questions) / seconds,
        "seconds": seconds,
        "answered": len(questions),
        "peak_bytes": peak.read(),
    }


def rows_of_ours(texts: Texts, settings: Settings) -> Iterator[int]:
    """Make batches as the package does, and yield the number of rows after each `CHUNK`."""
    tokenizer = build_character_tokenizer(texts.lines, settings.shape.block)
    stage = replace(our_recipe(OURS, settings.shape).pretrain, batch_size=settings.batch_size, bucket_batches=CHUNK)
    batches = our_batches(stage, texts, tokenizer, settings.shape)
    first = 0
    while True:
        yield sum(len(batches[step]["labels"]) for step in range(first, first + CHUNK))
        first += CHUNK


def rows_of_plain(texts: Texts, settings: Settings) -> Iterator[int]:
    """Make batches as the plain loop does, and yield the number of rows after each `CHUNK`."""
    batches = endless(plain_loader(texts, settings))
    while True:
        yield sum(len(ids) for ids, _ in islice(batches, CHUNK))


DATA_PATHS = {OURS: rows_of_ours, PLAIN: rows_of_plain}


def measure_data(subject: str, texts: Texts, settings: Settings) -> dict:
    """Count the examples that a data path makes in a second of one core, by the processor time of all threads."""
    rows = DATA_PATHS[subject](texts, settings)
    made = 0
    for _ in range(2):  # what is made once
        next(rows)
    start = time.process_time()
    while (seconds := time.process_time() - start) < settings.data_seconds:
        made += next(rows)
    return {"examples_per_second": made / seconds}


TASKS = {"training": measure_training, "generation": measure_generation, "data path": measure_data}
SUBJECTS = {"training": TRAINERS, "generation": ANSWERERS, "data path": DATA_PATHS}


def measure_point(point: Point, texts: Texts, settings: Settings) -> dict:
    """Measure a task of a subject in this process.

    MiniGPT keeps freed memory, as its program does for training and answers.
    """
    random.seed(0)
    one_core = point.task == "data path"
    torch.set_num_threads(1 if one_core else settings.threads)
    if one_core:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not one_core and point.subject in OUR_RECIPES:
        tune_glibc_malloc()
    return TASKS[point.task](point.subject, texts, settings)


def describe_settings(settings: Settings, texts: Texts) -> dict:
    """Return what was measured, for the results."""
    return {**asdict(settings), "documents": len(texts.documents), "questions": len(texts.questions)}
