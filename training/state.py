"""The state of a stage in training, in files that need no pickle and fit any number of processes, sharded or not.

model.safetensors         the weights
optimizer.safetensors     PARAMETER.KEY: what the optimizers store for each parameter; their settings are the recipe's
random_RANK.safetensors   the states of torch's generators, from which dropout draws, on each process
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)

WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
RANDOM = "random_{}.safetensors"  # by the process's rank

logger = get_logger(__name__)


@dataclass
class TrainingState:
    """What training a stage changes, except its `Progress`: prepared model, prepared optimizers, random numbers."""

    accelerator: Accelerator
    model: torch.nn.Module
    optimizers: Sequence[torch.optim.Optimizer]

    def inner_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers that Accelerate wraps, whose states torch's functions look for."""
        return [optimizer.optimizer for optimizer in self.optimizers]

    def save(self, folder: Path) -> None:
        """Write the state into a folder that is there; every process must call this, the main one the common files."""
        # Collected unsharded, on the main process alone: so the number of processes may change before the resume.
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights, optimizer_state = get_state_dict(self.model, self.inner_optimizers(), options=options)
        if self.accelerator.is_main_process:
            save_file(clone_tensors(weights), folder / WEIGHTS)
            save_file(clone_tensors(flatten(optimizer_state["state"])), folder / OPTIMIZER)
        save_file(self.random_states(), folder / RANDOM.format(self.accelerator.process_index))

    def load(self, folder: Path) -> None:
        """Read the state back; a process that did not exist when it was written keeps its random numbers.

        Raises:
            ValueError: a tensor that no optimizer stores, or one that is not finite.
            Exception: whatever the libraries raise for a broken file.
        """
        weights = load_file(folder / WEIGHTS)
        saved = load_file(folder / OPTIMIZER)
        optimizer_state = get_optimizer_state_dict(self.model, self.inner_optimizers())
        # The library would load a tensor of any name and shape; it would fail, or train something else, steps later.
        check_same_tensors(saved, expected=flatten(optimizer_state["state"]))
        check_finite(WEIGHTS, weights)
        check_finite(OPTIMIZER, saved)
        # The settings (learning rates, betas) stay as the recipe has just set them; only the tensors are loaded.
        optimizer_state["state"] = unflatten(saved)
        set_state_dict(
            self.model,
            self.inner_optimizers(),
            model_state_dict=weights,
            optim_state_dict=optimizer_state,
            options=StateDictOptions(full_state_dict=True),
        )
        # The main process must find its numbers; further ones may be new. The draws of another number of processes
        # differ in any case.
        random = folder / RANDOM.format(self.accelerator.process_index)
        if self.accelerator.is_main_process or random.is_file():
            self.restore_random_states(load_file(random))

    def size(self) -> int:
        """Return the bytes of this process's weights and optimizer states, as a checkpoint has them at least."""
        states = [state.values() for optimizer in self.inner_optimizers() for state in optimizer.state.values()]
        tensors = [*self.model.parameters(), *(value for values in states for value in values)]
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))

    def restore_random_states(self, states: dict[str, torch.Tensor]) -> None:
        """Set the generators of `random_states`; warn of a device's that this process does not compute on."""
        for device, numbers in states.items():
            if device in self.random_devices():
                random_module(device).set_rng_state(numbers)
            else:  # as after a move from a Mac or a GPU: dropout draws other numbers, all else is the same
                logger.warning(f"the random numbers of {device!r} are not restored: this device is another one")

    def random_devices(self) -> set[str]:
        """Return the types of the devices from whose generators training draws."""
        return {"cpu", self.accelerator.device.type}

    def random_states(self) -> dict[str, torch.Tensor]:
        """Return the state of the CPU's generator and of the device's, each (bytes,) of uint8."""
        return {device: random_module(device).get_rng_state() for device in self.random_devices()}


# Not StateDictOptions(flatten_optimizer_state_dict=True): together with full_state_dict torch writes such a state, but
# set_state_dict cannot load it again (KeyError: 'param_groups.0.params.0' in torch 2.13).
def flatten(state: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Flatten the optimizers' state of each parameter: {"a.weight": {"step": t}} becomes {"a.weight.step": t}."""
    return {f"{name}.{key}": value for name, values in state.items() for key, value in values.items()}


def unflatten(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Undo `flatten`: parameters' names hold dots, keys do not."""
    state: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        parameter, key = name.rsplit(".", 1)
        state.setdefault(parameter, {})[key] = value
    return state


def check_same_tensors(saved: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Raise ValueError where a saved tensor is not expected, or has another format or shape.

    Expected tensors may be missing: a parameter that never had a gradient has no state yet.
    """
    for name, value in saved.items():
        wanted = expected.get(name)
        if wanted is None or (wanted.dtype, wanted.shape) != (value.dtype, value.shape):
            dtype = str(value.dtype).removeprefix("torch.")
            raise ValueError(f"{OPTIMIZER} contains {name}, {dtype} of {tuple(value.shape)}: no optimizer stores that")


def check_finite(file: str, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError, with the tensor's name, where one contains infinities or NaN."""
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"{file} contains {name}, which is not finite")


def clone_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy each tensor into memory of its own: safetensors refuses tied weights, which share theirs."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def random_module(device: str):
    """Return the module with a device type's `get_rng_state` and `set_rng_state`."""
    return torch.random if device == "cpu" else torch.get_device_module(device)
