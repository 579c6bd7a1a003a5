"""A data set on the Hub: its commit, its licence, the files of a split, and what is wrong where it cannot be read."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import httpx
from huggingface_hub import DatasetCard, HfApi, HfFileSystem, constants, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from configuration.data_schema import DataArguments
from configuration.recipe_names import nearest
from data_scripts.bios_folder import DataError

LOG_IN = "log in by `hf auth login` or set HF_TOKEN"
UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, ConnectionError, TimeoutError, LocalEntryNotFoundError)
READ_AHEAD = 1 << 20  # bytes


@contextmanager
def as_data_error(path: str) -> Iterator[None]:
    """Raise what the Hub's clients raise as a DataError that says what can be done about it."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise DataError(f"{path}: {describe(error)}") from error


def describe(error: Exception) -> str:
    """Say what an error means for whoever wants to read a data set."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return f"a gated data set: ask for access on its page on the Hub, and {LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        # The Hub does not say of what is private that it is there.
        hint = f"; if it is private, {LOG_IN}" if status == 401 or get_token() is None else ""
        return f"no such folder, and no such data set on the Hub{hint}"
    if status in (401, 403):
        return f"the Hub refuses it to this token (status {status}): {LOG_IN}"
    if isinstance(error, OfflineModeIsEnabled):
        return "the Hub is not asked in offline mode; unset HF_HUB_OFFLINE"
    if isinstance(error, HFValidationError):
        return "no such folder, and no id on the Hub, which has the form USER/NAME"
    if isinstance(error, json.JSONDecodeError):
        return f"what answers at {constants.ENDPOINT} is not the Hub (not JSON: {text})"
    if isinstance(error, HfHubHTTPError) and status is not None:
        return f"the Hub answers with status {status}: {text}"
    if isinstance(error, UNREACHABLE):
        return f"no such folder, and the Hub cannot be reached: {text}"
    return text


@dataclass
class HubFiles:
    """The files of one split of a data set on the Hub, at one commit.

    Attributes:
        path: USER/NAME.
        commit: its id.
        license: as the data set's card has it, None where that says nothing.
        files: their paths in the repository, in order.
    """

    path: str
    commit: str
    license: str | None
    files: list[str]

    def where(self, number: int) -> str:
        """Return a file's name for messages."""
        return f"{self.path}/{self.files[number]}"

    def open(self, number: int) -> BinaryIO:
        """Open a file of the commit; it is read in pieces, as they are needed."""
        name = f"datasets/{self.path}@{self.commit}/{self.files[number]}"
        # A file system that is cached would remember the token and the address of whoever asked first.
        files = HfFileSystem(skip_instance_cache=True)
        return io.BufferedReader(files.open(name, "rb"), READ_AHEAD)


def find_hub_files(data: DataArguments) -> HubFiles:
    """Return the files that a recipe's `path`, `config`, `split` and `revision` mean.

    Raises:
        DataError: there is no such data set, revision, configuration or split; the token may not read it; the Hub
            cannot be reached.
    """
    path = str(data.path)
    with as_data_error(path):
        commit = find_commit(path, data.revision)
        return HubFiles(path, commit, read_license(path, commit), list_files(path, commit, data.config, data.split))


def find_commit(path: str, revision: str | None) -> str:
    """Return the commit that a branch, a tag or a commit means; DataError, with those there, where it is none."""
    api = HfApi()
    try:
        return str(api.dataset_info(path, revision=revision).sha)
    except RevisionNotFoundError as error:
        refs = api.list_repo_refs(path, repo_type="dataset")
        known = [ref.name for ref in (*refs.branches, *refs.tags)]
        raise DataError(f"{path}: no revision {revision}; {nearest(revision, known)}") from error


def read_license(path: str, commit: str) -> str | None:
    """Return the licence in a data set's card, several with commas between; None where there is none."""
    try:
        card = DatasetCard.load(hf_hub_download(path, constants.REPOCARD_NAME, repo_type="dataset", revision=commit))
    except EntryNotFoundError:
        return None
    name = card.data.get("license")
    return ", ".join(name) if isinstance(name, list) else name


def list_files(path: str, commit: str, config: str | None, split: str) -> list[str]:
    """Return the files of a split, sorted; DataError, with those there, for no such configuration or split."""
    from datasets import get_dataset_config_names, load_dataset_builder  # slow to import

    address = f"hf://datasets/{path}"  # else a folder of that name would win
    try:
        builder = load_dataset_builder(address, config, revision=commit)
    except ValueError as error:
        names = get_dataset_config_names(address, revision=commit)
        if config in names or (config is None and len(names) < 2):
            raise
        wanted = f"config {config}" if config else "configuration is chosen by data.config"
        raise DataError(f"{path}: no {wanted}; {nearest(config or '', names)}") from error
    splits = {str(name): files for name, files in (builder.config.data_files or {}).items()}
    if split not in splits:
        raise DataError(f"{path}: no split {split}; {nearest(split, splits)}")
    prefix = f"{address}@{commit}/"
    return sorted(file.removeprefix(prefix) for file in splits[split])
