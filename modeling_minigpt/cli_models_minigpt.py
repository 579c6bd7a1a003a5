"""What the commands that ask a model share: loading it by a folder or an id, and the error of one line."""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

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


def load_pipeline(name: str) -> ClosedBookPipeline:
    """Load a model, its tokenizer, candidates and calibration; no code of the model's folder is run.

    Raises:
        CommandError: nothing there that can be loaded, or another kind of model.
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
        model = MiniGPTForCausalLM.from_pretrained(source, config=config)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        return ClosedBookPipeline(model=model, tokenizer=tokenizer)
    except CommandError:
        raise
    except Exception as error:  # a missing, broken or unreachable model makes each library raise its own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CommandError(f"{name}: not a MiniGPT that can be loaded: {reason}") from error
