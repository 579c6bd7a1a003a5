"""Checkpoints to tamper with: the state of a tiny model, a pickle that leaves a mark, a manifest written again."""

from pathlib import Path

import torch
from accelerate import Accelerator

from configuration.schema import StageArguments
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM
from training.checkpoints import MANIFEST, write_manifest
from training.optimizers import build_optimizers
from training.state import TrainingState


class Thief:
    """Leaves a mark where a pickle of it is read without care."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def tiny_state() -> TrainingState:
    """Return the state of a tiny model and its optimizers."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = MiniGPTForCausalLM(MiniGPTConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    model, *optimizers = accelerator.prepare(model, *build_optimizers(model, StageArguments(steps=9)))
    return TrainingState(accelerator, model, optimizers)


def rewrite_manifest(checkpoint: Path) -> None:
    """Write a manifest that agrees with the checkpoint's files."""
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint)
