"""Convert a checkpoint of minGPT, nanoGPT or the CS224N practical into a MiniGPT folder.

    minigpt convert mingpt model.params FOLDER --num_attention_heads 8
    minigpt convert mingpt ckpt.pt FOLDER

Three layouts of a state dict are known (Karpathy's minGPT before and after its rewrite of 2022, and nanoGPT):

    tok_emb, pos_emb, blocks.N.attn.{query,key,value,proj}, head        the practical's, exact GELU
    transformer.h.N.attn.{c_attn,c_proj}, lm_head                       minGPT's, GELU by tanh
    the same in a checkpoint {"model": …, "model_args": …}              nanoGPT's, exact GELU

The folder has weights, config and generation config; it has no tokenizer, since the checkpoints have none.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .configuration_minigpt import MiniGPTConfig
from .modeling_minigpt import MiniGPTForCausalLM

GPT_NAMES = {  # one block's, and the model's, in the layout of GPT-2
    r"transformer\.wte\.weight": "model.embed_tokens.weight",
    r"transformer\.wpe\.weight": "model.embed_positions.weight",
    r"transformer\.h\.(\d+)\.ln_1\.(weight|bias)": r"model.layers.\1.input_layernorm.\2",
    r"transformer\.h\.(\d+)\.attn\.c_proj\.(weight|bias)": r"model.layers.\1.self_attn.o_proj.\2",
    r"transformer\.h\.(\d+)\.ln_2\.(weight|bias)": r"model.layers.\1.post_attention_layernorm.\2",
    r"transformer\.h\.(\d+)\.mlp\.c_fc\.(weight|bias)": r"model.layers.\1.mlp.up_proj.\2",
    r"transformer\.h\.(\d+)\.mlp\.c_proj\.(weight|bias)": r"model.layers.\1.mlp.down_proj.\2",
    r"transformer\.ln_f\.(weight|bias)": r"model.norm.\1",
    r"lm_head\.weight": "lm_head.weight",
}
PRACTICAL_NAMES = {
    r"tok_emb\.weight": "model.embed_tokens.weight",
    r"pos_emb": "model.embed_positions.weight",
    r"blocks\.(\d+)\.ln1\.(weight|bias)": r"model.layers.\1.input_layernorm.\2",
    r"blocks\.(\d+)\.attn\.query\.(weight|bias)": r"model.layers.\1.self_attn.q_proj.\2",
    r"blocks\.(\d+)\.attn\.key\.(weight|bias)": r"model.layers.\1.self_attn.k_proj.\2",
    r"blocks\.(\d+)\.attn\.value\.(weight|bias)": r"model.layers.\1.self_attn.v_proj.\2",
    r"blocks\.(\d+)\.attn\.proj\.(weight|bias)": r"model.layers.\1.self_attn.o_proj.\2",
    r"blocks\.(\d+)\.ln2\.(weight|bias)": r"model.layers.\1.post_attention_layernorm.\2",
    r"blocks\.(\d+)\.mlp\.0\.(weight|bias)": r"model.layers.\1.mlp.up_proj.\2",
    r"blocks\.(\d+)\.mlp\.2\.(weight|bias)": r"model.layers.\1.mlp.down_proj.\2",
    r"ln_f\.(weight|bias)": r"model.norm.\1",
    r"head\.weight": "lm_head.weight",
}
FUSED = re.compile(r"transformer\.h\.(\d+)\.attn\.c_attn\.(weight|bias)")  # queries, keys and values below each other
MASKS = re.compile(r"(transformer\.h|blocks)\.\d+\.attn\.(mask|bias|masked_bias)")  # constants, not weights
NORMS = ("input_layernorm", "post_attention_layernorm", "model.norm")


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message is one line for the user."""


def rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict of either layout under MiniGPT's names.

    Raises:
        ConversionError: a name that neither layout has.
    """
    names = PRACTICAL_NAMES if "tok_emb.weight" in state else GPT_NAMES
    renamed = {}
    for name, weight in state.items():
        name = name.removeprefix("_orig_mod.")  # of a compiled model
        if MASKS.fullmatch(name):
            continue
        if fused := FUSED.fullmatch(name):
            # (3C, C): the rows of queries, then keys, then values. Cloned, since safetensors refuses shared memory.
            for part, piece in zip("qkv", weight.chunk(3), strict=True):
                renamed[f"model.layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece.clone()
            continue
        pattern = next((pattern for pattern in names if re.fullmatch(pattern, name)), None)
        if pattern is None:
            raise ConversionError(f"unknown weight {name}; wanted the names of minGPT, nanoGPT or the practical")
        target = re.sub(pattern, names[pattern], name)
        # The practical keeps its positions with a batch dimension of one, (1, T, C).
        renamed[target] = weight[0] if name == "pos_emb" else weight
    return renamed


def config_of(
    weights: Mapping[str, torch.Tensor], num_attention_heads: int, hidden_act: str, **fields
) -> MiniGPTConfig:
    """Return the config that weights under MiniGPT's names belong to; sizes are read off their shapes.

    Raises:
        ConversionError: a part is missing, or the heads do not divide the width.
    """
    for name in ("model.embed_tokens.weight", "model.embed_positions.weight", "model.layers.0.mlp.up_proj.weight"):
        if name not in weights:
            raise ConversionError(f"found no {name.removeprefix('model.').removesuffix('.weight')} among the weights")
    vocab_size, width = weights["model.embed_tokens.weight"].shape
    if num_attention_heads < 1 or width % num_attention_heads:
        raise ConversionError(f"{num_attention_heads} attention heads do not divide the width of {width}")
    # A tied model may store its head or not; equal matrices are one matrix either way.
    head = weights.get("lm_head.weight")
    return MiniGPTConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=1 + max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers.")),
        num_attention_heads=num_attention_heads,
        intermediate_size=weights["model.layers.0.mlp.up_proj.weight"].shape[0],
        max_position_embeddings=weights["model.embed_positions.weight"].shape[0],
        position_embedding_type="learned",
        norm_type="layernorm",
        norm_eps=fields.pop("norm_eps", 1e-5),
        qk_norm=False,
        hidden_act=hidden_act,
        use_bias="model.layers.0.self_attn.q_proj.bias" in weights,
        tie_word_embeddings=head is None or torch.equal(head, weights["model.embed_tokens.weight"]),
        **fields,
    )


def build(weights: dict[str, torch.Tensor], config: MiniGPTConfig) -> MiniGPTForCausalLM:
    """Return the model of a config with weights under its names; norms without a bias get one of zeros.

    Raises:
        ConversionError: weights that are missing, left over, or of another shape than the config's.
    """
    model = MiniGPTForCausalLM(config)
    wanted = model.state_dict()
    # nanoGPT can train without biases; LayerNorm then has none, and zeros compute the same.
    for name in wanted.keys() - weights.keys():
        if name.endswith(".bias") and any(norm in name for norm in NORMS):
            weights[name] = torch.zeros_like(wanted[name])
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConversionError(" ".join(str(error).split())[:300]) from error
    return model.eval()


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return a checkpoint's state dict, and nanoGPT's `model_args` where it has them; no code in it is run.

    Raises:
        ConversionError: no file, not a checkpoint of plain tensors, or one without a state dict.
    """
    try:
        # weights_only: a pickle may run any code, and checkpoints are passed around.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # a broken or a hostile pickle makes torch raise many kinds
        raise ConversionError(
            f"{path}: not a checkpoint of plain tensors: {' '.join(str(error).split())[:200]}"
        ) from error
    arguments = loaded.get("model_args", {}) if isinstance(loaded, dict) else {}
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(part, torch.Tensor) for part in state.values()):
        raise ConversionError(f"{path}: no state dict in it")
    return state, arguments


def convert(
    path: str | Path, num_attention_heads: int | None = None, hidden_act: str | None = None
) -> MiniGPTForCausalLM:
    """Return the MiniGPT that computes what a checkpoint's model does.

    Args:
        path: the checkpoint.
        num_attention_heads: heads of each attention, which no weight's shape shows; nanoGPT's `model_args` if None.
        hidden_act: "gelu" or "gelu_new" (by tanh); what the checkpoint's layout has if None.

    Raises:
        ConversionError: it cannot be read or converted, or lacks what is not given.
    """
    state, arguments = read_checkpoint(path)
    heads = num_attention_heads or arguments.get("n_head")
    if heads is None:
        raise ConversionError(f"{path}: does not say how many attention heads there are; give --num_attention_heads")
    # minGPT alone approximates GELU by tanh; the practical and nanoGPT (which saves `model_args`) do not.
    exact = "tok_emb.weight" in state or bool(arguments)
    try:
        weights = rename(state)
        return build(weights, config_of(weights, heads, hidden_act or ("gelu" if exact else "gelu_new")))
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.add_argument("checkpoint", type=Path, help="the .params or .pt file")
    parser.add_argument("folder", type=Path, help="where to write the MiniGPT")
    parser.add_argument(
        "--num_attention_heads", type=int, help="heads of each attention; nanoGPT's checkpoints say it"
    )
    parser.add_argument("--hidden_act", choices=("gelu", "gelu_new"), help="the layout's own when not given")


def run(arguments: argparse.Namespace) -> None:
    """Convert a checkpoint as the command line says; ConversionError as `convert`."""
    model = convert(arguments.checkpoint, arguments.num_attention_heads, arguments.hidden_act)
    model.save_pretrained(arguments.folder)
    print(f"{arguments.folder}: {model.num_parameters():,} parameters, {model.config.num_hidden_layers} layers")
