"""Where a model's weights came from, and the one reader of the files beside them: places, calibration, records, code.

The files of a model belong together. Read by name again, `USER/NAME` may be another commit, need a token that only the
first call was given, or lie in another cache; a relative folder changes with the working directory. So
`from_pretrained` remembers its source on the model, and everything beside the weights is read from there.
"""

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

PIPELINE_CODE = "pipeline_minigpt.py"
RELATIVE_IMPORT = re.compile(r"^from \.(\w+) import", re.MULTILINE)


class SourceError(OSError):
    """A file beside the weights that cannot be read, though it may be there; the message is one line."""


def name_below(subfolder: str, file: str) -> str:
    """Return a file's name in its repository."""
    return f"{subfolder}/{file}" if subfolder else file


@dataclass(frozen=True)
class WeightsSource:
    """A folder, or a commit of a repository on the Hub.

    Attributes:
        name_or_path: an absolute folder, or USER/NAME.
        revision: the commit, or what was asked for where the commit is not known.
        subfolder: of the folder or the repository.
        token: what reached a private repository; never shown, copied or saved.
        cache_dir: the Hub cache that was used, None for the default one.
        local_files_only: whether only the cache may be asked.
    """

    name_or_path: str
    revision: str | None = None
    subfolder: str = ""
    token: str | bool | None = field(default=None, repr=False, compare=False)
    cache_dir: str | None = None
    local_files_only: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "token": None}  # a pickled model is passed around

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __deepcopy__(self, memo: dict) -> "WeightsSource":
        return self  # nothing in it changes

    @property
    def short_name(self) -> str:
        """USER/NAME, or the end of a folder's path, which says nothing of the machine that it is on."""
        return Path(self.name_or_path).name if os.path.isabs(self.name_or_path) else self.name_or_path

    @classmethod
    def from_arguments(cls, name_or_path: str | os.PathLike, arguments: dict[str, Any]) -> "WeightsSource":
        """Describe the source of `from_pretrained(name_or_path, **arguments)`, once that has loaded the config."""
        name = os.fspath(name_or_path)
        settings = {key: arguments[key] for key in ("token", "cache_dir") if arguments.get(key) is not None}
        subfolder = arguments.get("subfolder") or ""
        if os.path.isdir(name):
            return cls(os.path.abspath(name), subfolder=subfolder)
        revision = arguments.get("revision")
        # A branch may have moved by the time that a file beside the weights is read, so the commit is looked up in the
        # cache, where the library has just put the config. Newer libraries pass the commit along with the branch.
        commit = getattr(revision, "resolved", None)
        if commit is None:
            config = try_to_load_from_cache(
                name, name_below(subfolder, "config.json"), settings.get("cache_dir"), revision
            )
            parts = Path(config).parts if isinstance(config, str) else ()
            commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else revision
        offline = bool(arguments.get("local_files_only"))
        return cls(name, commit, subfolder, local_files_only=offline, **settings)

    def read(self, file: str) -> str | None:
        """Return a text file's contents; None where the folder or the commit has no such file.

        Raises:
            SourceError: it cannot be known whether there is one (no network, no access, not in the cache), or it
                cannot be read.
        """
        path = self.find(file)
        try:
            # utf-8-sig: a person may have edited it, and editors on Windows write a byte-order mark.
            return None if path is None else path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error

    def read_parsed(self, file: str, parse: Callable[[str], Any]) -> Any:
        """Return what `parse` makes of a text file; None and SourceError as `read`.

        Raises:
            ValueError: `parse` cannot read it.
        """
        text = self.read(file)
        if text is None:
            return None
        try:
            return parse(text)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{self.name_or_path}: {file} is not what it should be: {error!r}") from error

    def is_cached(self, file: str) -> bool:
        """Return whether a file on the Hub has been downloaded."""
        if os.path.isabs(self.name_or_path):
            return False
        name = name_below(self.subfolder, file)
        return isinstance(try_to_load_from_cache(self.name_or_path, name, self.cache_dir, self.revision), str)

    def find(self, file: str) -> Path | None:
        """Return the path of a file, downloaded where it is on the Hub; None and SourceError as `read`."""
        if os.path.isabs(self.name_or_path):
            path = Path(self.name_or_path, self.subfolder, file)
            return path if os.path.lexists(path) else None
        known = try_to_load_from_cache(
            self.name_or_path, name_below(self.subfolder, file), self.cache_dir, self.revision
        )
        if isinstance(known, str):
            return Path(known)
        if known is not None:  # an earlier download has found that it is not there
            return None
        try:
            return Path(
                hf_hub_download(
                    self.name_or_path,
                    file,
                    subfolder=self.subfolder or None,
                    revision=self.revision,
                    token=self.token,
                    cache_dir=self.cache_dir,
                    local_files_only=self.local_files_only,
                )
            )
        except Exception as error:  # the client's own errors, and those of the network below it
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                return None
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            # Not taken for a missing file: a model without its calibration would answer about strangers.
            raise SourceError(f"{self.name_or_path}: {file} cannot be read: {reason}") from error


def find_pipeline_code(source: WeightsSource | None) -> dict[str, str]:
    """Return the pipeline's files, {name: text}: beside this one, else from the model's source; empty if one lacks.

    Code that the library copies from a model's folder comes without the pipeline's, which no model imports.
    """
    found: dict[str, str] = {}
    wanted = [PIPELINE_CODE]
    while wanted:
        name = wanted.pop()
        beside = Path(__file__).with_name(name)
        text = beside.read_text(encoding="utf-8") if beside.is_file() else source.read(name) if source else None
        if text is None:
            return {}
        found[name] = text
        wanted += [f"{module}.py" for module in RELATIVE_IMPORT.findall(text) if f"{module}.py" not in found]
    return found


def reset_modes(folder: str | os.PathLike, like: str = "config.json") -> None:
    """Give the weights in a folder the mode of another file there, which is that of any new file.

    safetensors writes into a temporary file, which only its owner may read, and renames it.
    """
    mode = stat.S_IMODE(Path(folder, like).stat().st_mode)
    for weights in Path(folder).glob("*.safetensors"):
        with suppress(OSError):  # a file system without modes
            weights.chmod(mode)
