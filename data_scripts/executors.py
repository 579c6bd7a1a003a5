"""Run a function for each of many numbers: in this process, or in the tasks of datatrove's executors.

Each number's work leaves a file. So every launch goes through all numbers and does what is missing, whatever the
number of tasks was before, and a task that is killed loses nothing but the number that it was at.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configuration.data_schema import PrepareArguments
from data_scripts.bios_folder import DataError

SLURM_TIME = "24:00:00"  # of a task
FAILED = 3  # the exit status of a task that has sent a reason
RECEIVE_SECONDS = 5


class Share:
    """A step of a datatrove pipeline: a task's share of the numbers, every `world_size`-th of them."""

    def __init__(self, function: Callable[[int], None], numbers: int):
        self.function = function
        self.numbers = numbers

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator:
        for number in range(rank, self.numbers, world_size):
            self.function(number)
        return iter(())


def run_for_all(function: Callable[[int], None], numbers: int, how: PrepareArguments, logs: Path) -> None:
    """Call `function` with 0 … numbers - 1; with `slurm`, submit the tasks that do so.

    Args:
        function: can be pickled; does nothing for a number whose work is done.
        numbers: how many there are.
        how: which executor, and how many tasks.
        logs: folder for the executor's logs.

    Raises:
        DataError: datatrove is not installed, a task was killed, or as `function`.
    """
    if how.executor == "process":
        bar = tqdm(range(numbers), desc="preparing", unit="part", disable=numbers == 1 or not sys.stderr.isatty())
        for number in bar:
            function(number)
        return
    step = Share(function, numbers)
    try:
        if how.executor == "local":
            run_local_tasks(step, how, logs)
        else:
            build_executor(step, how, logs).run()
    except ModuleNotFoundError as error:
        raise DataError(
            f"prepare.executor is {how.executor}, but the Python module {error.name} is not installed; "
            "pip install -e '.[scale]'"
        ) from error


def build_executor(step: Share, how: PrepareArguments, logs: Path) -> Any:
    """Return datatrove's executor for a cluster; ModuleNotFoundError where it is not installed."""
    from datatrove.executor import RayPipelineExecutor, SlurmPipelineExecutor

    settings = {
        "pipeline": [step],
        "tasks": how.tasks,
        "workers": how.workers,
        "logging_dir": str(logs),
        "skip_completed": False,  # the files say what is done
    }
    if how.executor == "ray":
        return RayPipelineExecutor(**settings)
    return SlurmPipelineExecutor(time=SLURM_TIME, partition=how.partition, job_name="minigpt-prepare", **settings)


def run_local_tasks(step: Share, how: PrepareArguments, logs: Path) -> None:
    """Run datatrove's local executor for each task in a process of its own, `workers` at once."""
    import datatrove.executor  # noqa: F401 - that it is missing is found before any process is started

    logs.mkdir(parents=True, exist_ok=True)
    # The tasks are forked from one process that has imported what they need: that takes some seconds, each time.
    get_context("forkserver").set_forkserver_preload(["datatrove.executor", "data_scripts.prepare"])
    started: list[BaseProcess] = []
    with ThreadPoolExecutor(how.workers) as pool:
        try:
            reasons = list(pool.map(partial(run_task_apart, step, how.tasks, logs, started), range(how.tasks)))
        except BaseException:  # a signal, too
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                kill_group(process)
            raise
    failed = [reason for reason in reasons if reason is not None]
    if failed:
        more = f" ({len(failed) - 1} more tasks failed)" if len(failed) > 1 else ""
        raise DataError(f"{failed[0]}{more}")


def run_task_apart(step: Share, tasks: int, logs: Path, started: list[BaseProcess], rank: int) -> str | None:
    """Run one task in another process, which is added to `started`; return why it failed, None where it did not."""
    # Not in the library's pool of processes, which waits for ever for a task whose process was killed.
    context = get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_task, args=(step, tasks, logs, rank, sender))
    process.start()
    started.append(process)
    sender.close()
    process.join()
    if process.exitcode == 0:
        return None
    reason = receiver.recv() if process.exitcode == FAILED and receiver.poll(RECEIVE_SECONDS) else None
    kill_group(process)
    return reason or f"task {rank} of the preparation was killed; the same command continues where it was"


def kill_group(process: BaseProcess) -> None:
    """Kill a task's process and those that it has started: the library's outlive a process that is killed."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def run_task(step: Share, tasks: int, logs: Path, rank: int, failure: Connection) -> None:
    """Run one task in this process; send the reason and exit with status `FAILED` where it fails."""
    from datatrove.executor import LocalPipelineExecutor

    os.setpgid(0, 0)  # a group of its own, of which nothing is left behind
    # The library's log has a traceback for every failure; it goes to a file, and the user gets the reason.
    with (logs / f"task-{rank}.stderr").open("w", encoding="utf-8") as file, redirect_stderr(file):
        try:
            LocalPipelineExecutor(
                pipeline=[step],
                tasks=tasks,
                workers=1,
                logging_dir=str(logs),
                skip_completed=False,
                local_tasks=1,
                local_rank_offset=rank,
            ).run()
        except Exception as error:
            failure.send(str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}")
            sys.exit(FAILED)
