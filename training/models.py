"""Load finished models and their tokenizers, or say in one line why that cannot be done."""

from pathlib import Path

from accelerate import PartialState
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM  # which also registers the Auto classes
from training.run_folder import RunError

# Fields in which a checkpoint may differ from the model that starts from its weights: they decide no weight of it.
FREE_FIELDS = (
    "attention_type", "bigbird_", "window_",
    "embedding_dropout", "attention_dropout", "residual_dropout", "initializer_range", "zero_init_residual",
)  # fmt: skip
NEW_WEIGHTS = (".slot_logits", ".slot_proj.weight", ".features")  # that only some attention has


def load_model(path: str | Path) -> PreTrainedModel:
    """Load a finished model to the device at hand.

    Args:
        path: its folder, or an id on the Hub.

    Raises:
        RunError: no model there, or weights that do not fit its config.
    """
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    except Exception as error:  # a broken file makes the libraries raise many kinds
        raise RunError(f"{path}: no model that can be loaded: {' '.join(str(error).split())[:300]}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading.get(problem):
            found = ", ".join(sorted(str(key) for key in loading[problem])[:3])
            raise RunError(f"{path}: the weights do not fit config.json: {problem.replace('_', ' ')}: {found}")
    return model.to(PartialState().device)


def check_shape(path: str | Path, found: MiniGPTConfig, wanted: MiniGPTConfig, free: tuple[str, ...] = ()) -> None:
    """Raise RunError, with the field, where a pretrained model is not the one that the recipe describes.

    Fields whose names start with one of `free` may differ.
    """
    for name in MiniGPTConfig.__annotations__:
        if not name.startswith(free) and getattr(found, name) != getattr(wanted, name):
            raise RunError(f"{path}: {name} is {getattr(found, name)}, but the recipe wants {getattr(wanted, name)}")


def start_from(path: str | Path, wanted: MiniGPTConfig) -> MiniGPTForCausalLM:
    """Return a model of the config `wanted` with a finished model's weights, be its attention the same or another.

    Weights that only the new attention has start at random; the Hub library names them in a warning. With rotary
    positions the context may change too.

    Args:
        path: the finished model's folder, or an id on the Hub.

    Raises:
        RunError: no MiniGPT there, weights missing, or a model that differs in more than that and its dropout.
    """
    try:
        found = AutoConfig.from_pretrained(path)
    except Exception as error:  # as above
        raise RunError(f"{path}: no model to start from: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(found, MiniGPTConfig):
        raise RunError(f"{path}: a {found.model_type} model is there, no {wanted.model_type} to start from")
    unused = [f"{name}_" for name in ("linformer", "performer") if name not in found.layer_attention_types]
    length = ["max_position_embeddings"] if wanted.position_embedding_type == "rotary" else []
    check_shape(path, found, wanted, free=(*FREE_FIELDS, *unused, *length))
    try:
        model, loading = MiniGPTForCausalLM.from_pretrained(path, config=wanted, output_loading_info=True)
    except Exception as error:  # as above
        raise RunError(f"{path}: cannot start from it: {' '.join(str(error).split())[:300]}") from error
    missing = sorted(key for key in loading["missing_keys"] if not key.endswith(NEW_WEIGHTS))
    if missing:
        raise RunError(f"{path}: cannot start from it: {len(missing)} weights are not there: {', '.join(missing[:3])}")
    return model


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer that is stored beside a model; RunError where there is none."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as error:  # as above
        raise RunError(f"{path}: no tokenizer there: {' '.join(str(error).split())[:200]}") from error
