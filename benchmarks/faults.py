"""Kill, corrupt and fill up: does a run that was interrupted end as one that was not, to the last bit?

    python -m benchmarks.faults --kills 20 --output benchmarks/results/faults.cpu.json

Each kill is a run of its own: SIGKILL shortly after a random checkpoint has appeared, every other time while it is
being written, then `--resume`; weights of all stages, logged losses and predictions are compared with an unharmed
run's. Random bytes of random checkpoint files are flipped, which must be seen. A small tmpfs is filled by checkpoints
(as root; else null). The last part watches the memory of 2,000 steps.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from artifacts.files import write_json
from artifacts.run_folder import STAGES, RunError, RunFolder
from benchmarks.command_line import new_parser, non_negative_int, positive_int, seed_number
from configuration.errors import run_main
from data_scripts.synthetic_bios import invent
from training.checkpoints import latest_valid, list_checkpoints, verify

ROOT = Path(__file__).parents[1]
RECIPE = {
    "tokenizer": {"vocab_size": 400},
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
              "residual_dropout": 0.1},
    "pretrain": {"steps": 120, "batch_size": 12, "question_fraction": 0.25},
    "finetune": {"steps": 40, "batch_size": 12, "question_fraction": 1.0},
    "no_pretraining": {"steps": 40, "batch_size": 12, "question_fraction": 1.0},
    "evaluate": {"max_new_tokens": 8},
    "run": {"log_steps": 5, "checkpoint_minutes": 1e-9},
}  # fmt: skip
TIMEOUT = 600  # seconds of one run
DISK = "6m"  # the size of the disk that is filled: some twenty checkpoints


class Sandbox:
    """A folder with data, a recipe and runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.recipe = folder / "recipe.yaml"
        self.data = folder / "data"
        invent(40, seed=1).write(self.data)
        self.recipe.write_text(json.dumps(RECIPE))  # JSON is YAML

    def log(self, output: Path) -> Path:
        """Return the file with what a run prints, on the workplace's own disk."""
        return self.folder / f"{output.name}.log"

    def start(self, output: Path, *options: str, command: str = "all") -> subprocess.Popen:
        """Start `train.py`; what it prints goes to its log."""
        sets = ("--set", f"data.path={self.data}", "--set", f"output={output}")
        words = [sys.executable, str(ROOT / "train.py"), command, "--config", str(self.recipe), *sets, *options]
        with self.log(output).open("ab") as file:
            return subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)

    def run(self, output: Path, *options: str, command: str = "all") -> int:
        """Run it to its end; return the exit status."""
        return self.start(output, *options, command=command).wait(TIMEOUT)


def outcome(output: Path) -> dict:
    """Return what two runs must share: every stage's weights and losses, and the predictions."""
    folder = RunFolder(output)
    found = {}
    for stage in STAGES:
        found[stage] = (folder.stage(stage) / "model.safetensors").read_bytes()
        record = folder.training_record(stage)
        found[f"{stage} losses"] = (record["history"], record["tokens"])
    return {**found, "predictions": (output / "predictions.dev.txt").read_bytes()}


def newest_steps(output: Path) -> dict[str, int]:
    """Return the step of each stage's newest whole checkpoint."""
    found = {stage: latest_valid(RunFolder(output).checkpoints, stage) for stage in STAGES}
    return {stage: int(path.name.rsplit("-", 1)[1]) for stage, path in found.items() if path is not None}


def saves() -> list[str]:
    """Return the names of all checkpoints that a run writes, in their order."""
    every = RECIPE["run"]["log_steps"]
    return [f"{stage}-{step:08d}" for stage in STAGES for step in range(every, RECIPE[stage]["steps"] + every, every)]


def kill_once(place: Sandbox, output: Path, rng: random.Random, saving: bool) -> str:
    """Start a run and kill it at a random moment: after a random checkpoint has come, or as it is written.

    Returns the checkpoint that it left unfinished, else what it held.
    """
    process = place.start(output)
    checkpoints = RunFolder(output).checkpoints
    name = rng.choice(saves())
    awaited = checkpoints / (f".{name}.partial" if saving else name)
    while process.poll() is None and not awaited.exists() and not (checkpoints / name).exists():
        time.sleep(0.0002)
    time.sleep(rng.uniform(0.0, 0.01 if saving else 0.3))  # a checkpoint takes about 0.02 s, a step as much
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError(f"the run ended before it could be killed: {place.log(output).read_text()[-500:]}")
    unfinished = [path.name for path in checkpoints.glob(".*.partial")]
    return unfinished[0] if unfinished else str(newest_steps(output))


def kill_runs(place: Sandbox, kills: int, rng: random.Random, expected: dict) -> dict:
    """Kill and resume `kills` runs; return how many ended as expected, and the steps lost beyond a checkpoint."""
    exact = 0
    lost = 0
    trials = []
    for number in range(kills):
        output = place.folder / f"killed-{number}"
        where = kill_once(place, output, rng, saving=number % 2 == 1)
        held = newest_steps(output)
        status = place.run(output, "--resume")
        printed = place.log(output).read_text(errors="replace")
        resumed = {
            stage: f"{stage}: resuming from" in printed and f"{stage}-{step:08d}" in printed
            for stage, step in held.items()
        }
        lost += sum(step for stage, step in held.items() if not resumed[stage])
        same = status == 0 and outcome(output) == expected
        exact += same
        trials.append({"killed_at": where, "held": held, "status": status, "exact": same})
        print(f"kill {number + 1}/{kills}: {where}, held {held}: {'exact' if same else 'NOT THE SAME'}", flush=True)
        shutil.rmtree(output)
    return {"kills": kills, "resumed_exactly": exact, "lost_steps": lost, "trials": trials}


