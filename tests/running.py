"""A tiny recipe, how tests run `train.py` with it in this process, and how they run a stranger's script in another."""

import os
import subprocess
import sys
from pathlib import Path

import train

ROOT = Path(__file__).parents[1]
RECIPE = """\
tokenizer:
  vocab_size: 400
model:
  hidden_size: 32
  num_hidden_layers: 2
  num_attention_heads: 2
  max_position_embeddings: 64
pretrain:
  steps: 6
  batch_size: 12
  question_fraction: 0.25
finetune:
  epochs: 1
  batch_size: 12
  question_fraction: 1.0
no_pretraining:
  epochs: 1
  batch_size: 12
  question_fraction: 1.0
evaluate:
  max_new_tokens: 8
"""


def call(command: str, recipe: Path, data: Path, output: Path, *overrides: str, resume: bool = False) -> int:
    """Run `train.py COMMAND` on a data folder; return the exit status."""
    sets = [word for pair in (f"data.path={data}", f"output={output}", *overrides) for word in ("--set", pair)]
    return train.main([command, "--config", str(recipe), *sets, *(["--resume"] if resume else [])])


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NO_CHECKOUT = """
import sys
for name in ("modeling_minigpt", "datasets", "accelerate", "evaluate", "sklearn", "torchmetrics", "matplotlib"):
    sys.modules[name] = None  # nothing that only a checkout needs
"""


def run_stranger(script: str, home: Path, address: str) -> subprocess.CompletedProcess:
    """Run a script far from the checkout with torch, transformers, no token, and no Hub but the one at `address`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    hub = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=home, env=environment | hub, capture_output=True, text=True, timeout=300)
