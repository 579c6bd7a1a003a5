"""What a model's folder may name and hold: files of its own, and no more than its weights bear out.

The libraries follow what the JSON files say. Here no code is run that they name and nothing outside the folder is
read, so a folder that asks for it is refused, with the file, the key and the value.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open

from artifacts.run_folder import RunError, read_record
from configuration.model_size import check_fits, count_parameters
from modeling_minigpt import MiniGPTConfig

OWN_CODE = re.compile(r"\w+\.\w+")  # `module.Class`, a file beside the JSON; `repository--module.Class` is another's
CODE_KEYS = ("auto_map", "impl", "custom_generate")
# A kernel of another repository has a "/" in its name.
KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation")
DTYPES = ("float32", "bfloat16", "float16", "float64")
FILE_KEYS = ("transformers_weights", "weight_map", "base_model_name_or_path")


@contextmanager
def refused(prefix: str) -> Iterator[None]:
    """Raise whatever the libraries raise for a broken file, a panic of their Rust parts too, as a RunError."""
    try:
        yield
    except RunError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RunError(f"{prefix}: {str(error)[:300] or type(error).__name__}") from error


def parts_of(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, text) of every text in a JSON value; one in a list or under `auto_map` or `weight_map` has its."""
    if isinstance(value, str):
        yield key, value
    for name, part in value.items() if isinstance(value, dict) else ():
        yield from parts_of(part, key if key in ("auto_map", "weight_map") or is_file_key(key) else name)
    for part in value if isinstance(value, list) else ():
        yield from parts_of(part, key)


def is_file_key(key: str) -> bool:
    """Tell whether a key's value names files."""
    return key in FILE_KEYS or key.endswith(("_file", "_files"))


def is_inside(folder: Path, name: str) -> bool:
    """Tell whether a name, followed through links, is a file of the folder, there or not."""
    if not name or "\0" in name or "\\" in name or "://" in name or name.startswith("~"):
        return False
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(folder / name)]) == root


def check_contained(path: str | Path) -> None:
    """Raise RunError where a folder holds links out of it, or JSON that names code or files outside of it.

    An id on the Hub is left to the Hub's library, which keeps to the repository's folder.
    """
    folder = Path(path)
    if not os.path.isdir(folder):  # False for a NUL in the name and for one that is too long
        return
    cached = folder.parent.name == "snapshots"  # the Hub's cache, where a snapshot links to its repository's blobs
    root = os.path.realpath(folder.parent.parent if cached else folder)
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and os.path.commonpath([root, os.path.realpath(file)]) != root:
            raise RunError(f"{file}: links to {os.path.realpath(file)}, which is outside the folder")
        if file.suffix != ".json" or not file.is_file():
            continue
        values = read_record(file)
        with refused(f"{file}: not JSON"):  # nested too deeply
            found = list(parts_of(values))
        for key, value in found:
            if key in CODE_KEYS and not OWN_CODE.fullmatch(value):
                raise RunError(f"{file}: {key} names {value!r}, which is no module of the folder")
            if key in KERNEL_KEYS and "/" in value:
                raise RunError(f"{file}: {key} names {value!r}, which is code of another repository")
            if is_file_key(key) and not is_inside(folder, value):
                raise RunError(f"{file}: {key} names {value!r}, which is no file of the folder")


def read_config(path: str | Path) -> MiniGPTConfig:
    """Return the config of a MiniGPT's folder or repository, with its own fields alone.

    The library takes any other key for a setting of its own, which could turn the model into something else.

    Raises:
        RunError: another model is there; else whatever the libraries raise.
    """
    values, _ = MiniGPTConfig.get_config_dict(path)
    if "model_type" not in values:
        raise ValueError("there is no config.json, or it has no model_type")
    if values.get("model_type") != MiniGPTConfig.model_type:
        raise RunError(f"{path}: a {values.get('model_type')!r} model is there, no {MiniGPTConfig.model_type}")
    if values.get("dtype") not in (None, *DTYPES):
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, found {values['dtype']!r}")
    fields = (*MiniGPTConfig.__annotations__, "dtype")
    config = MiniGPTConfig(**{name: values[name] for name in fields if name in values})
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        ids = getattr(config, name)
        if not all(0 <= one < config.vocab_size for one in (ids if isinstance(ids, list) else [ids or 0])):
            raise ValueError(f"{name} must be in the vocabulary of {config.vocab_size}, found {ids}")
    return config


def check_size_matches_weights(path: str | Path, config: MiniGPTConfig) -> None:
    """Raise ValueError where a config describes a model that is far larger than the folder's weights, or the memory.

    The libraries would make all of it before they compare a single weight.
    """
    check_fits(config)
    files = sorted(Path(path).glob("*.safetensors")) if os.path.isdir(path) else []
    if not files:
        return
    there, tensors = 0, 0
    for file in files:
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                size = 1
                for length in weights.get_slice(name).get_shape():
                    size *= length
                there, tensors = there + size, tensors + 1
    described = count_parameters(config)
    if described > 2 * there or config.num_hidden_layers > tensors:
        raise ValueError(
            f"config.json describes {config.num_hidden_layers} layers and about {described:,} weights, but {tensors} "
            f"tensors with {there:,} weights are there"
        )
