"""The four commands of `train.py`: pretrain, finetune, evaluate, and all of them with the baseline."""

import shlex
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.utils import set_seed

from artifacts.files import as_disk_error, write_json
from artifacts.loading import continue_from, load_tokenizer, start_from
from artifacts.run_folder import STAGES, RunError, RunFolder, read_json
from artifacts.safe_loading import as_run_error
from configuration.errors import one_line, show
from configuration.schema import Recipe
from evaluation.report import print_results
from evaluation.scoring import check_same_scoring, score_run
from evaluation.trained_on import TrainedOn, read_record, stage_record, write_record
from hub.publish_model import HubTarget
from hub.push import PushError
from modeling_minigpt import ClosedBookPipeline, MiniGPTForCausalLM
from training.checkpoints import Progress, failing_together, remove_checkpoints
from training.data_checks import check_data
from training.held_out import held_out_accuracy
from training.interruption import Interrupted, StopRequest, handle_signals
from training.loop import train_stage
from training.overview import describe_run
from training.pipelines import build_pipeline
from training.run_context import (
    Run,
    build_run,
    describe_inputs,
    init_model,
    start_accelerator,
    training_batches,
)
from training.torchrun_env import (
    check_devices,
    check_joined,
    check_restarts,
    check_srun,
    has_peers,
    is_main_process,
    was_restarted,
)
from training.tracking import track_results, tracked_settings
from training.watchdog import as_process_timeout

logger = get_logger(__name__)


def pretrain(run: Run) -> None:
    """Learn the documents by span corruption; leave the model in the run's `pretrain`."""
    _train(run, "pretrain", initial_model(run, "pretrain"))


def finetune(run: Run) -> None:
    """Learn to answer, from the pretrained model or the recipe's; leave the model, calibrated, in `finetune`."""
    _train(run, "finetune", initial_model(run, "finetune"))


def train_without_pretraining(run: Run) -> None:
    """Learn to answer from random weights, the baseline; leave the model in `no_pretraining`."""
    _train(run, "no_pretraining", initial_model(run, "no_pretraining"))


def evaluate(run: Run) -> dict | None:
    """Score the finetuned model, or the recipe's `evaluate.model`; write and print the results, and return them.

    Every process must call this; the main one alone has results.
    """
    return score_run(run.folder, run.recipe, run.data)


STAGE_FUNCTIONS = {"pretrain": pretrain, "finetune": finetune, "no_pretraining": train_without_pretraining}
COMMANDS = {  # which stages each trains
    "pretrain": ("pretrain",),
    "finetune": ("finetune",),
    "evaluate": (),
    "all": ("pretrain", "finetune", "no_pretraining"),
}
SCORING_COMMANDS = ("evaluate", "all")
STAYS = "what was finished stays"


def run_command(recipe: Recipe, command: str, resume: bool = False, hub: HubTarget | None = None) -> dict | None:
    """Run one of `COMMANDS` in the recipe's output folder, and publish what it scores, if asked.

    Args:
        recipe: what to run.
        command: a key of `COMMANDS`.
        resume: whether to continue what an earlier command left in the folder.
        hub: where to publish the scored model, and perhaps the checkpoints.

    Returns:
        The results, on the main process of a command that scores; else None.

    Raises:
        UserError: what the user must change; or, after all is saved, what a signal or the Hub has prevented.
    """
    check_restarts()
    check_srun()
    check_devices()
    folder = RunFolder(recipe.output)
    if hub is not None:
        check_publishing(recipe, command, hub)
        if is_main_process():
            with handle_signals() as request, request.interruptible("before training"):
                hub.open()  # before hours of training, not after
    # One lock for all processes: those of one run share the folder. And signals are handled all along: between two
    # stages there is no moment at which one would kill the run.
    with (
        folder.lock() if is_main_process() else nullcontext(),
        handle_signals() as request,
        as_disk_error("output", folder.path, f"{STAYS}, {request.remedy}"),
        as_process_timeout(recipe.run.timeout_minutes),
    ):
        results = _run_stages(recipe, command, folder, resume or was_restarted(), hub, request)
    if hub is not None and results is not None:
        publish(folder, hub)
    return results


def check_publishing(recipe: Recipe, command: str, hub: HubTarget) -> None:
    """Raise RunError where a command would leave nothing that can be published."""
    if command not in SCORING_COMMANDS and not hub.checkpoints:
        raise RunError(f"{command} --push_to_hub needs --push_checkpoints: only a scored model is published")
    if recipe.evaluate.model is not None:
        raise RunError("--push_to_hub publishes the run's own model, but evaluate.model names another")


