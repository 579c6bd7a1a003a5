"""What measurements depend on besides a command's options: the files of a folder, and a model's weights.

A record has their digests among its settings, so that it is not continued with others.
"""

from collections.abc import Iterable
from pathlib import Path

from data_scripts.bios_folder import FILES, sha256_prefix
from data_scripts.prepare import digest_files


def folder_digests(folder: Path | None, keys: Iterable[str] = FILES) -> dict[str, str] | None:
    """Return the digests of a folder's divided files, all or some, by name; None without a folder."""
    if folder is None:
        return None
    return {name: digest[:16] for name, digest in digest_files(folder, keys).items()}


def weights_digest(model: str) -> str | None:
    """Return what the weights of a folder are known by; None for an id on the Hub."""
    files = sorted(one for pattern in ("*.safetensors", "*.bin") for one in Path(model).glob(pattern))
    return ", ".join(sha256_prefix(str(path)) for path in files) or None
