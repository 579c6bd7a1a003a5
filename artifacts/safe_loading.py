"""What a model's folder may name and contain: files of its own, and no more than its weights account for.

The libraries follow what the JSON files say. Here no code is run that they name and nothing outside the folder is
read, so a folder that asks for either is refused, with the file, the key and the value.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open

from artifacts.run_folder import RunError, read_json
from configuration.model_size import check_fits, count_parameters
from modeling_minigpt import MiniGPTConfig

OWN_CODE = re.compile(r"\w+\.\w+")  # `module.Class`, a file of the folder; `repository--module.Class` is elsewhere
CODE_KEYS = ("auto_map", "impl", "custom_generate")
# A kernel from another repository has a "/" in its name.
KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation")
NESTED_NAMES = ("auto_map", "weight_map")  # keys of which every value below, whatever its own key, is a name
DTYPES = ("float32", "bfloat16", "float16", "float64")
FILE_KEYS = ("transformers_weights", "weight_map", "base_model_name_or_path")


@contextmanager
def as_run_error(prefix: str) -> Iterator[None]:
    """Raise whatever the libraries raise for a broken file, a panic of their Rust parts too, as a RunError."""
    try:
        yield
    except RunError:
        raise
    except BaseException as error:
        # A panic derives from BaseException, as Ctrl-C does, which must pass.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RunError(f"{prefix}: {str(error)[:300] or type(error).__name__}") from error


def iter_strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, text) of every string in a JSON value.

    A string in a list has the list's key. So has one below `auto_map`, `weight_map` or a key of files:
    {"auto_map": {"AutoModel": "a.B"}} yields ("auto_map", "a.B").
    """
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from iter_strings(part, key if key in NESTED_NAMES or is_file_key(key) else name)
    elif isinstance(value, list):
        for part in value:
            yield from iter_strings(part, key)


def is_file_key(key: str) -> bool:
    """Return whether a key's value names files."""
    return key in FILE_KEYS or key.endswith(("_file", "_files"))


def real_path(path: str | Path) -> Path:
    """Follow all links of a path; unlike `Path.resolve`, a link that leads to itself is no error."""
    return Path(os.path.realpath(path))


def is_inside(folder: Path, name: str) -> bool:
    """Return whether a name, followed through links, is a file of the folder, whether it exists or not."""
    # An address, a home folder or a Windows path means something else to some library than to this check.
    if not name or "\0" in name or "\\" in name or "://" in name or name.startswith("~"):
        return False
    return real_path(folder / name).is_relative_to(real_path(folder))


def check_contained(path: str | Path) -> None:
    """Check that a folder has no links out of it, and no JSON that names code or files outside of it.

    An id on the Hub is left to the Hub's library, which does not leave the repository's folder.

    Raises:
        RunError: with the file, the key and the value.
    """
    folder = Path(path)
    if not os.path.isdir(folder):  # also False, where Path.is_dir may raise, for a NUL or a name that is too long
        return
    cached = folder.parent.name == "snapshots"  # the Hub's cache, where a snapshot links to its repository's blobs
    root = real_path(folder.parent.parent if cached else folder)
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not real_path(file).is_relative_to(root):
            raise RunError(f"{file}: links to {real_path(file)}, which is outside the folder")
        if file.suffix == ".json" and file.is_file():
            check_names(file)


def check_names(file: Path) -> None:
    """Check that a JSON file names neither code nor files outside its folder; RunError as `check_contained`."""
    values = read_json(file)
    with as_run_error(f"{file}: not JSON"):  # nested too deeply
        strings = list(iter_strings(values))
    for key, value in strings:
        if key in CODE_KEYS and not OWN_CODE.fullmatch(value):
            raise RunError(f"{file}: {key} names {value!r}, which is not a module of the folder")
        if key in KERNEL_KEYS and "/" in value:
            raise RunError(f"{file}: {key} names {value!r}, which is code of another repository")
        if is_file_key(key) and not is_inside(file.parent, value):
            raise RunError(f"{file}: {key} names {value!r}, which is not a file of the folder")


def read_config(path: str | Path) -> MiniGPTConfig:
    """Read the config of a MiniGPT's folder or repository, its own fields alone.

    The library takes any other key for a setting of its own, which could turn the model into something else.

    Raises:
        RunError: another model is there; else whatever the libraries raise.
    """
    values, _ = MiniGPTConfig.get_config_dict(path)
    if "model_type" not in values:
        raise ValueError("there is no config.json, or it has no model_type")
    if values.get("model_type") != MiniGPTConfig.model_type:
        raise RunError(f"{path}: its model_type is {values.get('model_type')!r}, not {MiniGPTConfig.model_type!r}")
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
    """Check that a config does not describe a model far larger than the folder's weights, or than the memory.

    The libraries would allocate all of it before they compare a single weight.

    Raises:
        ValueError: it does; the message gives both sizes, in weights.
    """
    check_fits(config)
    files = sorted(Path(path).glob("*.safetensors")) if os.path.isdir(path) else []
    if not files:
        return
    shapes = []
    for file in files:
        with safe_open(file, "pt") as weights:  # reads the header, not the weights
            shapes += [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118 (no mapping)
    stored = sum(math.prod(shape) for shape in shapes)
    described = count_parameters(config)
    # Twice, since the count is an estimate; the layers too, since many tiny ones would pass the first comparison.
    if described > 2 * stored or config.num_hidden_layers > len(shapes):
        raise ValueError(
            f"config.json describes {config.num_hidden_layers} layers and about {described:,} weights, but "
            f"{len(shapes)} tensors with {stored:,} weights are there"
        )
