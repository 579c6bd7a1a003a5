"""Load on `minigpt serve`: answers per second, their times, and whether threads or requests change an answer.

    python -m benchmarks.serving runs/quickstart                                    # two minutes of 32 clients
    python -m benchmarks.serving runs/quickstart --seconds 5 --questions 64 --output serving.json

The questions are about the names of training, of every relation, each second one typed in lower case. One thread asks
them all of a pipeline first, which gives the answers that are expected. Then

- threads: 16 threads ask them of one pipeline at once;
- clients: 32 clients ask them of `minigpt serve`, in a process of its own, one question a request, over one connection
  each; a client asks the next question as soon as it has its answer.

A false abstention is a question that gets no answer, though a single thread gets one. The clients, and any other
programs, run on the same cores as the server. The exit status is 1 if a bar printed at the end is missed.
"""

import argparse
import http.client
import itertools
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from artifacts.machine import describe_machine, name_machine
from benchmarks.bars import Bar, print_bars
from benchmarks.command_line import new_parser, positive_float, positive_int, thread_count
from benchmarks.harness import (
    Point,
    Record,
    Results,
    failures,
    in_this_process,
    results_of,
    section,
    successes,
    write_report,
)
from benchmarks.inputs import weights_digest
from configuration.errors import UserError, run_main, show
from modeling_minigpt.cli_models_minigpt import CommandError, load_pipeline
from modeling_minigpt.pipeline_minigpt import ClosedBookPipeline

THREADS = "threads"
CLIENTS = "clients"
COUNTS = {THREADS: 16, CLIENTS: 32}
SAME_SCORE = 1e-3  # relative; another batch rounds in another way
# The bars.
MIN_RATE = 200.0  # answers per second


class Reply(NamedTuple):
    """What a client got for a question, and in how many seconds; no result where the request failed."""

    text: str
    result: dict | None
    seconds: float


def list_questions(pipeline: ClosedBookPipeline, count: int) -> list[str]:
    """Return `count` questions about the names of training, of all relations in turn, or as many as there are.

    Raises:
        UserError: the model has no names.
    """
    names = pipeline.names.text.splitlines()
    if not names:
        raise UserError("the model has no names.txt, of whose people it could be asked")
    relations = list(pipeline.relations.values())
    pairs = itertools.islice(itertools.product(names, relations), count)
    texts = [relation.format(name) for name, relation in pairs]
    return [text.lower() if number % 2 else text for number, text in enumerate(texts)]


def count_differences(replies: Sequence[Reply], expected: dict[str, dict]) -> dict[str, int]:
    """Return how many replies are not what one thread gets, and in what."""
    found = [(reply.result, expected[reply.text]) for reply in replies if reply.result is not None]
    return {
        "failed": len(replies) - len(found),
        "false_abstentions": sum(one["abstained"] and not wanted["abstained"] for one, wanted in found),
        "other_answers": sum(one["answer"] != wanted["answer"] for one, wanted in found),
        "other_scores": sum(
            abs(one["score"] - wanted["score"]) > SAME_SCORE * wanted["score"] for one, wanted in found
        ),
    }


