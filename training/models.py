"""Load finished models and their tokenizers, or say in one line why that cannot be done."""

from pathlib import Path

from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

import modeling_minigpt  # noqa: F401  registers the Auto classes
from training.run_folder import RunError


def load_model(path: str | Path) -> PreTrainedModel:
    """Load a finished model to the device at hand.

    Args:
        path: its folder, or an id on the Hub.

    Raises:
        RunError: no model there, or weights that do not fit its config.
    """
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: no model that can be loaded: {' '.join(str(error).split())[:300]}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading.get(problem):
            found = ", ".join(sorted(str(key) for key in loading[problem])[:3])
            raise RunError(f"{path}: the weights do not fit config.json: {problem.replace('_', ' ')}: {found}")
    return model.to(PartialState().device)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer that is stored beside a model; RunError where there is none."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: no tokenizer there: {' '.join(str(error).split())[:200]}") from error
