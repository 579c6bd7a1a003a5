"""The function that was calibrated: a model without dropout, checkpoints and autocast, whatever it is called in.

`Trainer` leaves a model in training mode, and callers have autocast around what they do. In either, a pipeline would
compute other scores than those of the calibration.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from itertools import chain
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

from torch import nn
from transformers.utils.generic import maybe_autocast

# Modules in training mode that compute in evaluation mode for now, each with the number of calls that need it to: the
# last one puts its mode back, so that no other thread gets dropout in the middle of a batch.
CALLS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
LOCK = threading.Lock()

Method = TypeVar("Method", bound=Callable)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put all modules of a model into evaluation mode, and each into its own mode again at the end.

    Any number of threads may do this with one model at once; none may train it meanwhile.
    """
    with LOCK:
        # Found before the first one changes: a compiled module has the mode of the one in it.
        changed = [module for module in model.modules() if module.training or module in CALLS]
        for module in changed:
            CALLS[module] = CALLS.get(module, 0) + 1
            module.training = False  # not by `eval()`, which a module may do more in
    try:
        yield
    finally:
        with LOCK:
            for module in changed:
                CALLS[module] -= 1
                if not CALLS[module]:
                    del CALLS[module]
                    module.training = True


@contextmanager
def as_calibrated(model: nn.Module) -> Iterator[None]:
    """Compute in evaluation mode and in the weights' own number format."""
    with ExitStack() as stack:
        for device in {tensor.device.type for tensor in chain(model.parameters(), model.buffers())}:
            stack.enter_context(maybe_autocast(device, enabled=False))
        stack.enter_context(evaluation_mode(model))
        yield


def computes_as_calibrated(method: Method) -> Method:
    """Let a pipeline's method compute with its model as it was calibrated."""

    @wraps(method)
    def computing(self, *arguments, **settings):
        with as_calibrated(self.model):
            return method(self, *arguments, **settings)

    return cast(Method, computing)
