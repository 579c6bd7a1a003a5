"""What measurements depend on: the processor or GPU, its instructions, threads, torch."""

from pathlib import Path

import torch

# Capabilities of `torch.cpu`, the fastest first, and what people call them.
INSTRUCTIONS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX512-BF16",
    "avx512_f": "AVX512",
    "avx2": "AVX2",
    "bf16": "NEON with BF16",
    "neon": "NEON",
}


def describe_machine(device: torch.device) -> dict:
    """Return what the numbers of a run depend on."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else processor_name(),
        "instructions": None if is_gpu else instruction_set(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def name_machine(machine: dict) -> str:
    """Return what `describe_machine` found, in words; results from before instructions were recorded lack those."""
    instructions = f" ({machine['instructions']})" if machine.get("instructions") else ""
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return f"{machine['device']}{instructions}, {threads}, torch {machine['torch']}"


def instruction_set() -> str | None:
    """Return which of a CPU's instructions decide how fast it multiplies matrices; None for one that has none of them.

    Two processors of one name ("AMD EPYC") may differ tenfold in bfloat16.
    """
    has = torch.cpu.get_capabilities()
    return next((name for capability, name in INSTRUCTIONS.items() if has.get(capability)), None)


def processor_name() -> str:
    """Return the processor's name, or just "CPU"."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
