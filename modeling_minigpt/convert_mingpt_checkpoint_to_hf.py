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
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from .configuration_minigpt import MiniGPTConfig
from .converted_folder_minigpt import ConversionError, check_folder, save
from .modeling_minigpt import MiniGPTForCausalLM
from .weight_names_minigpt import unwrap_name

GPT_NAMES = {  # one block's, and the model's, in the layout of GPT-2
    r"transformer\.wte\.weight": "model.embed_tokens.weight",
    r"transformer\.wpe\.weight": "model.embed_positions.weight",
    r"transformer\.h\.([0-9]+)\.ln_1\.(weight|bias)": r"model.layers.\1.input_layernorm.\2",
    r"transformer\.h\.([0-9]+)\.attn\.c_proj\.(weight|bias)": r"model.layers.\1.self_attn.o_proj.\2",
    r"transformer\.h\.([0-9]+)\.ln_2\.(weight|bias)": r"model.layers.\1.post_attention_layernorm.\2",
    r"transformer\.h\.([0-9]+)\.mlp\.c_fc\.(weight|bias)": r"model.layers.\1.mlp.up_proj.\2",
    r"transformer\.h\.([0-9]+)\.mlp\.c_proj\.(weight|bias)": r"model.layers.\1.mlp.down_proj.\2",
    r"transformer\.ln_f\.(weight|bias)": r"model.norm.\1",
    r"lm_head\.weight": "lm_head.weight",
}
PRACTICAL_NAMES = {
    r"tok_emb\.weight": "model.embed_tokens.weight",
    r"pos_emb": "model.embed_positions.weight",
    r"blocks\.([0-9]+)\.ln1\.(weight|bias)": r"model.layers.\1.input_layernorm.\2",
    r"blocks\.([0-9]+)\.attn\.query\.(weight|bias)": r"model.layers.\1.self_attn.q_proj.\2",
    r"blocks\.([0-9]+)\.attn\.key\.(weight|bias)": r"model.layers.\1.self_attn.k_proj.\2",
    r"blocks\.([0-9]+)\.attn\.value\.(weight|bias)": r"model.layers.\1.self_attn.v_proj.\2",
    r"blocks\.([0-9]+)\.attn\.proj\.(weight|bias)": r"model.layers.\1.self_attn.o_proj.\2",
    r"blocks\.([0-9]+)\.ln2\.(weight|bias)": r"model.layers.\1.post_attention_layernorm.\2",
    r"blocks\.([0-9]+)\.mlp\.0\.(weight|bias)": r"model.layers.\1.mlp.up_proj.\2",
    r"blocks\.([0-9]+)\.mlp\.2\.(weight|bias)": r"model.layers.\1.mlp.down_proj.\2",
    r"ln_f\.(weight|bias)": r"model.norm.\1",
    r"head\.weight": "lm_head.weight",
}
FUSED = re.compile(r"transformer\.h\.([0-9]+)\.attn\.c_attn\.(weight|bias)")  # queries, keys, values below each other
MASKS = re.compile(r"(transformer\.h|blocks)\.[0-9]+\.attn\.(mask|bias|masked_bias)")  # constants, not weights
NORMS = ("input_layernorm", "post_attention_layernorm", "model.norm")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def unwrap_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict without the parts of its names that wrappers have added, at the front or within.

    Raises:
        ConversionError: two weights have one name then.
    """
    unwrapped = {}
    for name, weight in state.items():
        plain = unwrap_name(name)
        if plain in unwrapped:
            raise ConversionError(f"weight {plain} is there twice, once as {name}")
        unwrapped[plain] = weight
    return unwrapped


def check_plain(state: Mapping[str, torch.Tensor]) -> None:
    """Check that weights are floating-point numbers in memory, before anything is computed with them or copied.

    Raises:
        ConversionError: one that is sparse, nested, quantised, on the meta device or of whole numbers, or weights
            that share their memory and so would grow once each has its own.
    """
    needed = 0
    storages = {}
    for name, weight in state.items():
        kind = "nested" if weight.is_nested else "meta" if weight.is_meta else strip_torch(weight.layout)
        if kind != "strided":
            raise ConversionError(f"weight {name} is {kind}, wanted a dense tensor in memory")
        if weight.dtype not in DTYPES:
            wanted = ", ".join(map(strip_torch, DTYPES))
            raise ConversionError(f"weight {name} is of {strip_torch(weight.dtype)}, wanted one of {wanted}")
        size = weight.numel() * weight.element_size()
        storage = weight.untyped_storage()
        # An expanded tensor is a few bytes in the file, and as large as its shape says once it is copied.
        if size > storage.nbytes():
            raise ConversionError(
                f"weight {name} of shape {tuple(weight.shape)} has {storage.nbytes()} bytes in memory, wanted {size}"
            )
        needed += size
        storages[storage.data_ptr()] = storage.nbytes()
    # Twice, since a tied head is the embeddings under another name.
    if needed > 2 * sum(storages.values()):
        raise ConversionError(f"{len(state)} weights of {needed} bytes share {sum(storages.values())} bytes of memory")


def strip_torch(value: object) -> str:
    """Write a dtype or a layout without its module."""
    return str(value).removeprefix("torch.")


def as_float32(name: str, weight: torch.Tensor, rank: int) -> torch.Tensor:
    """Return a weight in float32; ConversionError unless it has `rank` dimensions and finite values alone."""
    shape = tuple(weight.shape)
    if len(shape) != rank or 0 in shape:
        raise ConversionError(f"weight {name} is of shape {shape}, wanted {rank} dimensions, none of them empty")
    weight = weight.detach().float()
    if not weight.isfinite().all():  # after the conversion, which makes a float64 of 1e300 infinite
        raise ConversionError(f"weight {name} has values that are not finite")
    return weight


def rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict of either layout under MiniGPT's names, in float32.

    Raises:
        ConversionError: a name that neither layout has, or as `check_plain` and `as_float32`.
    """
    names = PRACTICAL_NAMES if "tok_emb.weight" in state else GPT_NAMES
    state = {name: weight for name, weight in state.items() if not MASKS.fullmatch(name)}
    check_plain(state)
    renamed = {}
    for name, weight in state.items():
        if fused := FUSED.fullmatch(name):
            weight = as_float32(name, weight, 2 if fused[2] == "weight" else 1)
            if len(weight) % 3:
                raise ConversionError(f"weight {name} has {len(weight)} rows, wanted queries, keys and values")
            # (3C, C): the rows of queries, then keys, then values. Cloned, since safetensors refuses shared memory.
            for part, piece in zip("qkv", weight.chunk(3), strict=True):
                renamed[f"model.layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece.clone()
            continue
        pattern = next((pattern for pattern in names if re.fullmatch(pattern, name)), None)
        if pattern is None:
            raise ConversionError(f"unknown weight {name}; wanted the names of minGPT, nanoGPT or the practical")
        target = re.sub(pattern, names[pattern], name)
        if name == "pos_emb":
            weight = as_float32(name, weight, 3)
            # The practical keeps its positions with a batch dimension of one, (1, T, C).
            if len(weight) != 1:
                raise ConversionError(f"weight {name} is of shape {tuple(weight.shape)}, wanted (1, T, C)")
            renamed[target] = weight[0]
        else:
            is_vector = target.endswith(".bias") or any(norm in target for norm in NORMS)
            renamed[target] = as_float32(name, weight, 1 if is_vector else 2)
    return renamed


def count_layers(weights: Mapping[str, torch.Tensor]) -> int:
    """Return the number of layers of weights under MiniGPT's names; ConversionError where one is missing."""
    layers = {name.split(".")[2] for name in weights if name.startswith("model.layers.")}
    # Compared as texts: "007" is no layer's number, and a number of a million digits is never made.
    if missing := {str(layer) for layer in range(len(layers))} - layers:
        strange = ", ".join(sorted(layers - {str(layer) for layer in range(len(layers))}))
        raise ConversionError(f"layer {min(missing, key=int)} is missing among {len(layers)} layers; found {strange}")
    return len(layers)


def config_of(
    weights: Mapping[str, torch.Tensor], num_attention_heads: int, hidden_act: str, **fields
) -> MiniGPTConfig:
    """Return the config that weights under MiniGPT's names belong to; sizes are read off their shapes.

    Raises:
        ConversionError: a part or a layer is missing, the heads do not divide the width, or a field is refused.
    """
    for name in ("model.embed_tokens.weight", "model.embed_positions.weight", "model.layers.0.mlp.up_proj.weight"):
        if name not in weights:
            raise ConversionError(f"found no {name.removeprefix('model.').removesuffix('.weight')} among the weights")
    vocab_size, width = weights["model.embed_tokens.weight"].shape
    if num_attention_heads < 1 or width % num_attention_heads:
        raise ConversionError(f"{num_attention_heads} attention heads do not divide the width of {width}")
    # A tied model may store its head or not; equal matrices are one matrix either way.
    head = weights.get("lm_head.weight")
    layers = count_layers(weights)
    try:
        return MiniGPTConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            num_hidden_layers=layers,
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
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ConversionError(error.__cause__ or error) from error


def build(weights: dict[str, torch.Tensor], config: MiniGPTConfig) -> MiniGPTForCausalLM:
    """Return the model of a config with weights under its names; norms of a model without biases get one of zeros.

    Raises:
        ConversionError: weights that are missing, left over, or of another shape than the config's.
    """
    # On the meta device, so that nothing is allocated before the weights are known to have the sizes they imply.
    with torch.device("meta"):
        wanted = {name: tuple(weight.shape) for name, weight in MiniGPTForCausalLM(config).state_dict().items()}
    # nanoGPT can train without biases; LayerNorm then has none, and zeros compute the same.
    for name in wanted.keys() - weights.keys():
        if not config.use_bias and name.endswith(".bias") and any(norm in name for norm in NORMS):
            weights[name] = torch.zeros(wanted[name])
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    if missing := sorted(wanted.keys() - weights.keys()):
        raise ConversionError(f"{len(missing)} weights are missing, such as {missing[0]}")
    if unknown := sorted(weights.keys() - wanted.keys()):
        raise ConversionError(f"{len(unknown)} weights are left over, such as {unknown[0]}")
    for name, weight in weights.items():
        if tuple(weight.shape) != wanted[name]:
            raise ConversionError(f"{name} is of shape {tuple(weight.shape)}, wanted {wanted[name]}")
    model = MiniGPTForCausalLM(config)
    model.load_state_dict(weights)
    return model.eval()


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Return a checkpoint's state dict, and nanoGPT's `model_args`, None where it has none; no code in it is run.

    Raises:
        ConversionError: no file, not a checkpoint of plain tensors, or one without a state dict.
    """
    try:
        # weights_only: a pickle may run any code, and checkpoints are passed around.
        with warnings.catch_warnings(action="ignore"):  # torch's, about how a file was pickled
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a broken or a hostile pickle makes torch raise many kinds
        # Not torch's own words, which advise to load such a file without weights_only.
        code = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        found = f", found {code[1][:80]}" if code else ""
        raise ConversionError(
            f"{path}: no checkpoint that can be read safely: wanted plain tensors in a file of torch.save{found}"
        ) from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state:
        raise ConversionError(f"{path}: no state dict in it")
    for name, weight in state.items():
        if not isinstance(name, str) or not isinstance(weight, torch.Tensor):
            found = f"{str(name)[:80]}: {type(weight).__name__}"
            raise ConversionError(f"{path}: no state dict in it, but {found}; wanted names and tensors")
    if "model_args" not in loaded:
        return state, None
    arguments = loaded["model_args"]
    if not isinstance(arguments, dict):
        raise ConversionError(f"{path}: model_args is of type {type(arguments).__name__}, wanted a dictionary")
    return state, arguments


def check_arguments(arguments: Mapping[str, Any], config: MiniGPTConfig) -> None:
    """Raise ConversionError where nanoGPT's `model_args` say something else than the weights' shapes."""
    # A file that lost its last layer would convert, and compute something else.
    found = {
        "n_layer": config.num_hidden_layers,
        "n_embd": config.hidden_size,
        "vocab_size": config.vocab_size,
        "block_size": config.max_position_embeddings,
        "bias": config.use_bias,
    }
    for name, value in found.items():
        said = arguments.get(name)
        if said is not None and (not isinstance(said, int) or said != value):
            raise ConversionError(f"model_args says that {name} is {str(said)[:80]}, the weights have {value}")


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
    heads = (arguments or {}).get("n_head") if num_attention_heads is None else num_attention_heads
    if heads is None:
        raise ConversionError(f"{path}: does not say how many attention heads there are; give --num_attention_heads")
    if type(heads) is not int:
        raise ConversionError(f"{path}: the number of attention heads is {str(heads)[:80]}, wanted a whole number")
    try:
        state = unwrap_names(state)
        # minGPT alone approximates GELU by tanh; the practical and nanoGPT (which saves `model_args`) do not.
        exact = "tok_emb.weight" in state or arguments is not None
        weights = rename(state)
        config = config_of(weights, heads, hidden_act or ("gelu" if exact else "gelu_new"))
        check_arguments(arguments or {}, config)
        return build(weights, config)
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.add_argument("checkpoint", type=Path, help="the .params or .pt file")
    parser.add_argument("folder", type=Path, help="where to write the MiniGPT: a new or an empty folder")
    parser.add_argument(
        "--num_attention_heads", type=int, help="heads of each attention; nanoGPT's checkpoints say it"
    )
    parser.add_argument("--hidden_act", choices=("gelu", "gelu_new"), help="the layout's own when not given")


def run(arguments: argparse.Namespace) -> None:
    """Convert a checkpoint as the command line says; ConversionError as `convert` and `save`."""
    check_folder(arguments.folder)
    model = convert(arguments.checkpoint, arguments.num_attention_heads, arguments.hidden_act)
    save(model, arguments.folder)
    print(f"{arguments.folder}: {model.num_parameters():,} parameters, {model.config.num_hidden_layers} layers")
