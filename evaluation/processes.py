"""Share questions among the processes of a run: each takes whole batches, and every process gets all results.

Batches are cut before they are shared: an answer is computed in the same batch, and so the same bit for bit, whatever
the number of processes.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

from configuration.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


class OtherProcessError(UserError, RuntimeError):
    """What was wrong on another process of the run; the message is that of its error."""


def cut_batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut items into batches of a size; the last one may be smaller. ValueError for a size below 1."""
    if size < 1:
        raise ValueError(f"size: found {size}, wanted at least 1 item in a batch")
    return [items[first : first + size] for first in range(0, len(items), size)]


def map_batches(function: Callable[[Item], Result], batches: Sequence[Item], shared: bool = False) -> list[Result]:
    """Return a function's result for each batch, in the batches' order.

    Args:
        function: called with a batch; its result can be pickled.
        batches: the same on every process.
        shared: whether every process calls this, so that each does its part. Process 1 of 3 takes batches 1, 4, 7, …

    Raises:
        UserError: the function raised one, here or on another process.
    """
    state = PartialState()
    if not shared or state.num_processes == 1:
        return [function(batch) for batch in batches]
    own: list[tuple[int, Result]] = []
    failure: UserError | None = None
    try:
        for number in range(state.process_index, len(batches), state.num_processes):
            own.append((number, function(batches[number])))
    except UserError as error:
        # Raised only when all are here: the others would wait for a process that is gone.
        failure = error
    parts = gather_object([(own, failure and str(failure))])
    if failure is not None:
        raise failure
    if messages := [message for _, message in parts if message is not None]:
        raise OtherProcessError(messages[0])
    results = dict(result for part, _ in parts for result in part)
    return [results[number] for number in range(len(batches))]
