"""Whether a calibration still belongs to its model: digests of all that its scores depend on.

A calibration is measured with certain weights, a certain function, a tokenizer, and one relation's question, prompts
and candidates. Where one of them has changed, by more training, by an override at loading or by another file, its
scores and its threshold mean nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .attention_minigpt import ATTENTION_CLASSES
from .configuration_minigpt import MiniGPTConfig
from .relations_minigpt import BIRTHPLACE, Relation
from .weight_names_minigpt import unwrap_name

# Fields on which no answer depends: training, initialisation, and how much is computed together.
FREE_FIELDS = (
    "attention_type",  # compared as a list of layers
    "embedding_dropout",
    "attention_dropout",
    "residual_dropout",
    "initializer_range",
    "zero_init_residual",
    "use_cache",
    "tie_word_embeddings",  # the weights say it
    "window_block",
    "performer_chunk",
    "gated_deltanet_chunk",
    "pad_token_id",
    "bos_token_id",
)
REASONS = {
    "weights": "its weights, or their number format, are not those that it was calibrated with",
    "config": "its config computes another function than the one that was calibrated",
    "tokenizer": "its tokenizer is not the one that it was calibrated with",
    "candidates": "its candidates are not those that it was calibrated with",
    "relation": "its question or its prompts are not those that it was calibrated with",
}


def digest(*parts: Any) -> str:
    """Return a digest of plain values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def weight_bytes(name: str, value: object) -> memoryview:
    """Return a weight as bytes; ValueError where it is not in memory, or no plain tensor, as quantised ones may be."""
    refusal = f"its weights cannot be compared with those that it was calibrated with: {name} is a"
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{refusal} {type(value).__name__}, as in a quantised model")
    if value.is_meta:
        raise ValueError("its weights are not in memory")
    try:
        # As bytes: numpy has no bfloat16.
        return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    except (RuntimeError, TypeError, AttributeError) as error:  # a subclass that does not know one of these
        raise ValueError(f"{refusal} {type(value).__name__} of {value.dtype}, as in a quantised model") from error


def digest_weights(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Return a digest of weights, each with its name, format and shape, in their order; raises as `weight_bytes`."""
    found = hashlib.sha256()
    for name, value in weights:
        content = weight_bytes(name, value)
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(content)
    return found.hexdigest()


def weights_digest(model: PreTrainedModel) -> str:
    """Return a digest of a model's weights and buffers.

    It is the same for a model in a wrapper, as that of `torch.compile`.

    Raises:
        ValueError: as `weight_bytes`, as of weights that are offloaded to a disk.
    """
    state = model.state_dict()
    return digest_weights((unwrap_name(name), state[name]) for name in sorted(state, key=unwrap_name))


def function_fields(config: MiniGPTConfig) -> dict[str, Any]:
    """Return what in a config changes the function: nothing that is for training alone, or for an unused variant."""
    used = config.layer_attention_types
    unused = tuple(f"{name}_" for name in ATTENTION_CLASSES if name not in used)
    fields = {
        name: getattr(config, name)
        for name in MiniGPTConfig.__annotations__
        if name not in FREE_FIELDS and not name.startswith(unused)
    }
    return {**fields, "layer_attention_types": used}


def fingerprint_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return digests of the weights, the function and the tokenizer; ValueError as `weights_digest`."""
    settings = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else tokenizer.get_vocab()
    for passing in ("padding", "truncation"):  # what the last call has left, which no answer depends on
        settings.pop(passing, None)
    roles = (tokenizer.mask_token, tokenizer.eos_token, tokenizer.pad_token)
    return {
        "weights": weights_digest(model),
        "config": digest(function_fields(model.config), model.generation_config.max_new_tokens),
        "tokenizer": digest(settings, roles),
    }


def fingerprint_relation(relation: Relation, candidates: Sequence[str]) -> dict[str, str]:
    """Return digests of what a relation's scores depend on beside the model."""
    # Not of the paraphrases: one is asked as the question itself.
    return {"candidates": digest(list(candidates)), "relation": digest(relation.question, relation.prompts)}


def explain_mismatch(saved: dict[str, str] | None, found: dict[str, str]) -> str | None:
    """Return why a calibration that was saved with one fingerprint does not belong to another; None where it does."""
    if saved is None:
        return "its calibration does not say which weights it is of"
    # Before there were relations, every calibration was of the birthplace.
    saved = {"relation": fingerprint_relation(BIRTHPLACE, [])["relation"], **saved}
    return next((reason for key, reason in REASONS.items() if saved.get(key) != found[key]), None)
