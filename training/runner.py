"""The four commands of `train.py`: pretrain, finetune, evaluate, and all of them with the baseline."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from artifacts.loading import check_shape, load_model, load_tokenizer, start_from
from artifacts.memory import tune_glibc_malloc
from artifacts.run_folder import STAGES, RunError, RunFolder, read_record, training_record, write_json
from artifacts.safe_loading import refused
from configuration.recipe import build_config
from configuration.schema import Recipe, StageArguments
from data_scripts.batches import TrainingBatches
from data_scripts.bios_folder import FILES, DataError
from data_scripts.splits import load_training_data, made_up_people
from evaluation.answers import check_characters, check_lengths
from evaluation.baselines import popular_places
from evaluation.calibration import CalibrationError, calibrate
from evaluation.report import print_results
from evaluation.scoring import score_run
from hub.publish_model import HubTarget
from hub.push import PushError
from modeling_minigpt import (
    BirthplacePipeline,
    MiniGPTForCausalLM,
    build_bpe_tokenizer,
    build_character_tokenizer,
)
from training.checkpoints import Progress, remove_checkpoints
from training.loop import train_stage
from training.precision import choose_precision
from training.torchrun_env import check_restarts, is_main_process, was_restarted

COMMANDS = {
    "pretrain": ("pretrain",),
    "finetune": ("finetune",),
    "evaluate": (),
    "all": ("pretrain", "finetune", "no_pretraining"),
}
CALIBRATION_STRANGERS = 2000  # made-up people to calibrate on


class Run:
    """One command on one run's folder."""

    def __init__(self, recipe: Recipe, resume: bool, hub: HubTarget | None = None):
        self.recipe, self.resume, self.hub = recipe, resume or was_restarted(), hub
        self.folder = RunFolder(recipe.output)

    def execute(self, command: str) -> dict | None:
        """Carry out a command of `COMMANDS` and publish what it scores, where asked; return the results if it does.

        Raises:
            PushError: the Hub would not take the run, before anything is done, or did not take it, after all is done.
        """
        check_restarts()
        if self.hub is not None:
            if command in ("pretrain", "finetune") and not self.hub.checkpoints:
                raise RunError(f"{command} --push_to_hub needs --push_checkpoints: only a scored model is published")
            if self.recipe.evaluate.model is not None:
                raise RunError("--push_to_hub publishes the run's own model, but evaluate.model names another")
            if is_main_process():
                self.hub.open()
        with self.folder.lock() if is_main_process() else nullcontext():
            results = self.carry_out(command)
        if self.hub is not None and results is not None:
            try:
                print(f"published: {self.hub.push_run(self.folder.path)}")
            except PushError as error:
                again = f"python -m hub.publish_model {self.folder.path} {self.hub.repo_id}"
                raise PushError(f"{error}; the run is complete, publish it by `{again}`") from error
        return results

    def carry_out(self, command: str) -> dict | None:
        """Do what `execute` says, but for the publishing."""
        stages, scores = COMMANDS[command], command in ("evaluate", "all")
        if self.recipe.finetune.start_from is not None:
            stages = self.without_pretraining(stages, command)
        self.folder.claim(self.recipe, stages, scores, self.resume)
        if command == "finetune" and not (self.recipe.finetune.start_from or self.folder.finished("pretrain")):
            raise RunError(
                f"{self.folder.stage('pretrain')}: no pretrained model there; run `train.py pretrain` first"
            )
        if self.resume and scores and self.folder.results.exists():
            results = read_record(self.folder.results)
            print(f"{self.folder.path}: the run is finished; its results were:")
            with refused(f"{self.folder.results}: no results of a run"):
                print_results(results)
            return results
        transformers_logging.disable_progress_bar()
        if stages:
            self.start_accelerator()
            self.forget_tokenizer()
        with self.accelerator.main_process_first() if stages else nullcontext():
            self.data = load_training_data(self.recipe.data, self.recipe.seed, self.folder.data)
        for stage in stages:
            if not self.folder.finished(stage):
                self.train(stage)
        if stages:
            self.accelerator.end_training()
        return score_run(self.folder, self.recipe, self.data) if scores and is_main_process() else None

    def without_pretraining(self, stages: tuple[str, ...], command: str) -> tuple[str, ...]:
        """Return the stages but for the pretraining, which nothing would read; RunError where there is one already."""
        if command == "pretrain":
            raise RunError("finetune.start_from is set: nothing would read what pretrain leaves; run finetune or all")
        if stages and (self.folder.finished("pretrain") or self.folder.unfinished(("pretrain",))):
            raise RunError(
                f"output {self.folder.path}: holds a pretraining, but finetune.start_from names another model; choose "
                "another --set output=FOLDER"
            )
        return tuple(stage for stage in stages if stage != "pretrain")

    def start_accelerator(self) -> None:
        """Make the Accelerator, its log and the process's memory settings."""
        tune_glibc_malloc()
        self.accelerator = Accelerator(
            mixed_precision=choose_precision(self.recipe.run.mixed_precision),
            log_with="tensorboard",
            project_config=ProjectConfiguration(str(self.folder.path), logging_dir=str(self.folder.path)),
        )
        self.accelerator.init_trackers("logs")

    def forget_tokenizer(self) -> None:
        """Remove the tokenizer of an earlier run that came to nothing, so that this one makes its own."""
        begins = not self.resume and not any(self.folder.finished(stage) for stage in STAGES)
        if begins and self.accelerator.is_main_process:
            shutil.rmtree(self.folder.tokenizer, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the run's tokenizer: the first time that of the model it starts from, or built from the documents."""
        source = self.recipe.pretrain.start_from or self.recipe.finetune.start_from
        with self.accelerator.main_process_first():
            if not (self.folder.tokenizer / "tokenizer.json").is_file():
                tokenizer = load_tokenizer(source) if source else self.build_tokenizer()
                tokenizer.model_max_length = build_config(self.recipe).max_position_embeddings
                tokenizer.save_pretrained(self.folder.tokenizer)
            return load_tokenizer(self.folder.tokenizer)

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """Build the recipe's tokenizer from the documents; DataError where they hold a special token."""
        context = build_config(self.recipe).max_position_embeddings
        try:
            if self.recipe.tokenizer.type == "character":
                return build_character_tokenizer(self.data.documents, context)
            return build_bpe_tokenizer(self.data.documents, self.recipe.tokenizer.vocab_size, context)
        except ValueError as error:
            raise DataError(f"{self.data.folder / FILES['documents']}: {error}") from error

    def fresh_model(self, tokenizer: PreTrainedTokenizerFast) -> MiniGPTForCausalLM:
        """Return a model with random weights, the same for one seed, that knows how to end an answer."""
        set_seed(self.recipe.seed)
        config = build_config(
            self.recipe,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = MiniGPTForCausalLM(config)
        model.generation_config.max_new_tokens = self.recipe.evaluate.max_new_tokens
        return model

    def first_model(self, name: str, tokenizer: PreTrainedTokenizerFast) -> MiniGPTForCausalLM:
        """Return what a stage starts from: a model given by the recipe, the pretrained one, or random weights."""
        fresh, given = self.fresh_model(tokenizer), getattr(self.recipe, name).start_from
        if given is not None:
            model = start_from(given, fresh.config)
            model.generation_config = fresh.generation_config
            return model
        if name == "finetune":
            model = load_model(self.folder.stage("pretrain"))
            check_shape(self.folder.stage("pretrain"), model.config, fresh.config)
            return model
        return fresh

    def batches(self, stage: StageArguments, tokenizer: PreTrainedTokenizerFast) -> TrainingBatches:
        """Return what a stage learns from, by step."""
        context = build_config(self.recipe).max_position_embeddings
        corruption, seed = self.recipe.corruption, self.recipe.seed
        return TrainingBatches(self.data.documents, self.data.train, tokenizer, stage, corruption, seed, context)

    def train(self, name: str) -> None:
        """Train one stage and leave its model in the run's folder."""
        stage, accelerator = getattr(self.recipe, name), self.accelerator
        tokenizer = self.tokenizer()
        model = self.first_model(name, tokenizer)
        check_characters(tokenizer, [f"{question} {place}" for question, place in self.data.train])
        check_lengths(tokenizer, *zip(*self.data.train, strict=True), model.config.max_position_embeddings)
        set_seed(self.recipe.seed)
        model, progress = train_stage(
            name,
            model,
            self.batches(stage, tokenizer),
            stage,
            self.recipe.run,
            accelerator,
            self.folder.checkpoints,
            self.on_checkpoint(name),
        )
        record = {
            **asdict(progress),
            "processes": accelerator.num_processes,
            "start_from": stage.start_from,
            "split": self.data.split,
        }

        def save(folder: Path) -> None:
            tokenizer = load_tokenizer(self.folder.tokenizer)  # one that has cut and padded nothing: it remembers
            if name == "pretrain":
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
            else:
                pipeline, record["uncalibrated"] = self.answering(name, model, tokenizer)
                pipeline.save_pretrained(folder)
                if record["uncalibrated"]:
                    print(f"the model's confidence is not calibrated: {record['uncalibrated']}")
            write_json(folder / "training.json", record)

        if accelerator.is_main_process:
            self.folder.publish_stage(name, save)
        remove_checkpoints(accelerator, self.folder.checkpoints, name)
        accelerator.wait_for_everyone()

    def on_checkpoint(self, name: str) -> Callable[[MiniGPTForCausalLM, Progress], None] | None:
        """Return what pushes a stage's model under way, where wanted; if that fails, training goes on without."""
        if self.hub is None or not self.hub.checkpoints:
            return None

        def push(model: MiniGPTForCausalLM, progress: Progress) -> None:
            try:
                self.hub.push_checkpoint(model, load_tokenizer(self.folder.tokenizer), name, progress.step)
            except PushError as error:
                print(f"warning: the checkpoint of {name}, step {progress.step}, was not pushed: {error}")

        return push

    def answering(
        self, name: str, model: MiniGPTForCausalLM, tokenizer: PreTrainedTokenizerFast
    ) -> tuple[BirthplacePipeline, str | None]:
        """Return the pipeline around a stage's model, and why it is not calibrated where it is not.

        Only the finetuned model is, on people of whom no model that it started from can have learned the answers.
        """
        places = popular_places(place for _, place in self.data.train)
        model.eval()
        with refused(f"{self.data.folder / FILES['train']}: the places cannot be weighed"):
            pipeline = BirthplacePipeline(model=model, tokenizer=tokenizer, device=model.device, candidates=places)
        source = self.recipe.pretrain.start_from or self.recipe.finetune.start_from
        if name != "finetune" or not self.data.calibration:
            return pipeline, None
        if source is not None and training_record(source).get("split") != self.data.split:
            return pipeline, f"{source} was trained on other data, perhaps on the calibration people"
        strangers = made_up_people(self.data, "calibration", CALIBRATION_STRANGERS)
        try:
            pipeline.confidence = calibrate(pipeline, self.data.calibration, strangers)
        except CalibrationError as error:
            return pipeline, str(error)
        return pipeline, None
