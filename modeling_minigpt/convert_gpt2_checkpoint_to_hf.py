"""Convert a GPT-2 of the Hub library, a folder or an id on the Hub, into a MiniGPT folder with its tokenizer, if any.

minigpt convert gpt2 openai-community/gpt2 FOLDER
"""

import argparse
from pathlib import Path

from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase

from .convert_mingpt_checkpoint_to_hf import build, config_of, rename
from .converted_folder_minigpt import ConversionError, check_folder, save
from .modeling_minigpt import MiniGPTForCausalLM

TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")  # of class Conv1D
UNKNOWN = {  # settings that compute another function, and what they must be
    "add_cross_attention": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
}


def convert(name_or_path: str | Path) -> MiniGPTForCausalLM:
    """Return the MiniGPT that computes what a GPT-2 does.

    Raises:
        ConversionError: no GPT-2 there, or one with settings that a MiniGPT does not have.
    """
    try:
        source, report = GPT2LMHeadModel.from_pretrained(name_or_path, output_loading_info=True)
    except Exception as error:  # a broken folder makes the library raise many kinds
        raise ConversionError(f"{name_or_path}: no GPT-2 there: {' '.join(str(error).split())[:200]}") from error
    # The library fills what is missing with random weights and only logs it.
    if missing := sorted(report["missing_keys"]):
        raise ConversionError(f"{name_or_path}: {len(missing)} weights are missing, such as {missing[0]}")
    config = source.config
    if config.model_type != "gpt2":
        raise ConversionError(f"{name_or_path}: a {config.model_type} model, wanted gpt2")
    # Refused instead of ignored: the converted model would compute something else without an error.
    for name, wanted in UNKNOWN.items():
        if getattr(config, name) != wanted:
            raise ConversionError(f"{name_or_path}: {name} is {getattr(config, name)}, a MiniGPT can only do {wanted}")
    state = {
        # GPT-2's Conv1D stores (in, out), a linear layer (out, in).
        name: weight.T.contiguous() if name.endswith(TRANSPOSED) else weight
        for name, weight in source.state_dict().items()
    }
    try:
        weights = rename(state)
        fields = {
            "norm_eps": config.layer_norm_epsilon,
            "embedding_dropout": config.embd_pdrop,
            "attention_dropout": config.attn_pdrop,
            "residual_dropout": config.resid_pdrop,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
        }
        model = build(weights, config_of(weights, config.n_head, config.activation_function, **fields))
    except ConversionError as error:
        raise ConversionError(f"{name_or_path}: {error}") from error
    model.generation_config = source.generation_config
    return model


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase | None:
    """Return a GPT-2's tokenizer, or None where there is none, or a broken one."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        vocabulary = set(tokenizer.get_vocab())
    except Exception:  # a folder without one, or with a broken one, makes the library raise many kinds
        return None
    # For a GPT-2 without a tokenizer's files the library invents one of special tokens alone, which drops every text.
    return tokenizer if vocabulary - set(tokenizer.all_special_tokens) else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.add_argument("model", help="a GPT-2's folder, or its id on the Hub")
    parser.add_argument("folder", type=Path, help="where to write the MiniGPT: a new or an empty folder")


def run(arguments: argparse.Namespace) -> None:
    """Convert a GPT-2 as the command line says; ConversionError as `convert` and `save`."""
    check_folder(arguments.folder)
    model = convert(arguments.model)
    tokenizer = load_tokenizer(arguments.model)
    save(model, arguments.folder, tokenizer)
    found = "without a tokenizer, since none is there" if tokenizer is None else "with its tokenizer"
    print(f"{arguments.folder}: {model.num_parameters():,} parameters, {found}")