def publish(folder: RunFolder, hub: HubTarget) -> None:
    """Publish a scored run and print its address; PushError, with the command that repeats it, if that fails."""
    words = ["python", "-m", "hub.publish_model", str(folder.path), hub.repo_id]
    words += ["--private"] if hub.private else []
    words += ["--license", hub.license] if hub.license is not None else []
    again = shlex.join(words)
    try:
        with handle_signals() as request, request.interruptible(f"while publishing by `{again}`"):
            address = hub.push_run(folder.path)
        show(f"published: {address}")
    except PushError as error:
        raise PushError(f"{error}; the run is complete, publish it by `{again}`") from error


def _run_stages(
    recipe: Recipe, command: str, folder: RunFolder, resume: bool, hub: HubTarget | None, request: StopRequest
) -> dict | None:
    """Run a command, except for the publishing; see `run_command`."""
    scores = command in SCORING_COMMANDS
    stages = plan_stages(recipe, command, folder)
    folder.claim(recipe, stages, scores, resume)
    if command == "finetune" and not (recipe.finetune.start_from or folder.finished("pretrain")):
        raise RunError(f"{folder.stage('pretrain')}: no pretrained model there; run `train.py pretrain` first")
    # Else its name would be taken for an id on the Hub, and somebody else's model scored.
    if command == "evaluate" and not (recipe.evaluate.model or folder.finished("finetune")):
        raise RunError(f"{folder.stage('finetune')}: no finetuned model there; run `train.py finetune` first")
    # Before the data are read: a finished run needs neither them nor an Accelerator.
    if resume and scores and folder.results.exists():
        check_same_scoring(folder, recipe)
        return show_results(folder) if is_main_process() else None
    remaining = [stage for stage in stages if not folder.finished(stage)]
    on_checkpoint = partial(push_checkpoint, hub, folder) if hub is not None and hub.checkpoints else None
    # Not among several processes: one that is gone would leave the others waiting for it.
    with nullcontext() if has_peers() else request.interruptible("while reading the data"):
        run = build_run(recipe, bool(remaining), on_checkpoint)
        check_data(run, remaining, scores, resume)
        for line in describe_run(run, remaining) if remaining else ():
            logger.info(line)
        check_joined(PartialState().num_processes)
    for stage in remaining:
        STAGE_FUNCTIONS[stage](run)
        if request.requested_on_any_rank(run.accelerator):
            raise Interrupted(f"stopped after {stage}, saved in {folder.stage(stage)}; {request.remedy}")
    results = None
    if scores:
        with request.interruptible(f"while scoring; the models are in {folder.path}"):
            results = evaluate(run)
        # For its trackers; where nothing was trained there is none yet.
        accelerator = run.accelerator or start_accelerator("no", folder, recipe.run.trackers)
        if results is not None:
            track_results(accelerator, tracked_settings(recipe), results)
            show(describe_outputs(recipe, folder, results))
    PartialState().destroy_process_group()
    return results


def describe_outputs(recipe: Recipe, folder: RunFolder, results: dict) -> str:
    """Say where a scored run's report and model are, and how to ask the model."""
    model = recipe.evaluate.model or str(folder.stage("finetune"))
    words = ["minigpt", "ask", model, results["samples"][0]["question"]]
    return f"report: {folder.path / 'report.md'}\nmodel: {model}\nask it: {shlex.join(words)}"


def plan_stages(recipe: Recipe, command: str, folder: RunFolder) -> tuple[str, ...]:
    """Return the stages that a command trains: without the pretraining, where finetuning starts from another model.

    Raises:
        RunError: then, if the command is `pretrain`, or the folder has a pretraining already.
    """
    # "start_from" replaces the pretraining of this run: to train one that nothing reads would waste its hours.
    stages = COMMANDS[command]
    if recipe.finetune.start_from is None:
        return stages
    if command == "pretrain":
        raise RunError("finetune.start_from is set: nothing would read the pretrained model; run finetune or all")
    # The results would name one pretraining and the folder show another.
    if stages and (folder.finished("pretrain") or folder.has_checkpoints(("pretrain",))):
        raise RunError(
            f"output {folder.path}: has a pretraining, but finetune.start_from names another model; choose "
            "another --set output=FOLDER"
        )
    return tuple(stage for stage in stages if stage != "pretrain")


def show_results(folder: RunFolder) -> dict:
    """Print the results of a finished run and return them; RunError where its file contains something else."""
    # Scored already: asking again would give the same numbers, minutes later.
    results = read_json(folder.results)
    show(f"{folder.path}: the run is finished; its results were:")
    with as_run_error(f"{folder.results}: no results of a run"):
        print_results(results)
    return results


