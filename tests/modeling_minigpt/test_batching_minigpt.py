"""Questions of many callers are answered in batches, each caller getting its own answers."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest

from modeling_minigpt.batching_minigpt import Batcher, OverloadedError


class Echo:
    """A pipeline that repeats the text and the options, and records its calls.

    Args:
        seconds: that a call takes.
    """

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.batches = []
        self.threads = set()

    def __call__(self, texts, **options):
        self.batches.append(list(texts))
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if "bad" in texts:
            raise RuntimeError("the model fails")
        return [{"text": text, **options} for text in texts]


@asynccontextmanager
async def running(batcher):
    """Let a batcher answer while the context lasts."""
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher
    finally:
        task.cancel()


def run_with(answer, use, **settings):
    """Return what `use(batcher)` returns, with a batcher that answers."""

    async def main():
        async with running(Batcher(answer, **settings)) as batcher:
            return await use(batcher)

    return asyncio.run(main())


def test_callers_share_batches_and_each_gets_its_own_answers_in_order():
    echo = Echo(seconds=0.01)

    async def ask_all(batcher):
        return await asyncio.gather(*(batcher.ask([f"{number} a", f"{number} b"], {}) for number in range(20)))

    found = run_with(echo, ask_all, max_batch=8)
    assert found == [[{"text": f"{number} a"}, {"text": f"{number} b"}] for number in range(20)]
    assert [len(batch) for batch in echo.batches] == [8] * 5
    assert len(echo.threads) == 1
    assert threading.get_ident() not in echo.threads


def test_questions_of_other_options_are_asked_in_another_call():
    echo = Echo()

    async def ask_all(batcher):
        options = [{"threshold": 0.5}, {}, {"threshold": 0.5}]
        return await asyncio.gather(*(batcher.ask([str(number)], one) for number, one in enumerate(options)))

    found = run_with(echo, ask_all)
    assert found == [[{"text": "0", "threshold": 0.5}], [{"text": "1"}], [{"text": "2", "threshold": 0.5}]]
    assert sorted(echo.batches) == [["0", "2"], ["1"]]


def test_workers_answer_batches_at_the_same_time():
    together = threading.Barrier(2, timeout=30)

    def answer(texts):
        together.wait()  # for another batch that is being answered
        return [{"text": text} for text in texts]

    async def ask_all(batcher):
        return await asyncio.gather(*(batcher.ask([str(number)], {}) for number in range(4)))

    found = run_with(answer, ask_all, max_batch=1, workers=2)
    assert found == [[{"text": str(number)}] for number in range(4)]


def test_a_failure_reaches_those_who_asked_and_the_next_are_answered():
    async def ask_twice(batcher):
        with pytest.raises(RuntimeError, match="the model fails"):
            await batcher.ask(["bad"], {})
        return await batcher.ask(["good"], {})

    assert run_with(Echo(), ask_twice) == [{"text": "good"}]


def test_a_pipeline_that_loses_a_result_leaves_nobody_waiting():
    async def ask(batcher):
        with pytest.raises(RuntimeError, match="1 results for 2 questions"):
            await asyncio.wait_for(batcher.ask(["a", "b"], {}), 30)

    run_with(lambda texts: [{"text": texts[0]}], ask)


def test_questions_of_callers_who_have_left_are_not_asked():
    echo = Echo(seconds=0.1)

    async def leave(batcher):
        first = asyncio.create_task(batcher.ask(["first"], {}))
        await asyncio.sleep(0.05)  # it is being answered now
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher.ask(["left"], {})
        return await first, await batcher.ask(["last"], {})

    assert run_with(echo, leave) == ([{"text": "first"}], [{"text": "last"}])
    assert echo.batches == [["first"], ["last"]]


def test_a_question_that_is_left_during_the_call_before_it_is_not_asked():
    echo = Echo(seconds=0.1)

    async def leave(batcher):
        first = asyncio.create_task(batcher.ask(["first"], {}))
        left = asyncio.create_task(batcher.ask(["left"], {"threshold": 0.5}))
        await asyncio.sleep(0.05)  # both are collected, and the first is being answered
        left.cancel()
        return await first, await batcher.ask(["last"], {})

    assert run_with(echo, leave) == ([{"text": "first"}], [{"text": "last"}])
    assert echo.batches == [["first"], ["last"]]


def test_questions_of_callers_who_have_left_take_no_place_from_others():
    async def ask(batcher):
        left = asyncio.create_task(batcher.ask(["1", "2"], {}))
        waits = asyncio.create_task(batcher.ask(["3"], {}))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        with pytest.raises(OverloadedError, match="1 questions are waiting, at most 3 may"):
            await batcher.ask(["4", "5", "6"], {})
        asked = asyncio.create_task(batcher.ask(["4", "5"], {}))
        async with running(batcher):
            return await asyncio.wait_for(asyncio.gather(waits, asked), 30)

    found = asyncio.run(ask(Batcher(Echo(), max_waiting=3)))
    assert found == [[{"text": "3"}], [{"text": "4"}, {"text": "5"}]]


def test_more_questions_than_may_wait_are_refused_at_once():
    async def ask_too_much(batcher):
        with pytest.raises(OverloadedError, match="0 questions are waiting, at most 2 may"):
            await batcher.ask(["1", "2", "3"], {})
        return await batcher.ask(["1", "2"], {})

    assert len(run_with(Echo(), ask_too_much, max_waiting=2)) == 2
