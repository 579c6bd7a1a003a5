"""Push a folder to the Hub as one commit, a model's or a data set's; whatever goes wrong is one line.

Nothing is half-published: a commit is there whole or not at all, and a push that was cut off can be repeated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from configuration.errors import UserError

REFUSALS = {401: "the token is missing, wrong or expired", 403: "the token may not write there"}
FROM_THE_START = {".gitattributes", "README.md"}  # what a repository may have before the first push
WRITTEN = ["*.json", "*.jsonl", "*.parquet", "*.png", "*.py", "*.safetensors"]  # replaced by a push, or removed


class PushError(UserError, RuntimeError):
    """What cannot be published; the message is one line for the user."""


def check_repo_id(repo_id: str) -> None:
    """Raise PushError unless `repo_id` is a name USER/NAME that the Hub takes."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(f"{repo_id!r} is no repository's name: {' '.join(str(error).split())[:200]}") from error
    if repo_id.count("/") != 1:
        raise PushError(f"{repo_id!r} is no repository's name; wanted USER/NAME")


@contextmanager
def one_line(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's client raises into PushError."""
    try:
        yield
    except (HfHubHTTPError, httpx.HTTPError, OSError, RuntimeError) as error:  # the last is an upload's, with a cause
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        text = " ".join(str(cause).split())[:200]
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            raise PushError(f"{repo_id}: {REFUSALS.get(status, text)} (status {status})") from error
        raise PushError(f"{repo_id}: the Hub cannot be reached: {text}") from error


def open_repository(repo_id: str, private: bool, marker: str, repo_type: str = "model") -> None:
    """Make a repository, or see that an existing one may be pushed to.

    Args:
        repo_id: USER/NAME.
        private: whether it is to be private.
        marker: a file that every earlier push of the kind has left there.
        repo_type: "model" or "dataset".

    Raises:
        PushError: no legal name; no token, or one that may not write there; the Hub cannot be reached; the repository
            exists and has other content, or is public though `private` is wanted.
    """
    check_repo_id(repo_id)
    if get_token() is None:
        raise PushError("no token; log in by `hf auth login` or set HF_TOKEN")
    with one_line(repo_id):
        api = HfApi()
        api.create_repo(repo_id, private=private, repo_type=repo_type, exist_ok=True)
        info = api.repo_info(repo_id, repo_type=repo_type)
        files = {sibling.rfilename for sibling in info.siblings or ()}
    if private and not info.private:
        raise PushError(f"{repo_id}: is there already and public; make it private on the Hub, or choose another name")
    if (others := sorted(files - FROM_THE_START)) and marker not in files:
        raise PushError(f"{repo_id}: exists already and has other content ({others[0]}); choose another name")


def push_folder(folder: Path, repo_id: str, message: str, repo_type: str = "model", branch: str | None = None) -> str:
    """Push a folder as one commit and remove what an earlier push had left beside it; return the commit's address.

    Args:
        folder: all that is to be there.
        repo_id: a repository that `open_repository` has seen.
        message: the commit's.
        repo_type: "model" or "dataset".
        branch: the branch, made where there is none; the default branch when None.

    Raises:
        PushError: the Hub refuses or cannot be reached.
    """
    with one_line(repo_id):
        api = HfApi()
        if branch is not None:
            api.create_branch(repo_id, branch=branch, repo_type=repo_type, exist_ok=True)
        # The library sends the card to the Hub's validation before anything is uploaded.
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message,
            repo_type=repo_type,
            revision=branch,
            delete_patterns=WRITTEN,
        ).commit_url
