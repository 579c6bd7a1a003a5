"""What a run says before it trains: device, number format, model, data, steps, output; one line of each."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from configuration.model_size import count_parameters
from modeling_minigpt import MiniGPTConfig
from training.run_context import Run


def describe_device(accelerator: Accelerator) -> str:
    """Return what a run computes on: `cpu, 2 threads, 1 process`."""
    device = accelerator.device
    threads = torch.get_num_threads()
    name = f"{device.type}, {threads} {'thread' if threads == 1 else 'threads'}"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    processes = accelerator.num_processes
    return f"{name}, {processes} {'process' if processes == 1 else 'processes'}"


def describe_model(config: MiniGPTConfig) -> str:
    """Return a model's size and shape."""
    kinds = " and ".join(dict.fromkeys(config.layer_attention_types))
    return (
        f"{count_parameters(config):,} parameters, {config.num_hidden_layers} layers of {config.hidden_size}, {kinds} "
        f"attention, a vocabulary of {config.vocab_size:,}"
    )


def describe_data(run: Run) -> str:
    """Return how many documents and questions a run trains on, and how many questions are held out, by purpose."""
    data = run.data
    held_back = {
        "to calibrate on": len(data.calibration),
        "about withheld people": len(data.withheld),
        "to tune by": len(data.held_out),
    }
    parts = [f"{count:,} {purpose}" for purpose, count in held_back.items() if count]
    text = f"{data.name}, {len(data.documents):,} documents, {len(data.train):,} questions"
    return f"{text}; held back: {', '.join(parts)}" if parts else text


def describe_steps(run: Run, stages: Sequence[str]) -> str:
    """Return the steps of each stage and the rows of one."""
    found = []
    for name in stages:
        stage = getattr(run.recipe, name)
        rows = len(run.data.train) if stage.question_fraction == 1.0 else len(run.data.documents)
        found.append(f"{name} {stage.total_steps(rows):,} of {stage.batch_size:,} rows")
    return ", ".join(found)


def describe_run(run: Run, stages: Sequence[str]) -> list[str]:
    """Return the lines on a run that trains some stages.

    Args:
        run: built to train.
        stages: those that are not finished.
    """
    assert run.accelerator is not None
    assert run.config is not None
    facts = {
        "device": describe_device(run.accelerator),
        "number format": str(run.formats),
        "model": describe_model(run.config),
        "data": describe_data(run),
        "steps": describe_steps(run, stages),
        "output": str(run.folder.path),
    }
    return [f"{name}: {value}" for name, value in facts.items()]
