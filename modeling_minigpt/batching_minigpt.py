"""Questions of many callers at once, answered in batches by a thread or a few.

A question that arrives while the model is busy waits for the next batch, so the busier the service, the fuller its
batches. Nothing here knows HTTP.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

MAX_WAITING = 2048  # questions; more are refused at once instead of being answered too late
# How long a batch that is not full waits for more: callers that got answers together ask again together.
GATHER_SECONDS = 0.004

Options = tuple[tuple[str, object], ...]  # of one call of the pipeline, sorted by name


class OverloadedError(RuntimeError):
    """More questions are waiting than can be answered in good time."""


@dataclass
class WaitingQuestion:
    """One question, the options that it is asked with, and where its answer goes."""

    text: str
    options: Options
    answer: asyncio.Future[dict]


class Batcher:
    """Collect questions from the event loop and answer them in batches, one batch a thread.

    Args:
        answer: called in a thread as `answer(texts, **options)`; returns one result for each text.
        max_batch: questions of one call.
        workers: threads, and so batches at the same time.
        max_waiting: questions that may wait.
    """

    def __init__(
        self,
        answer: Callable[..., Sequence[dict]],
        max_batch: int = 32,
        workers: int = 1,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.answer = answer
        self.max_batch = max_batch
        self.workers = workers
        self.max_waiting = max_waiting
        self.queue: asyncio.Queue[WaitingQuestion] = asyncio.Queue()

    async def ask(self, texts: Sequence[str], options: dict[str, object]) -> list[dict]:
        """Return the results of some texts, in their order.

        A caller that is cancelled, as by a time limit, takes its waiting questions with it.

        Raises:
            OverloadedError: too many questions are waiting.
        """
        if self.queue.qsize() + len(texts) > self.max_waiting:
            self.drop_cancelled()
        if self.queue.qsize() + len(texts) > self.max_waiting:
            raise OverloadedError(f"{self.queue.qsize()} questions are waiting, at most {self.max_waiting} may")
        loop = asyncio.get_running_loop()
        key = tuple(sorted(options.items()))
        asked = [WaitingQuestion(text, key, loop.create_future()) for text in texts]
        for question in asked:
            self.queue.put_nowait(question)
        return await asyncio.gather(*(question.answer for question in asked))

    def drop_cancelled(self) -> None:
        """Remove the questions whose callers have left from those that are waiting; the others stay in their order."""
        for _ in range(self.queue.qsize()):
            question = self.queue.get_nowait()
            if not question.answer.done():
                self.queue.put_nowait(question)

    async def run(self) -> None:
        """Answer questions until cancelled."""
        with ThreadPoolExecutor(self.workers, "pipeline") as threads:
            await asyncio.gather(*(self.work(threads) for _ in range(self.workers)))

    async def work(self, threads: ThreadPoolExecutor) -> None:
        """Collect batches and answer them, one at a time, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            by_options: dict[Options, list[WaitingQuestion]] = {}
            for question in await self.collect():
                by_options.setdefault(question.options, []).append(question)
            for options, questions in by_options.items():
                # Looked at before each call: some may have left during the one before.
                wanted = [question for question in questions if not question.answer.done()]
                if wanted:
                    await loop.run_in_executor(threads, self.answer_batch, loop, wanted, dict(options))

    async def collect(self) -> list[WaitingQuestion]:
        """Wait for a question; return it with those that come with it, up to `max_batch`."""
        collected = [await self.queue.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                while len(collected) < self.max_batch:
                    collected.append(await self.queue.get())
        return collected

    def answer_batch(
        self, loop: asyncio.AbstractEventLoop, questions: Sequence[WaitingQuestion], options: dict[str, object]
    ) -> None:
        """Answer questions with the same options, in a worker thread; an error goes to every caller of the batch."""
        try:
            results = self.answer([question.text for question in questions], **options)
            if len(results) != len(questions):  # checked here, where all who asked are answered in any case
                raise RuntimeError(f"{len(results)} results for {len(questions)} questions")
        except Exception as error:
            loop.call_soon_threadsafe(fail, questions, error)
        else:
            loop.call_soon_threadsafe(succeed, questions, results)


def succeed(questions: Sequence[WaitingQuestion], results: Sequence[dict]) -> None:
    """Give each question its result, unless its caller has left."""
    for question, result in zip(questions, results, strict=True):
        if not question.answer.done():
            question.answer.set_result(result)


def fail(questions: Sequence[WaitingQuestion], error: Exception) -> None:
    """Give all questions of a batch the error."""
    for question in questions:
        if not question.answer.done():
            question.answer.set_exception(error)