def corrupt(checkpoint: Path, rng: random.Random) -> None:
    """Change one byte of one file of a checkpoint, or cut the file, or remove it."""
    path = rng.choice(sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.stat().st_size))
    content = bytearray(path.read_bytes())
    how = rng.choice(("flip", "flip", "flip", "cut", "remove"))
    if how == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[rng.randrange(len(content)) :]
    path.unlink() if how == "remove" else path.write_bytes(content)


def corrupt_checkpoints(place: Sandbox, count: int, rng: random.Random) -> dict:
    """Harm checkpoints of an interrupted run; return how many of them pass for whole all the same."""
    output = place.folder / "interrupted"
    accepted = 0
    found: list[Path] = []
    while not found:  # none is left where a stage had just ended
        shutil.rmtree(output, ignore_errors=True)
        kill_once(place, output, rng, saving=False)
        found = [path for stage in STAGES for path in list_checkpoints(RunFolder(output).checkpoints, stage)]
        found = [path for path in found if verify(path) is None]  # the kill may have come while one was removed
    for number in range(count):
        harmed = Path(shutil.copytree(found[0], place.folder / "harmed" / str(number)))
        corrupt(harmed, rng)
        accepted += verify(harmed) is None
    return {"corruptions": count, "corruptions_accepted": accepted}


def fill_disk(place: Sandbox, expected: dict) -> dict:
    """Let a run fill a small disk with checkpoints, give it room, resume it; null where no disk can be mounted."""
    disk = place.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        return {"disk_full_survived": None, "disk_full_message": "no tmpfs could be mounted"}
    try:
        output = disk / "run"
        status = place.run(output, "--set", "run.keep_checkpoints=1000")
        last = place.log(output).read_text(errors="replace").splitlines()[-1]
        held = newest_steps(output)
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        resumed = place.run(output, "--resume")
        survived = status == 2 and "MB needed" in last and bool(held) and resumed == 0 and outcome(output) == expected
        return {"disk_full_survived": survived, "disk_full_message": last, "disk_full_held": held}
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def watch_memory(place: Sandbox, steps: int) -> dict:
    """Train many steps; return the largest resident memory of the first tenth and of all, in MB."""
    output = place.folder / "long"
    process = place.start(
        output, "--set", f"pretrain.steps={steps}", "--set", "run.checkpoint_minutes=0.05", command="pretrain"
    )
    watched = psutil.Process(process.pid)
    sizes = []
    while process.poll() is None:
        try:
            sizes.append((time.monotonic(), watched.memory_info().rss / 1e6))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    minutes = RunFolder(output).training_record("pretrain")["minutes"]
    training = [size for moment, size in sizes if moment > sizes[-1][0] - 60 * minutes]
    early = max(training[: max(1, len(training) // 5)])
    return {"memory_steps": steps, "peak_mb_first_fifth": early, "peak_mb": max(training)}


def measure(folder: Path, kills: int, corruptions: int, memory_steps: int, seed: int) -> dict:
    """Return what came of each kind of fault."""
    rng = random.Random(seed)
    place = Sandbox(folder)
    unharmed = folder / "unharmed"
    if place.run(unharmed):
        raise RunError(f"training fails without any fault: {place.log(unharmed).read_text(errors='replace')[-500:]}")
    expected = outcome(unharmed)
    return {
        **kill_runs(place, kills, rng, expected),
        **corrupt_checkpoints(place, corruptions, rng),
        **fill_disk(place, expected),
        **watch_memory(place, memory_steps),
    }


def main(argv: list[str] | None = None) -> int:
    """Cause all faults; return the exit status, 1 where something was lost or accepted that must not be."""
    parser = new_parser(__doc__)
    parser.add_argument("--kills", type=non_negative_int, default=20, help="runs to kill (%(default)s)")
    parser.add_argument(
        "--corruptions", type=non_negative_int, default=100, help="checkpoints to damage (%(default)s)"
    )
    parser.add_argument(
        "--memory-steps", type=positive_int, default=2000, help="steps to watch memory over (%(default)s)"
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="chooses all moments and bytes (%(default)s)")
    arguments = parser.parse_args(argv)

    def command() -> int:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            counts = (arguments.kills, arguments.corruptions, arguments.memory_steps)
            results = measure(Path(folder), *counts, arguments.seed)
        write_json(arguments.output, results)
        print(json.dumps({key: value for key, value in results.items() if key != "trials"}, indent=2))
        whole = results["resumed_exactly"] == results["kills"] and not results["lost_steps"]
        return int(not (whole and not results["corruptions_accepted"] and results["disk_full_survived"] is not False))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