def push_checkpoint(
    hub: HubTarget, folder: RunFolder, stage: str, model: MiniGPTForCausalLM, progress: Progress
) -> None:
    """Push a checkpoint to the Hub; a failed push only warns."""
    # A network that fails for a minute must not end a training of days, and neither must anything else here.
    try:
        hub.push_checkpoint(model, load_tokenizer(folder.tokenizer), stage, progress.step)
    except Exception as error:
        logger.warning(f"the checkpoint of {stage}, step {progress.step}, was not pushed: {one_line(error)}")


def initial_model(run: Run, stage: str) -> MiniGPTForCausalLM:
    """Return what a stage starts from: the recipe's model, the pretrained one, or random weights.

    Raises:
        RunError: that model cannot be loaded, or is not of the recipe's shape.
    """
    # Always built, even if only its settings are used: its draws fix the seed of weights that `start_from` adds.
    initial = init_model(run)
    source = getattr(run.recipe, stage).start_from
    if source is not None:
        # Weights alone are taken over from the other run: how long an answer may be is this recipe's setting.
        model = start_from(source, initial.config)
        model.generation_config = initial.generation_config
        return model
    if stage == "finetune":
        return continue_from(run.folder.stage("pretrain"), initial.config)
    return initial


def _on_checkpoint(run: Run, stage: str, model: MiniGPTForCausalLM, progress: Progress) -> dict[str, float]:
    """Hand a checkpoint's model to the run's callback, ask it the held-out questions, and return what is tracked."""
    if run.on_checkpoint is not None:
        run.on_checkpoint(stage, model, progress)
    try:
        return held_out_accuracy(run, stage, model, progress)
    except Exception as error:  # out of memory, a character out of the vocabulary: no reason to end hours of training
        logger.warning(f"{stage} {progress.step:,}: the held-out questions were not asked: {one_line(error)}")
        return {}


def _train(run: Run, stage: str, model: MiniGPTForCausalLM) -> None:
    """Train a model through one stage, save it in the run's folder and remove the stage's checkpoints."""
    batches = training_batches(run, stage)
    with as_run_error(f"{stage}: what the model to start from was trained on cannot be read"):
        trained_on = read_record(model) | stage_record(run.data, getattr(run.recipe, stage))
    if run.accelerator.is_main_process:
        # Only now that nothing can be refused any more: a command that is corrected must not meet its own recipe.
        run.folder.begin(run.recipe, describe_inputs(run, STAGES), asdict(run.formats))
    set_seed(run.recipe.seed)  # so that dropout does not depend on how the model came to be
    trained, progress = train_stage(
        stage,
        model,
        batches,
        getattr(run.recipe, stage),
        run.recipe.run,
        run.accelerator,
        run.folder.checkpoints,
        partial(_on_checkpoint, run, stage) if run.on_checkpoint or run.data.held_out else None,
        run.formats.muon_dtype,
        tracked_settings(run.recipe),
    )
    pipeline = None
    uncalibrated: dict[str, str] = {}
    if stage != "pretrain":
        pipeline, uncalibrated = build_pipeline(run, stage, trained, trained_on)
    with (
        handle_signals() as request,
        failing_together(run.accelerator),
        as_disk_error("output", run.folder.path, f"{STAYS}, {request.remedy}"),
    ):
        if run.accelerator.is_main_process:
            with run.folder.new_stage(stage) as folder:
                save_stage(run, stage, pipeline or trained, progress, trained_on, uncalibrated, folder)
    # Only now: until the model is in its place, a crash must find the last checkpoint.
    remove_checkpoints(run.accelerator, run.folder.checkpoints, stage)
    run.accelerator.wait_for_everyone()


def save_stage(
    run: Run,
    stage: str,
    trained: MiniGPTForCausalLM | ClosedBookPipeline,
    progress: Progress,
    trained_on: TrainedOn,
    uncalibrated: dict[str, str],
    folder: Path,
) -> None:
    """Write a stage's model, with its tokenizer, and records of its training; a model that answers as a pipeline.

    Args:
        uncalibrated: by relation, why its confidence is not calibrated.
    """
    record = {
        **asdict(progress),
        "processes": run.accelerator.num_processes,
        "start_from": getattr(run.recipe, stage).start_from,
    }
    trained.save_pretrained(folder)
    if stage == "pretrain":
        load_tokenizer(run.folder.tokenizer).save_pretrained(folder)
    else:
        record["uncalibrated"] = uncalibrated
        for relation, reason in uncalibrated.items():
            which = f" in {relation}" if len(run.data.relations) > 1 else ""
            logger.warning(f"the model's confidence{which} is not calibrated: {reason}")
    write_record(folder, trained_on)
    write_json(folder / "training.json", record)
