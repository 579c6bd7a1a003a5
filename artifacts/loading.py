"""Load finished models and their tokenizers, or report in one line why that is not possible."""

import json
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import GenerationConfig, PreTrainedTokenizerFast

from artifacts.run_folder import RunError
from artifacts.safe_loading import as_run_error, check_contained, check_size_matches_weights, read_config
from configuration.schema import MAX_NEW_TOKENS
from modeling_minigpt import ClosedBookPipeline, MiniGPTConfig, MiniGPTForCausalLM, fingerprint_minigpt
from modeling_minigpt.answers_minigpt import encode_prompts
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from modeling_minigpt.cli_models_minigpt import describe_place, explain_weights

# Fields in which a checkpoint may differ from the model that starts from its weights: no weight depends on them. With
# tied embeddings another model is trained.
FREE_FIELDS = tuple(name for name in fingerprint_minigpt.FREE_FIELDS if name != "tie_word_embeddings")
# Of these, what the library's Trainer changes in a model: it keeps no cache, and pads as its tokenizer does.
TRAINER_FIELDS = ("use_cache", "pad_token_id", "bos_token_id")


def load_model(path: str | Path) -> MiniGPTForCausalLM:
    """Load a finished model to this process's device, with greedy generation as long as its own settings allow.

    Args:
        path: its folder, or an id on the Hub.

    Raises:
        RunError: no MiniGPT there, one that names files outside its folder, weights that do not fit its config, or
            outputs that are not finite.
    """
    check_contained(path)
    with as_run_error(f"{describe_place(path)}: no model that can be loaded"):
        config = read_config(path)
        check_size_matches_weights(path, config)
        model, loading = MiniGPTForCausalLM.from_pretrained(
            path, config=config, output_loading_info=True, trust_remote_code=False
        )
    if (problem := explain_weights(loading)) is not None:
        raise RunError(f"{path}: {problem}")
    # The folder's own settings could ask for beams or sampling, and so change the answers.
    model.generation_config = plain_generation(model)
    check_finite(path, model)
    return model.to(PartialState().device)


def plain_generation(model: MiniGPTForCausalLM) -> GenerationConfig:
    """Return settings for greedy answers; of the model's own only `max_new_tokens` is taken over."""
    longest = getattr(model.generation_config, "max_new_tokens", None)
    if type(longest) is not int or not 1 <= longest <= MAX_NEW_TOKENS:
        longest = None
    config = model.config
    return GenerationConfig(
        max_new_tokens=longest, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id, use_cache=True
    )