@contextmanager
def served(model: str, workers: int) -> Iterator[int]:
    """Serve a model while the context lasts; give the port. Raises UserError where the server does not start."""
    options = ["--port", "0", "--workers", str(workers)]
    command = [sys.executable, "-m", "modeling_minigpt", "serve", model, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            ready = re.search(r":(\d+)/docs$", server.stdout.readline())
            if ready is None:
                raise UserError(f"the server did not start: {server.stderr.read().strip()[-300:]}")
            yield int(ready.group(1))
        finally:
            server.terminate()


def ask_until(port: int, texts: Iterator[str], end: float) -> list[Reply]:
    """Ask one question after the other over one connection until a time of `time.perf_counter`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    replies = []
    while (start := time.perf_counter()) < end:
        text = next(texts)
        try:
            connection.request("POST", "/ask", json.dumps({"question": text}), {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
            result = json.loads(body) if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            result = None
        replies.append(Reply(text, result, time.perf_counter() - start))
    connection.close()
    return replies


class Turns:
    """The questions in turn, again and again, for several threads."""

    def __init__(self, texts: Sequence[str]):
        self.texts = itertools.cycle(texts)
        self.lock = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self.lock:
            return next(self.texts)


def load_server(model: str, expected: dict[str, dict], clients: int, seconds: float, workers: int) -> dict:
    """Return the rate, the times and the differences of clients that ask a server for some seconds."""
    turns = Turns(list(expected))
    with served(model, workers) as port, ThreadPoolExecutor(clients) as pool:
        ask_until(port, turns, time.perf_counter() + min(1.0, seconds))  # what is built at the first questions
        start = time.perf_counter()
        asking = [pool.submit(ask_until, port, turns, start + seconds) for _ in range(clients)]
        replies = [reply for future in asking for reply in future.result()]
        took = time.perf_counter() - start
    times = sorted(reply.seconds for reply in replies)
    cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    differences = count_differences(replies, expected)
    rate = (len(replies) - differences["failed"]) / took
    return {"asked": len(replies), "rate": rate, "p50": cuts[49], "p99": cuts[98], "longest": times[-1], **differences}


def load_pipeline_by_threads(model: str, expected: dict[str, dict], threads: int) -> dict:
    """Return the rate and the differences of threads that ask one pipeline everything once."""
    ask = load_pipeline(model)
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(ask, expected))
    took = time.perf_counter() - start
    replies = [Reply(text, result, 0.0) for text, result in zip(expected, results, strict=True)]
    return {"asked": len(replies), "rate": len(replies) / took, **count_differences(replies, expected)}


def measure(point: Point, model: str, expected: dict[str, dict], seconds: float, workers: int) -> dict:
    """Measure one way to ask."""
    count = COUNTS[point.subject]
    if point.subject == THREADS:
        return load_pipeline_by_threads(model, expected, count)
    return load_server(model, expected, count, seconds, workers)


def write_milliseconds(seconds: float | None) -> str:
    """Write seconds in milliseconds; a dash for None."""
    return "–" if seconds is None else f"{1_000 * seconds:,.0f}"


def report(content: dict) -> str:
    """Return the rates, times and differences as Markdown."""
    rows = []
    for point, rounds in results_of(content).items():
        for found in successes(rounds):
            times = [write_milliseconds(found.get(key)) for key in ("p50", "p99", "longest")]
            counts = [f"{found[key]:,}" for key in ("failed", "false_abstentions", "other_answers", "other_scores")]
            who = f"{COUNTS[point.subject]} {point.subject}"
            rows.append([who, f"{found['asked']:,}", f"{found['rate']:,.0f}", *times, *counts])
    introduction = (
        f"{name_machine(content['machine'])}. `{content['model']}`, {content['parameters']:,} parameters; "
        f"{content['questions']:,} questions, one per request, each client one after the other, for "
        f"{content['seconds']:g} seconds, on the same cores as the server, with --workers {content['workers']}. "
        "Threads ask one pipeline without a server. What differs, differs from what one thread gets."
    )
    columns = [
        "asked by", "questions", "answers per second", "p50, ms", "p99, ms", "longest, ms", "failed",
        "false abstentions", "other answers", "other scores",
    ]  # fmt: skip
    return write_report("Serving", introduction, section("Load", columns, rows), failures(results_of(content)))


def judge(results: Results) -> list[Bar]:
    """Return the bars: no failed, missing or different answers, and the server's answers per second."""
    bars = []
    for point, rounds in results.items():
        found = successes(rounds)
        for key, limit in (("failed", 0), ("false_abstentions", 0), ("other_answers", 0)):
            worst = max((one[key] for one in found), default=None)
            bars.append(Bar(f"{point.subject}: {key.replace('_', ' ')}", worst, "<=", limit))
        if point.subject == CLIENTS:
            rates = [one["rate"] for one in found]
            middle = statistics.median(rates) if rates else None
            bars.append(Bar("clients: answers per second", middle, ">=", MIN_RATE))
    return bars


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = new_parser(__doc__, "runs/serving.cpu.json")
    parser.add_argument("model", metavar="MODEL", help="a folder, or an id on the Hub")
    parser.add_argument(
        "--seconds", type=positive_float, default=120.0, help="seconds of load on the server (%(default)s)"
    )
    parser.add_argument("--questions", type=positive_int, default=1_352, help="most different questions (%(default)s)")
    parser.add_argument("--workers", type=thread_count, default=1, help="threads of the server (%(default)s)")
    parser.add_argument("--rounds", type=positive_int, default=1, help="measurements of each kind (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Load the server and the pipeline; return the exit status, 1 where a bar is missed."""
    arguments = build_parser().parse_args(argv)

    def command() -> int:
        try:
            ask = load_pipeline(arguments.model)
        except CommandError as error:
            raise UserError(error) from error
        texts = list_questions(ask, arguments.questions)
        expected = {text: ask(text) for text in texts}
        settings = {
            "machine": describe_machine(torch.device("cpu")),
            "model": Path(arguments.model).name,
            "weights": weights_digest(ask.model.name_or_path),
            "parameters": ask.model.num_parameters(),
            "questions": len(expected),
            "seconds": arguments.seconds,
            "workers": arguments.workers,
        }
        record = Record(arguments.output, report, settings)
        points = [Point(THREADS), Point(CLIENTS)]
        where = (arguments.model, expected, arguments.seconds, arguments.workers)
        record.measure(points, measure, *where, rounds=arguments.rounds, run=in_this_process)
        show(record.text())
        return print_bars(judge(record.results))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
