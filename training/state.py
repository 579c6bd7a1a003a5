"""The state of a stage under way, in files that need no pickle and fit any number of processes, sharded or not.

model.safetensors         the weights
optimizer.safetensors     PARAMETER.KEY: what the optimizers keep for each parameter; their settings are the recipe's
random_RANK.safetensors   the states of torch's generators, from which dropout draws, on each process
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)

WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
RANDOM = "random_{}.safetensors"  # by the process's rank


@dataclass
class TrainingState:
    """What changes while a stage is trained, but for its `Progress`: prepared model, optimizers, random numbers."""

    accelerator: Accelerator
    model: torch.nn.Module
    optimizers: Sequence[torch.optim.Optimizer]

    def inner_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers that Accelerate wraps."""
        return [optimizer.optimizer for optimizer in self.optimizers]

    def save(self, folder: Path) -> None:
        """Write the state into a folder; every process must call this, the main one writes what is common."""
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)  # on the main process alone
        weights, kept = get_state_dict(self.model, self.inner_optimizers(), options=whole)
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(separate(weights), folder / WEIGHTS)
            save_file(separate(flatten(kept["state"])), folder / OPTIMIZER)
        self.accelerator.wait_for_everyone()
        save_file(self.random_states(), folder / RANDOM.format(self.accelerator.process_index))

    def load(self, folder: Path) -> None:
        """Read the state back; a process that was not there when it was written keeps its random numbers.

        Raises:
            ValueError: the optimizers keep no such tensor, or one is not finite; else whatever the libraries raise.
        """
        weights, saved = load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)
        kept = get_optimizer_state_dict(self.model, self.inner_optimizers())
        expected = {name: (value.dtype, value.shape) for name, value in flatten(kept["state"]).items()}
        kept["state"] = {}
        for name, value in saved.items():
            if expected.get(name) != (value.dtype, value.shape):
                kind = str(value.dtype).removeprefix("torch.")
                raise ValueError(f"{OPTIMIZER} holds {name}, {kind} of {tuple(value.shape)}: no optimizer keeps that")
            parameter, key = name.rsplit(".", 1)
            kept["state"].setdefault(parameter, {})[key] = value
        for file, tensors in ((WEIGHTS, weights), (OPTIMIZER, saved)):
            for name, value in tensors.items():
                if not value.isfinite().all():
                    raise ValueError(f"{file} holds {name}, which is not finite")
        set_state_dict(
            self.model,
            self.inner_optimizers(),
            model_state_dict=weights,
            optim_state_dict=kept,
            options=StateDictOptions(full_state_dict=True),
        )
        random = folder / RANDOM.format(self.accelerator.process_index)
        if self.accelerator.is_main_process or random.is_file():
            for device, numbers in load_file(random).items():
                generator_of(device).set_rng_state(numbers)

    def random_states(self) -> dict[str, torch.Tensor]:
        """Return the state of the CPU's generator and of the device's, each (bytes,) of uint8."""
        return {device: generator_of(device).get_rng_state() for device in {"cpu", self.accelerator.device.type}}


def flatten(state: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return what is kept for each parameter by name in one level, PARAMETER.KEY."""
    return {f"{name}.{key}": value for name, values in state.items() for key, value in values.items()}


def separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors with a memory of its own for each, as a file of safetensors demands of tied weights."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def generator_of(device: str):
    """Return the module with a device type's `get_rng_state` and `set_rng_state`."""
    return torch.random if device == "cpu" else torch.get_device_module(device)
