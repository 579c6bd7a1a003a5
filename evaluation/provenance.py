"""Where results are from: when they were measured, by which version of this code, on what machine and libraries."""

import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from artifacts.machine import describe_machine, name_machine
from evaluation.tables import literal
from modeling_minigpt import __version__

ROOT = Path(__file__).parent.parent
SOURCE_PARTS = {"source": "Source", "revision": "revision", "license": "licence", "attribution": "attribution"}
LIBRARIES = ("torch", "transformers", "datasets", "accelerate")


def find_commit(folder: Path = ROOT) -> str | None:
    """Return the commit of a checkout, with "and changes" where files differ from it; None where it is none."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} and changes" if changes else commit


def find_command(words: Sequence[str]) -> str | None:
    """Return the command that a process was started by, of its `sys.argv`; None where that is not `train.py`."""
    return shlex.join(["python", "train.py", *words[1:]]) if Path(words[0]).name == "train.py" else None


def describe_provenance() -> dict:
    """Return the date, the version and the commit of this code, the machine and the libraries."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
        "commit": find_commit(),
        "machine": describe_machine(device),
        # torch's own version names its build, as +cpu or +cu130, which its package need not.
        "libraries": {**{name: metadata.version(name) for name in LIBRARIES}, "torch": torch.__version__},
    }


def provenance_line(found: dict) -> str:
    """Return what `describe_provenance` found as one sentence."""
    code = f"MiniGPT {found['version']}" + (f" ({found['commit']})" if found["commit"] else "")
    libraries = ", ".join(f"{name} {version}" for name, version in found["libraries"].items() if name != "torch")
    return f"Scored on {found['date']} by {code} on {name_machine(found['machine'])}, {libraries}."


def source_line(source: dict, address: str | None = None) -> list[str]:
    """Return the line on where the data are from, with revision and licence; none where nothing is recorded.

    Args:
        source: the parts of `SOURCE_PARTS` that are known.
        address: of a page that the name of the source links to.
    """
    shown = {key: literal(str(source[key])) for key in SOURCE_PARTS if source.get(key)}
    if address:
        shown["source"] = f"[{shown['source']}]({address})"
    parts = [f"{SOURCE_PARTS[key]} {text}" for key, text in shown.items()]
    return [f"{', '.join(parts)}.\n"] if parts else []


def machine_line(machine: dict) -> list[str]:
    """Return the line on the number formats that training computed in; none where nothing is recorded."""
    if not machine:
        return []
    rates = ", ".join(f"{name} {rate:g} GFLOP/s" for name, rate in machine.get("rates", {}).items())
    measured = "; ".join(filter(None, [machine["reason"], rates]))
    return [f"Number format: {machine['model']}, Muon's products in {machine['muon']} ({measured}).\n"]
