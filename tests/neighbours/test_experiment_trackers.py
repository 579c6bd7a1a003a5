"""The real Weights & Biases, offline: a killed and resumed run has each step once, its recipe and its results."""

import json
import struct
from collections import defaultdict
from pathlib import Path

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from tests.running import call
from training import loop

SETTINGS = ("run.trackers=[wandb, tensorboard]", "run.log_steps=1", "run.checkpoint_minutes=1e-9")


def read_records(path: Path) -> list[Record]:
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

    return read


def values_of(records: list[Record]) -> list[dict]:
    """Return the values that were logged, a dict a step."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def test_a_killed_and_resumed_run_is_one_run_with_each_step_once(offline, recipe, data, tmp_path, monkeypatch):
    save = loop.save_checkpoint

    def save_three(state, folder, name, progress, count):
        if progress.step == 4:  # it is logged, and not saved
            raise SystemExit(9)
        return save(state, folder, name, progress, count)

    folder = tmp_path / "r"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_three)
        with pytest.raises(SystemExit):
            call("pretrain", recipe, data, folder, *SETTINGS)
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
    shown = json.dumps(config)
    assert str(tmp_path) not in shown
    assert str(data) not in shown


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
