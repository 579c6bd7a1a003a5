"""The real Weights & Biases, offline: a killed and resumed run has each step once, its recipe and its results.

Nothing connects to a network, and nothing that W&B would send later has a path of this machine.
"""

import json
import os
import socket
import struct
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.running import ROOT, call, call_and_lose_step_four, command_line, finish, patched, start

wandb = pytest.importorskip("wandb")
Record = pytest.importorskip("wandb.proto.wandb_internal_pb2").Record

SETTINGS = ("run.trackers=[wandb, tensorboard]", "run.log_steps=1", "run.checkpoint_minutes=1e-9")


def read_records(path: Path) -> list:
    """Return what W&B has written to be sent later: protocol buffers in the log format of LevelDB.

    The file begins with 7 bytes of its own. Each piece has a header of 7 bytes, a checksum (4), a length (2) and
    whether it is a whole record (1), its first (2), a middle (3) or its last part (4); none crosses a multiple of
    32,768 bytes, and what is too short for a header there is padding.
    """
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    place = 7
    parts = b""
    records = []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            records.append(Record.FromString(parts))
            parts = b""
    return records


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """W&B as on a machine without a network; a function that gives all records of a folder by the runs' names."""
    server = socket.create_server(("127.0.0.1", 0))  # in the place of W&B and of every other host
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, address)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("WANDB_SILENT", "true")

    def read(folder):
        wandb.teardown()  # waits for the process that writes
        found = defaultdict(list)
        for path in sorted(folder.rglob("*.wandb")):
            records = read_records(path)
            (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
            found[run.display_name].append((run, records))
        return found

    yield read
    wandb.teardown()
    server.setblocking(False)
    with server, pytest.raises(BlockingIOError):  # nobody has connected
        server.accept()


def check_no_paths(folder: Path, tmp_path: Path) -> None:
    """Assert that what `wandb sync` would send has no path of this machine."""
    runs = list((folder / "logs" / "wandb").glob("offline-run-*"))
    sent = [path for run in runs for path in [*run.glob("*.wandb"), *run.glob("files/**/*")] if path.is_file()]
    assert {path.suffix for path in sent} >= {".wandb", ".txt"}
    for path in sent:
        for place in (tmp_path.parent, ROOT, sys.prefix):
            assert str(place).encode() not in path.read_bytes(), path


def values_of(records: list) -> list[dict]:
    """Return the values that were logged, a dict a step."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def test_a_killed_and_resumed_run_is_one_run_with_each_step_once(offline, recipe, data, tmp_path, monkeypatch):
    folder = tmp_path / "r"
    call_and_lose_step_four(monkeypatch, "pretrain", recipe, data, folder, *SETTINGS)
    assert call("pretrain", recipe, data, folder, *SETTINGS, resume=True) == 0
    runs = offline(folder / "logs")["r/pretrain"]
    assert len(runs) == 2  # the killed process and the resumed one,
    assert len({run.run_id for run, _ in runs}) == 1  # of one run
    assert [values["_step"] for _, records in runs for values in values_of(records)] == [1, 2, 3, 4, 5, 6]
    losses = [values["pretrain/loss"] for _, records in runs for values in values_of(records)]
    log = EventAccumulator(str(folder / "logs" / "pretrain"))
    log.Reload()
    points = log.Scalars("pretrain/loss")
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    assert losses == pytest.approx([point.value for point in points])
    updates = [item for record in runs[0][1] if record.HasField("config") for item in record.config.update]
    config = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}
    assert config["pretrain.steps"] == 6
    assert config["model.preset"] == "minigpt"
    check_no_paths(folder, tmp_path)


KILLED_A_SECOND_AFTER_LOGGING_STEP_FOUR = """
import os
import time
import training.loop
original = training.loop.save_checkpoint
def save_or_die(state, folder, name, progress, count):
    if progress.step == 4:
        time.sleep(1)
        os.kill(os.getpid(), 9)
    return original(state, folder, name, progress, count)
training.loop.save_checkpoint = save_or_die
"""


def test_a_run_killed_by_the_kernel_lacks_the_last_step_at_most_and_repeats_none(offline, recipe, data, tmp_path):
    words = command_line("pretrain", recipe, data, tmp_path / "r", *SETTINGS)
    environment = {name: os.environ[name] for name in os.environ if name.startswith(("WANDB_", "HTTP"))}
    program = patched(tmp_path, KILLED_A_SECOND_AFTER_LOGGING_STEP_FOUR)
    assert finish(start(words, program=program, **environment)).returncode == -9
    assert finish(start([*words, "--resume"], **environment)).returncode == 0
    runs = offline(tmp_path / "r" / "logs")["r/pretrain"]
    steps = [values["_step"] for _, records in runs for values in values_of(records)]
    # W&B waits with a step's values until those of the next one, as there may be more.
    assert steps in ([1, 2, 3, 5, 6], [1, 2, 3, 4, 5, 6])


def test_the_results_are_a_run_of_their_own(offline, recipe, data, tmp_path):
    folder = tmp_path / "r"
    assert call("all", recipe, data, folder, *SETTINGS) == 0
    runs = offline(folder / "logs")
    assert set(runs) == {"r/pretrain", "r/finetune", "r/no_pretraining", "r/results"}
    assert {run.run_group for found in runs.values() for run, _ in found} == {"r"}
    ((_, records),) = runs["r/results"]
    (values,) = values_of(records)
    results = json.loads((folder / "results.json").read_text())
    assert values["results/accuracy"] == results["dev"]["accuracy"]
    assert values["results/ceiling"] == results["baselines"]["ceiling"]
    assert values["results/aurc"] == results["trust"]["aurc"]
    check_no_paths(folder, tmp_path)


def test_without_an_account_training_goes_on(recipe, data, tmp_path, monkeypatch, capfd):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a login would be found
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert call("pretrain", recipe, data, tmp_path / "r", *SETTINGS) == 0
    assert capfd.readouterr().err.count("the logs for wandb cannot be written, training goes on without") == 1
    log = EventAccumulator(str(tmp_path / "r" / "logs" / "pretrain"))
    log.Reload()
    assert len(log.Scalars("pretrain/loss")) == 6
    wandb.teardown()
