"""A tiny recipe, and how tests run `train.py` with it in this process."""

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