@torch.inference_mode()
def check_finite(path: str | Path, model: MiniGPTForCausalLM) -> None:
    """Raise RunError unless all weights of a model, and its outputs for a few tokens, are finite."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise RunError(f"{path}: {name} contains values that are not finite")
    # Finite weights may still overflow, as products of float32 near its largest value do.
    tokens = torch.arange(min(model.config.max_position_embeddings, 64)) % model.config.vocab_size
    with as_run_error(f"{path}: the model cannot be run"):
        logits = model(tokens[None].to(model.device), use_cache=False).logits
    if not logits.isfinite().all():
        raise RunError(f"{path}: the model's outputs are not finite")


def check_shape(path: str | Path, found: MiniGPTConfig, wanted: MiniGPTConfig, free: tuple[str, ...] = ()) -> None:
    """Check that a pretrained model's config is the one that the recipe describes.

    Args:
        path: the model's folder or id, for the message.
        found, wanted: the two configs.
        free: beginnings of the names of fields that may differ.

    Raises:
        RunError: with the field and both values.
    """
    for name in MiniGPTConfig.__annotations__:
        if not name.startswith(free) and getattr(found, name) != getattr(wanted, name):
            raise RunError(f"{path}: {name} is {getattr(found, name)}, but the recipe wants {getattr(wanted, name)}")


def continue_from(path: str | Path, wanted: MiniGPTConfig) -> MiniGPTForCausalLM:
    """Load a finished model to train it further as it is.

    Raises:
        RunError: as `load_model`, or a model of another config than is wanted; fields that the library's Trainer has
            changed are set to what is wanted, so that the model which is saved afterwards does not slow others down.
    """
    model = load_model(path)
    check_shape(path, model.config, wanted, free=TRAINER_FIELDS)
    for name in TRAINER_FIELDS:
        setattr(model.config, name, getattr(wanted, name))
    model.generation_config = plain_generation(model)
    return model


def start_from(path: str | Path, wanted: MiniGPTConfig) -> MiniGPTForCausalLM:
    """Build a model with a finished model's weights, with the same attention or another.

    Weights that only the new attention has start at random; transformers names them in a warning. With rotary
    positions the context may change too.

    Args:
        path: the finished model's folder, or an id on the Hub.
        wanted: the new model's config.

    Raises:
        RunError: no MiniGPT there, missing weights, or a model that differs in more than attention, context and
            `FREE_FIELDS`.
    """
    check_contained(path)
    with as_run_error(f"{describe_place(path)}: no model to start from"):
        found = read_config(path)
    # A variant's sizes matter where the checkpoint has weights of that variant.
    used = [name for name in found.layer_attention_types if ATTENTION_CLASSES[name].own_weights]
    sizes = [f"{name}_" for name in ATTENTION_CLASSES if name not in used]
    # Learned positions are weights, as many as the context is long; rotary ones are computed.
    length = ["max_position_embeddings"] if wanted.position_embedding_type == "rotary" else []
    check_shape(path, found, wanted, free=(*FREE_FIELDS, *sizes, *length))
    with as_run_error(f"{describe_place(path)}: cannot start from it"):
        model, loading = MiniGPTForCausalLM.from_pretrained(
            path, config=wanted, output_loading_info=True, trust_remote_code=False
        )
    own = tuple(f".{name}" for variant in ATTENTION_CLASSES.values() for name in variant.own_weights)
    missing = sorted(key for key in loading["missing_keys"] if not key.endswith(own))
    if missing:
        raise RunError(f"{path}: cannot start from it: {len(missing)} weights are not there: {', '.join(missing[:3])}")
    check_finite(path, model)
    return model


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer that is stored beside a model.

    Raises:
        RunError: none there, one that names files outside its folder, or one that cannot encode prompts.
    """
    check_contained(path)
    with as_run_error(f"{path}: a tokenizer that cannot be used"):
        check_numbering(Path(path) / "tokenizer.json")
    with as_run_error(f"{describe_place(path)}: no tokenizer there"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path, trust_remote_code=False)
    with as_run_error(f"{path}: a tokenizer that cannot be used"):
        check_tokenizer(tokenizer)
    return tokenizer


def check_numbering(path: Path) -> None:
    """Raise ValueError unless a tokenizer's tokens are numbered without gaps.

    Read from the file, before the library makes room for the largest number: one of a billion takes it half a minute.
    What the file has otherwise is the library's to judge.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = values["model"]["vocab"]
        numbers = {*vocabulary.values(), *(token["id"] for token in values["added_tokens"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    check_numbers(numbers, len(numbers))


def check_numbers(numbers: set, count: int) -> None:
    """Raise ValueError unless the numbers of `count` tokens are all from 0 to count - 1."""
    if numbers != set(range(count)):
        raise ValueError(f"its {count} tokens are not numbered from 0 to {count - 1}")


def check_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise ValueError, or what the libraries raise, unless a tokenizer can encode prompts and decode answers."""
    ids = tokenizer.get_vocab().values()
    check_numbers(set(ids), len(tokenizer))
    for name in ("pad_token", "mask_token", "eos_token"):
        if not isinstance(getattr(tokenizer, name), str) or getattr(tokenizer, f"{name}_id") not in ids:
            raise ValueError(f"its {name} is {getattr(tokenizer, name)!r}, which is not one of its tokens")
    batch = encode_prompts(tokenizer, ["", "\n"], "cpu")  # the only character that every tokenizer knows
    if not (batch["input_ids"][:, -1] == tokenizer.mask_token_id).all():
        raise ValueError("it does not encode a prompt as ids that end with the mask token")
    tokenizer.batch_decode([list(range(len(tokenizer)))], skip_special_tokens=True)


def load_pipeline(path: str | Path) -> ClosedBookPipeline:
    """Load a finished model as a pipeline that answers, with its tokenizer, relations, candidates and confidences.

    Raises:
        RunError: as `load_model` and `load_tokenizer`, or parts that do not fit each other.
    """
    model = load_model(path)
    tokenizer = load_tokenizer(path)
    if len(tokenizer) > model.config.vocab_size:
        raise RunError(f"{path}: the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}")
    with as_run_error(f"{path}: cannot answer"):
        return ClosedBookPipeline(model=model, tokenizer=tokenizer, device=model.device)
