"""A tiny recipe, how tests run `train.py` with it in this process or others, and how they run a user's script."""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed.run

import train
from artifacts.run_folder import RunFolder
from configuration.recipe import load_recipe
from configuration.schema import DataArguments, Recipe
from training import loop

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
  muon_bfloat16: false
  batch_size: 12
  question_fraction: 0.25
finetune:
  epochs: 1
  muon_bfloat16: false
  batch_size: 12
  question_fraction: 1.0
no_pretraining:
  epochs: 1
  muon_bfloat16: false
  batch_size: 12
  question_fraction: 1.0
evaluate:
  max_new_tokens: 8
run:
  mixed_precision: "no"
"""
# The shortest recipe that is whole.
MINIMAL_RECIPE = """\
tokenizer:
  vocab_size: 300
pretrain:
  steps: 3
finetune:
  epochs: 1
  question_fraction: 1.0
no_pretraining:
  epochs: 1
  question_fraction: 1.0
"""

TORCHRUN = ("--standalone", "--nproc_per_node", "2")  # the options of `start_torchrun`


def recipe_of(output: Path, **data) -> Recipe:
    """Return a minimal recipe over some data: keys of its `data` section, and `seed` and `relations` of its own."""
    path = output / "recipe.yaml"
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(MINIMAL_RECIPE, encoding="utf-8")
    recipe = load_recipe(path, [f"output={output}"])
    own = {key: data.pop(key) for key in ("seed", "relations") if key in data}
    return replace(
        recipe,
        data=DataArguments(**{key: str(value) if key == "path" else value for key, value in data.items()}),
        **own,
    )


def command_line(
    command: str, recipe: Path, data: Path, output: Path, *overrides: str, resume: bool = False
) -> list[str]:
    """Return the arguments of `train.py COMMAND` on a data folder."""
    sets = [word for pair in (f"data.path={data}", f"output={output}", *overrides) for word in ("--set", pair)]
    return [command, "--config", str(recipe), *sets, *(["--resume"] if resume else [])]


def call(*arguments, **settings) -> int:
    """Run `train.py`, with the arguments of `command_line`, in this process; return the exit status."""
    return train.main(command_line(*arguments, **settings))


def patched(folder: Path, patch: str) -> Path:
    """Write a `train.py` that runs a few lines before it begins."""
    path = folder / "patched_train.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{patch}\nimport train\nsys.exit(train.main())\n")
    return path


def run_as_main(program: str, words: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Do in this process what `python program words` does, with its output in two files."""
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(ROOT)
    os.environ.update(environment)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # where the suite itself is in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    sys.argv = [program, *words]
    runpy.run_path(program, run_name="__main__")


class Forked:
    """`python program words` in a process forked from one that has imported what `train.py` needs.

    Importing it takes ten seconds of a slow core, and tests start the program dozens of times. Killed, stopped and
    waited for, the process behaves as any other; the methods are those of `subprocess.Popen`.

    Args:
        out, err: files that it appends its output to; by default new ones.
    """

    def __init__(
        self,
        words: list[str],
        program: Path,
        environment: dict[str, str],
        out: Path | None = None,
        err: Path | None = None,
    ):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["training.runner", "hub.publish_model"])
        self.folder = tempfile.TemporaryDirectory()
        self.out = out or Path(self.folder.name, "out")
        self.err = err or Path(self.folder.name, "err")
        self.out.touch()
        self.err.touch()
        self.args = [str(program), *words]
        arguments = (str(program), words, environment, str(self.out), str(self.err))
        self.process = context.Process(target=run_as_main, args=arguments)
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.out.read_text(errors="replace"), self.err.read_text(errors="replace")


def start(
    words: list[str], launcher: tuple = (), program: Path = ROOT / "train.py", **environment: str
) -> subprocess.Popen | Forked:
    """Start `train.py`, or a patched one, in a process of its own or under a launcher, on the CPU."""
    settings = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment}
    if not launcher:
        return Forked(words, program, settings)
    command = [sys.executable, *launcher, str(program), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, **pipes)


def start_torchrun(words: list[str], *options: str, program: Path = ROOT / "train.py", **environment: str) -> Forked:
    """Start `torchrun --standalone --nproc_per_node 2 train.py`; its workers are forked from it, imports and all."""
    launch = Path(torch.distributed.run.__file__)
    forked = ("--run-path", "--start-method", "fork")
    settings = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment}
    return Forked([*TORCHRUN, *options, *forked, str(program), *words], launch, settings)


def finish(process: subprocess.Popen | Forked, seconds: float = 180) -> subprocess.CompletedProcess:
    """Wait for a process; return its status and its output."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SETTINGS = ROOT / "configuration" / "accelerate"
# 13 rows in three parts on two processes: shares of 2 and 3 rows, of different lengths and numbers of targets.
UNEVEN = ("pretrain.steps=50", "pretrain.batch_size=13", "pretrain.gradient_accumulation_steps=3", "run.log_steps=1")

ASKED_BEFORE_STEP = """
import signal
import training.stepper
set_learning_rates = training.stepper.set_learning_rates
steps = []
def set_and_be_asked(*arguments):
    steps.append(1)
    if len(steps) == {}:
        signal.raise_signal(signal.SIGTERM)
    return set_learning_rates(*arguments)
training.stepper.set_learning_rates = set_and_be_asked
"""


def launcher(settings, *options):
    """Return the arguments of `accelerate launch` with a shipped file of settings."""
    return ("-m", "accelerate.commands.launch", "--config_file", str(SETTINGS / f"{settings}.yaml"), *options)


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def call_and_lose_step_four(monkeypatch, *arguments, **settings) -> None:
    """Run `train.py` until step 4 of the stage is logged and not saved, and end there as if killed."""
    save = loop.save_checkpoint

    def save_three(state, folder, name, progress, count):
        if progress.step == 4:
            raise SystemExit(9)
        return save(state, folder, name, progress, count)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_three)
        with pytest.raises(SystemExit):
            call(*arguments, **settings)


def losses(output, stage="pretrain"):
    """Return the loss of every log line."""
    return [loss for _, loss in RunFolder(output).training_record(stage)["history"]]


NO_CHECKOUT = """
import sys
for name in ("modeling_minigpt", "datasets", "accelerate", "evaluate", "sklearn", "torchmetrics", "matplotlib"):
    sys.modules[name] = None  # nothing that only a checkout needs
"""


def run_stranger(script: str, home: Path, address: str) -> subprocess.CompletedProcess:
    """Run a script outside the checkout with torch, transformers, no token, and no Hub but the one at `address`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    hub = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=home, env=environment | hub, capture_output=True, text=True, timeout=300)
