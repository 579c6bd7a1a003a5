"""Trackers get settings, curves and results, a resumed run goes on where a killed one was, and none gets a path."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import accelerate.tracking
import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tests.running import call, call_and_lose_step_four
from training import tracking
from training.tracking import StageTrackers


class Recorder(GeneralTracker):
    """Stands for W&B: remembers what it was given, for all runs of a test."""

    name = "wandb"
    requires_logging_directory = False
    opened: list = []
    logged: list = []
    settings: list = []

    def __init__(self, run_name, **settings):
        super().__init__()
        self.run = (run_name, settings)

    @property
    def tracker(self):
        return self.run

    def start(self):
        self.opened.append(self.run)

    def store_init_configuration(self, values):
        self.settings.append(values)

    def log(self, values, step=None, **settings):
        self.logged.append((self.run[1]["id"], step, values))

    def finish(self):
        pass


@pytest.fixture
def recorder(monkeypatch):
    """W&B, of which nothing is installed here."""
    for name in ("opened", "logged", "settings"):
        monkeypatch.setattr(Recorder, name, [])
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    available = [accelerate.utils.LoggerType.TENSORBOARD, accelerate.utils.LoggerType.WANDB]
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: available)
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", available)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: available)
    library = ModuleType("wandb")
    library.__spec__ = ModuleSpec("wandb", None)  # else whoever looks for it raises
    library.Settings = SimpleNamespace(model_fields=("x_disable_meta", "console"))  # of a version that lacks one
    monkeypatch.setitem(sys.modules, "wandb", library)
    return Recorder


def test_tensorboard_has_the_results_beside_the_settings(run):
    log = EventAccumulator(str(run / "logs" / "results"))
    log.Reload()
    results = json.loads((run / "results.json").read_text())
    assert log.Scalars("results/accuracy")[0].value == pytest.approx(results["dev"]["accuracy"])
    assert log.Scalars("results/ceiling")[0].value == pytest.approx(results["baselines"]["ceiling"])
    content = log.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["pretrain.batch_size"].number_value == 12
    assert settings["model.preset"].string_value == "minigpt"
    assert not [key for key in settings if key.endswith(("path", "output", "start_from"))]


def test_a_killed_and_resumed_run_goes_on_as_the_same_one_and_repeats_no_step(
    recorder, recipe, data, tmp_path, monkeypatch, capfd
):
    settings = ("run.trackers=[wandb]", "run.log_steps=1", "run.checkpoint_minutes=1e-9")

    call_and_lose_step_four(monkeypatch, "pretrain", recipe, data, tmp_path / "r", *settings)
    # What a resumed run may change is no other run.
    assert call("pretrain", recipe, data, tmp_path / "r", *settings, "run.loader_workers=1", resume=True) == 0
    assert "cannot be written" not in capfd.readouterr().err
    assert [step for _, step, _ in recorder.logged] == [1, 2, 3, 4, 5, 6]
    assert len({identity for identity, _, _ in recorder.logged}) == 1
    assert all(values["pretrain/loss"] > 0 for _, _, values in recorder.logged)
    project, options = recorder.opened[0]
    assert project == "minigpt"
    assert (options["name"], options["group"], options["resume"]) == ("r/pretrain", "r", "allow")
    assert options["settings"] == {"x_disable_meta": True, "console": "off"}
    shown = json.dumps(recorder.settings[0])
    assert recorder.settings[0]["pretrain.steps"] == 6
    assert str(tmp_path) not in shown
    assert str(data) not in shown


def test_a_step_with_two_kinds_of_values_has_both_and_no_setting_names_a_place(recorder, recipe, data, tmp_path):
    sets = f"evaluate.sets.mine={tmp_path / 'popqa.tsv'}"
    settings = (
        "run.trackers=[wandb]",
        "run.log_steps=1",
        "run.checkpoint_minutes=1e-9",
        "data.validation_questions=6",
    )
    assert call("pretrain", recipe, data, tmp_path / "r", *settings, sets) == 0
    kinds = {step: set() for _, step, _ in recorder.logged}
    for _, step, values in recorder.logged:
        kinds[step] |= set(values)
    assert list(kinds) == [1, 2, 3, 4, 5, 6]
    assert all({"pretrain/loss", "pretrain/held_out_accuracy"} <= found for found in kinds.values())
    assert str(tmp_path) not in json.dumps(recorder.settings[0])


def test_other_settings_in_the_same_folder_are_another_run(recorder, recipe, data, tmp_path):
    for seed in (1, 2):
        folder = tmp_path / "r"
        assert call("pretrain", recipe, data, folder, "run.trackers=[wandb]", f"seed={seed}") == 0
        for name in ("pretrain", "recipe.json"):
            (folder / name).rename(tmp_path / f"{name}-{seed}")
    first, *_, last = [identity for identity, _, _ in recorder.logged]
    assert first != last


def test_the_same_settings_are_the_same_run_and_a_second_service_changes_nothing(recorder, tmp_path):
    accelerator = Accelerator(cpu=True, log_with="wandb", project_dir=tmp_path)
    accelerator.project_configuration.logging_dir = str(tmp_path / "logs")
    for kinds in (["wandb", "wandb"], ["wandb"]):
        accelerator.log_with = kinds
        trackers = StageTrackers(accelerator, "pretrain", {"pretrain.steps": 6, "run.log_steps": len(kinds)})
        with trackers.opened(0):
            trackers.log({"loss": 1.0}, step=1)
    assert len({options["id"] for _, options in recorder.opened}) == 1


def test_a_step_that_nobody_got_is_sent_again(recorder, tmp_path, monkeypatch):
    accelerator = Accelerator(cpu=True, log_with="wandb", project_dir=tmp_path)
    accelerator.project_configuration.logging_dir = str(tmp_path / "logs")

    def fail(*arguments, **settings):
        raise OSError("no network")

    for broken in (True, False):
        trackers = StageTrackers(accelerator, "pretrain", {})
        with monkeypatch.context() as patch, trackers.opened(0):
            if broken:
                patch.setattr(Recorder, "log", fail)
            trackers.log({"loss": 1.0}, step=1)
    assert [step for _, step, _ in recorder.logged] == [1]


def test_every_stage_and_the_results_are_logged(recorder, recipe, data, tmp_path):
    assert call("all", recipe, data, tmp_path / "r", "run.trackers=[wandb]") == 0
    assert [options["name"] for _, options in recorder.opened] == [
        "r/pretrain", "r/finetune", "r/no_pretraining", "r/results",
    ]  # fmt: skip
    results = json.loads((tmp_path / "r" / "results.json").read_text())
    assert recorder.logged[-1][2]["results/accuracy"] == results["dev"]["accuracy"]
    assert recorder.logged[-1][2]["results/ece_known" if results["trust"]["calibrated"] else "results/aurc"] >= 0.0
    assert not list((tmp_path / "r" / "logs").rglob("events.out.tfevents.*"))


def test_results_are_logged_where_the_model_was_trained_before(recorder, recipe, data, tmp_path):
    for command in ("pretrain", "finetune", "evaluate"):
        assert call(command, recipe, data, tmp_path / "r", "run.trackers=[wandb]") == 0
    assert recorder.opened[-1][1]["name"] == "r/results"
    assert "results/accuracy" in recorder.logged[-1][2]


def test_a_tracker_that_fails_leaves_the_other_one_and_the_training(
    recorder, recipe, data, tmp_path, monkeypatch, capfd
):
    def fail(*arguments, **settings):
        raise OSError("no network")

    monkeypatch.setattr(recorder, "start", fail)
    assert call("pretrain", recipe, data, tmp_path / "r", "run.trackers=[wandb, tensorboard]") == 0
    assert capfd.readouterr().err.count("the logs for wandb cannot be written") == 1
    log = EventAccumulator(str(tmp_path / "r" / "logs" / "pretrain"))
    log.Reload()
    assert len(log.Scalars("pretrain/loss")) == 6


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(recipe, data, tmp_path, capfd):
    assert call("pretrain", recipe, data, tmp_path / "r", "run.trackers=[comet_ml]") == 2
    assert "run.trackers: comet_ml is not installed; pip install comet_ml" in capfd.readouterr().err
    assert not (tmp_path / "r" / "recipe.json").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [("[wandbb]", "trackers must be among aim, clearml"), ("[wandb, wandb]", "trackers lists one twice")],
)
def test_what_is_no_tracker_is_refused(recipe, data, tmp_path, capfd, value, message):
    assert call("pretrain", recipe, data, tmp_path / "r", f"run.trackers={value}") == 2
    assert message in capfd.readouterr().err


def test_nothing_is_logged_where_nothing_is_asked_for(recipe, data, tmp_path):
    assert call("pretrain", recipe, data, tmp_path / "r", "run.trackers=[]") == 0
    assert not list((tmp_path / "r").rglob("events.out.tfevents.*"))
