"""What the commands that ask a model share: loading it by a folder or an id, and the error of one line."""

import os
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from .configuration_minigpt import MiniGPTConfig
from .modeling_minigpt import MiniGPTForCausalLM
from .pipeline_minigpt import ClosedBookPipeline


class CommandError(ValueError):
    """A command that cannot be run; the message is one line for the user."""


def find_model(name: str) -> str:
    """Return the folder or id to load: of a run's output folder, its finetuned model."""
    # Whoever has just trained has the run's folder at hand; what it can be asked is the model inside.
    finetuned = Path(name, "finetune")
    if not Path(name, "config.json").is_file() and (finetuned / "config.json").is_file():
        return str(finetuned)
    return name


def describe_place(path: str | Path) -> str:
    """Return a model's path for a message; what is no folder here was looked for on the Hub."""
    return str(path) if os.path.isdir(path) else f"{path}: no such folder; on the Hub"


def as_command_error(name: str, error: Exception) -> CommandError:
    """Return the error of one line for a model that a library could not load."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return CommandError(f"{describe_place(name)}: not a MiniGPT that can be loaded: {reason}")


def explain_weights(loading: dict[str, Any]) -> str | None:
    """Return which weights of a model's folder do not fit its config; None where all do.

    The library gives a weight that is missing random values, with no more than a warning.

    Args:
        loading: what `from_pretrained(…, output_loading_info=True)` returns beside the model.
    """
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = sorted(key if isinstance(key, str) else str(key[0]) for key in loading.get(problem) or ())
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            what = problem.replace("_keys", " weights")
            return f"the weights do not fit config.json: {what}: {', '.join(found[:3])}{more}"
    return None


def load_model(name: str) -> tuple[MiniGPTForCausalLM, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer; no code of the model's folder is run.

    Raises:
        CommandError: nothing there that can be loaded, weights that do not fit the config, or another kind of model.
    """
    source = find_model(name)
    # What looks like a path is one: the Hub's advice on how to write an id would not help.
    if not Path(source).is_dir() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise CommandError(f"{name}: no such folder")
    try:
        # Never a model's own code: this package has it, and the folder may come from anywhere.
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if not isinstance(config, MiniGPTConfig):
            raise CommandError(f"{name}: a {config.model_type} model, wanted minigpt")
        # Weights of another shape are reported with the others, in one line instead of the library's table.
        model, loading = MiniGPTForCausalLM.from_pretrained(
            source, config=config, output_loading_info=True, ignore_mismatched_sizes=True
        )
        if (problem := explain_weights(loading)) is not None:
            raise CommandError(f"{describe_place(name)}: {problem}")
        return model, AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except CommandError:
        raise
    except Exception as error:  # a missing, broken or unreachable model makes each library raise its own
        raise as_command_error(name, error) from error


def build_pipeline(name: str, model: MiniGPTForCausalLM, tokenizer: PreTrainedTokenizerBase) -> ClosedBookPipeline:
    """Return a model's pipeline with its candidates and calibration; CommandError where they cannot be read."""
    try:
        return ClosedBookPipeline(model=model, tokenizer=tokenizer)
    except Exception as error:  # as in `load_model`: a file beside the weights may be broken or unreachable
        raise as_command_error(name, error) from error


def load_pipeline(name: str) -> ClosedBookPipeline:
    """Load a model, its tokenizer, candidates and calibration; CommandError as `load_model` and `build_pipeline`."""
    return build_pipeline(name, *load_model(name))
