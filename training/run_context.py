"""What every stage of a run needs, built once: data, tokenizer, config, Accelerator."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import ProjectConfiguration, parse_flag_from_env, set_seed
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER
from transformers.utils import logging as transformers_logging

from artifacts.files import remove, sha256, written_aside
from artifacts.loading import load_tokenizer
from artifacts.memory import tune_glibc_malloc
from artifacts.run_folder import RunFolder
from configuration.recipe import build_config
from configuration.schema import Recipe
from data_scripts.annotated_texts import Annotator
from data_scripts.batches import TrainingBatches
from data_scripts.bios_folder import DataError
from data_scripts.splits import TrainingData, load_training_data
from data_scripts.tokens import DocumentTable, QuestionTable, document_rows, question_rows
from data_scripts.vocabulary import character_texts, vocabulary_texts
from modeling_minigpt import (
    MiniGPTConfig,
    MiniGPTForCausalLM,
    build_bpe_tokenizer,
    build_character_tokenizer,
)
from training.checkpoints import Progress
from training.precision import NumberFormats, choose_formats
from training.token_files import find_tokens_folder, open_rows
from training.tracking import check_installed

# (stage, unwrapped model, progress): benchmarks copy or average the weights here, `train.py` pushes them.
OnCheckpoint = Callable[[str, MiniGPTForCausalLM, Progress], None]


@dataclass(frozen=True)
class Run:
    """What the stages of a run share; built by `build_run`, never changed.

    Attributes:
        recipe: what to run.
        folder: where everything is written.
        data: documents and questions.
        accelerator: device, processes, precision, trackers; None, as are the next two, where nothing is trained.
        tokenizer: the run's; it remembers how it last padded, so models are saved with a fresh copy from the folder.
        config: the recipe's model, with the tokenizer's entries filled in.
        on_checkpoint: called on the main process with stage, unwrapped model and progress after each checkpoint.
        formats: what is computed in which number format; None where nothing is trained.
    """

    recipe: Recipe
    folder: RunFolder
    data: TrainingData
    accelerator: Accelerator | None = None
    tokenizer: PreTrainedTokenizerFast | None = None
    config: MiniGPTConfig | None = None
    on_checkpoint: OnCheckpoint | None = None
    formats: NumberFormats | None = None


def build_run(recipe: Recipe, trains: bool = True, on_checkpoint: OnCheckpoint | None = None) -> Run:
    """Load or build all that the stages share; every process must call this.

    Args:
        recipe: what to run.
        trains: whether a stage will be trained; scoring needs the data alone.
        on_checkpoint: see `Run`.

    Raises:
        DataError: the data cannot be used.
        RunError: the model to start from has no tokenizer that can be used.
        RecipeError: the model does not fit the tokenizer or this machine.
    """
    # The same on every process, so that none needs what another one has built.
    folder = RunFolder(recipe.output)
    folder.path.mkdir(parents=True, exist_ok=True)
    transformers_logging.disable_progress_bar()
    # First of all: the processes' group is made once, and whoever makes it decides how long a process waits in it.
    wait = timedelta(minutes=recipe.run.timeout_minutes)
    PartialState(parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=wait)
    tune_glibc_malloc()  # before the first large tensor: what is allocated earlier stays mapped
    formats = choose_formats(recipe, folder) if trains else None
    accelerator = start_accelerator(formats.precision, folder, recipe.run.trackers) if trains else None
    # The main process first: it fills the caches that the others then read. Loggers need this state, too.
    with PartialState().main_process_first():
        data = load_training_data(recipe, folder.data)
    if not trains:
        return Run(recipe, folder, data)
    discard_stale_tokenizer(folder, accelerator)
    tokenizer, config = prepare_tokenizer(recipe, folder, data, accelerator)
    return Run(recipe, folder, data, accelerator, tokenizer, config, on_checkpoint, formats)


def start_accelerator(precision: str, folder: RunFolder, trackers: list[str]) -> Accelerator:
    """Start the Accelerator in a precision; RunError where a tracker is not installed."""
    check_installed(trackers)
    # An earlier run of this process, as in a notebook, may have had another one: Accelerate remembers the first.
    if is_initialized() and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=precision,
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(str(folder.path), logging_dir=str(folder.path / "logs")),
    )


def discard_stale_tokenizer(folder: RunFolder, accelerator: Accelerator) -> None:
    """Remove the tokenizer of an earlier run that left no model and no checkpoint, so that this one builds its own."""
    # Any model there was trained with it, and what is finetuned from that model must be, too.
    if accelerator.is_main_process and not folder.is_in_use():
        remove(folder.tokenizer)
    accelerator.wait_for_everyone()


def prepare_tokenizer(
    recipe: Recipe, folder: RunFolder, data: TrainingData, accelerator: Accelerator
) -> tuple[PreTrainedTokenizerFast, MiniGPTConfig]:
    """Return the run's tokenizer and the model's config.

    The run's first command saves its tokenizer beside the checkpoints, and all later ones load it: it is that of the
    model to start from, or built from the documents.

    Raises:
        DataError, RunError, RecipeError: as `build_run`.
    """
    source = recipe.pretrain.start_from or recipe.finetune.start_from
    # The main process first: the others must not read a tokenizer that is half written, nor build one each.
    with accelerator.main_process_first():
        is_new = not (folder.tokenizer / "tokenizer.json").is_file()
        if is_new:
            tokenizer = load_tokenizer(source) if source else build_tokenizer(recipe, data)
        else:
            tokenizer = load_tokenizer(folder.tokenizer)
        config = build_config(
            recipe,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        if is_new:
            tokenizer.model_max_length = config.max_position_embeddings
            folder.checkpoints.mkdir(exist_ok=True)
            remove(folder.tokenizer)
            with written_aside(folder.tokenizer) as partial:
                tokenizer.save_pretrained(partial)
    # Loaded again, so that a first run and a resumed one encode with the same object, saved and read.
    return load_tokenizer(folder.tokenizer), config


def build_tokenizer(recipe: Recipe, data: TrainingData) -> PreTrainedTokenizerFast:
    """Build the recipe's tokenizer from what is trained on; DataError where that contains a special token."""
    any_length = VERY_LARGE_INTEGER  # the context is the config's, which needs this tokenizer's vocabulary first
    try:
        if recipe.tokenizer.type == "character":
            texts = character_texts(data.documents, data.train, data.relations)
            return build_character_tokenizer(texts, any_length)
        texts = vocabulary_texts(data.documents, data.train, recipe.corruption)
        return build_bpe_tokenizer(texts, recipe.tokenizer.vocab_size, any_length)
    except ValueError as error:
        raise DataError(f"{data.name}: {error}") from error


def init_model(run: Run) -> MiniGPTForCausalLM:
    """Build a model with random weights, the same for one seed, whose generation ends like an answer."""
    # Here, not once a run: weights must not depend on which stages this process has run before.
    set_seed(run.recipe.seed)
    model = MiniGPTForCausalLM(run.config)
    model.generation_config.max_new_tokens = run.recipe.evaluate.max_new_tokens
    return model


def training_batches(run: Run, stage: str) -> TrainingBatches:
    """Return what a stage learns from, by step; every process must call this.

    Raises:
        DataError: a question or its answer is too long for the model, or the stage has too few rows for its mix.
        VocabularyError: a question or its answer has a character that the tokenizer does not know.
    """
    # All stages read the same tables; how much of them is questions and what counts in the loss is the stage's own.
    arguments = getattr(run.recipe, stage)
    tokenizer = run.tokenizer
    context = run.config.max_position_embeddings
    entries = len(tokenizer)
    folder = find_tokens_folder(run.data.folder, run.folder.data, describe_tables(run))
    # Questions first and always: one that is too long is found before any stage has begun.
    question_file = open_rows(
        folder / "questions.arrow",
        lambda dtype: question_rows(run.data.train, tokenizer, context),
        entries,
        run.accelerator,
    )
    documents = None
    if arguments.question_fraction < 1.0:
        document_file = open_rows(
            folder / "documents.arrow",
            # All training questions are read for it, so only where the table has to be built.
            lambda dtype: document_rows(
                run.data.documents,
                tokenizer,
                Annotator.for_questions(run.data.train, run.recipe.corruption, run.data.documents, run.data.titles),
                dtype,
            ),
            entries,
            run.accelerator,
        )
        documents = DocumentTable(document_file)
    return TrainingBatches(
        documents,
        QuestionTable(question_file),
        tokenizer,
        arguments,
        run.recipe.corruption,
        run.recipe.seed,
        context,
    )


def describe_tables(run: Run) -> dict[str, object]:
    """Return, by name, all that the token tables of a run depend on."""
    corruption = run.recipe.corruption
    return {
        "tokenizer": sha256(run.folder.tokenizer / "tokenizer.json"),
        "corruption": [
            corruption.policy,
            corruption.max_length,
            # Only where it is asked for, so that other tables have the names that they always had.
            *(["likely answers"] if corruption.likely_answer_fraction else []),
        ],
        "context": run.config.max_position_embeddings,
        "data": {**asdict(run.recipe.data), "path": None},  # what a path leads to counts, not where that is
        "relations": {name: asdict(relation) for name, relation in run.recipe.relations.items()},
        "inputs": describe_inputs(run, ()),
    }


def describe_inputs(run: Run, stages: Sequence[str]) -> dict[str, object]:
    """Return, by name, digests of what the stages learn from: the data's, and the weights they start from."""
    inputs: dict[str, object] = dict(run.data.inputs)
    for stage in stages:
        source = getattr(run.recipe, stage).start_from
        if source is not None:
            weights = sorted(Path(source).glob("*.safetensors")) if os.path.isdir(source) else []
            # An id on the Hub is its own description.
            inputs[f"{stage}.start_from"] = {path.name: sha256(path) for path in weights} or source
    return inputs
