"""Push a folder to the Hub as one commit, a model's or a data set's; whatever goes wrong is one line.

Nothing is half-published: a commit is there whole or not at all, and a push that was cut off can be repeated. Each
push leaves the list of its files in the repository, `FILE_LIST`; the next one removes those files alone.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from artifacts.files import sha256, write_json
from configuration.errors import UserError, one_line

REFUSALS = {
    401: "the token is missing, wrong or expired",
    403: "the token may not write there",
    412: "it was changed during the push; push again",
    429: "too many requests; push again later",
}
CARD = "README.md"
FROM_THE_START = {".gitattributes", CARD}  # what a repository may have before the first push
FILE_LIST = "pushed_files.json"  # {name: SHA-256} of what a push wrote, itself excepted


class PushError(UserError, RuntimeError):
    """What cannot be published; the message is one line for the user."""


@contextmanager
def as_push_error(prefix: str) -> Iterator[None]:
    """Raise whatever is raised as a PushError, a panic of the libraries' Rust parts too; Ctrl-C passes.

    The Hub's client raises more than its own errors: ValueErrors for a card that is refused, a JSONDecodeError where a
    proxy answers instead of the Hub, a UnicodeEncodeError for a token, httpx's InvalidURL for an endpoint.
    """
    try:
        yield
    except PushError:
        raise
    except UserError as error:
        raise PushError(error) from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise PushError(f"{prefix}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """Say what an error means for a push."""
    # An upload's RuntimeError says which file failed; its cause says why.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    text = " ".join(str(cause).split())[:200] or type(cause).__name__
    if isinstance(cause, HfHubHTTPError):
        status = getattr(cause.response, "status_code", "unknown")
        return f"{REFUSALS.get(status, text)} (status {status})"
    if isinstance(cause, json.JSONDecodeError):
        return f"what answers at {constants.ENDPOINT} is not the Hub, or a proxy in front of it (not JSON: {text})"
    if isinstance(cause, (httpx.HTTPError, httpx.InvalidURL, ConnectionError, TimeoutError)):
        return f"the Hub cannot be reached: {text}"
    return text if isinstance(cause, (OSError, ValueError)) else f"{type(cause).__name__}: {text}"


def warn(message: str) -> None:
    """Print what was not published, or not as asked for, as one line on stderr."""
    print(f"warning: {one_line(message)}", file=sys.stderr)


def check_repo_id(repo_id: str) -> None:
    """Raise PushError unless `repo_id` is a name USER/NAME that the Hub takes."""
    refusal = f"{repo_id[:100]!r} is no repository's name"
    if repo_id.count("/") != 1 or not repo_id.isprintable():
        raise PushError(f"{refusal}; wanted USER/NAME")
    with as_push_error(refusal):
        validate_repo_id(repo_id)


def find_token() -> str:
    """Return the user's token; PushError where there is none, or one that no request could carry."""
    with as_push_error("the token cannot be read"):
        token = get_token()
    if token is None:
        raise PushError("no token; log in by `hf auth login` or set HF_TOKEN")
    # Refused here, since the HTTP client's message would show it.
    if not re.fullmatch(r"[!-~]+", token):
        raise PushError("the token has characters that no token has; log in again by `hf auth login` or set HF_TOKEN")
    return token


def open_repository(repo_id: str, private: bool | None, marker: str, repo_type: str = "model") -> None:
    """Make a repository, or see that an existing one may be pushed to.

    Args:
        repo_id: USER/NAME.
        private: whether it has to be private; if not, a new one is what its owner's settings say.
        marker: a file that every earlier push of the kind has left there.
        repo_type: "model" or "dataset".

    Raises:
        PushError: no legal name; no token, or one that may not write there; the Hub cannot be reached; the repository
            exists and has other content, or is public though `private` is wanted.
    """
    check_repo_id(repo_id)
    api = HfApi(token=find_token())
    with as_push_error(repo_id):
        # None, not False, unless it was asked for: False would make it public where an organisation's default is not.
        api.create_repo(repo_id, private=private or None, repo_type=repo_type, exist_ok=True)
        info = api.repo_info(repo_id, repo_type=repo_type)
        files = {sibling.rfilename for sibling in info.siblings or ()}
    if private and not info.private:
        raise PushError(f"{repo_id}: already exists and is public; make it private on the Hub, or choose another name")
    if (others := sorted(files - FROM_THE_START)) and not files & {marker, FILE_LIST}:
        raise PushError(f"{repo_id}: already exists and has other content ({others[0]}); choose another name")


def files_below(folder: Path) -> list[str]:
    """Return the names of all files below a folder, as a repository has them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_file_list(folder: Path) -> None:
    """List the files of a folder that is to be pushed, in the folder."""
    write_json(folder / FILE_LIST, {name: sha256(folder / name) for name in files_below(folder) if name != FILE_LIST})


@dataclass
class Head:
    """The head of a branch before a push, and what an earlier push has left there."""

    api: HfApi
    repo_id: str
    repo_type: str
    commit: str
    files: set[str]

    @classmethod
    def of(cls, api: HfApi, repo_id: str, repo_type: str, branch: str | None) -> "Head":
        """Ask the Hub for a branch's head, the default branch's when None."""
        info = api.repo_info(repo_id, repo_type=repo_type, revision=branch)
        return cls(api, repo_id, repo_type, info.sha, {sibling.rfilename for sibling in info.siblings or ()})

    def read(self, name: str) -> bytes:
        """Return a file's content: not through the library's cache, which may be unwritable."""
        prefix = constants.REPO_TYPES_URL_PREFIXES.get(self.repo_type, "")
        address = f"{self.api.endpoint}/{prefix}{self.repo_id}/resolve/{self.commit}/{quote(name)}"
        headers = build_hf_headers(token=self.api.token)
        response = get_session().get(address, headers=headers, follow_redirects=True)
        hf_raise_for_status(response)
        return response.content

    def file_list(self) -> dict[str, str]:
        """Return what the last push wrote and is still there; nothing where its list is missing or was broken."""
        try:
            values = json.loads(self.read(FILE_LIST)) if FILE_LIST in self.files else {}
        except ValueError:
            return {}
        return {name: values[name] for name in self.files & values.keys()} if isinstance(values, dict) else {}

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file's content; a large one is not downloaded for it."""
        found = self.api.get_paths_info(self.repo_id, [name], repo_type=self.repo_type, revision=self.commit)
        if found and found[0].lfs is not None:
            return found[0].lfs.sha256
        return hashlib.sha256(self.read(name)).hexdigest()


def push_folder(folder: Path, repo_id: str, message: str, repo_type: str = "model", branch: str | None = None) -> str:
    """Push a folder as one commit and remove what an earlier push had left beside it; return the commit's address.

    What the user has put there stays: files that no push wrote, those that were changed since, and a card (with a
    warning) that is not the last push's.

    Args:
        folder: all that is to be there; `FILE_LIST` is added.
        repo_id: a repository that `open_repository` has seen.
        message: the commit's.
        repo_type: "model" or "dataset".
        branch: the branch, made where there is none; the default branch when None.

    Raises:
        PushError: the Hub refuses or cannot be reached.
    """
    with as_push_error(repo_id):
        write_file_list(folder)
        names = files_below(folder)
        api = HfApi(token=find_token())
        if branch is not None:
            api.create_branch(repo_id, branch=branch, repo_type=repo_type, exist_ok=True)
        head = Head.of(api, repo_id, repo_type, branch)
        written = head.file_list()
        if CARD in names and CARD in head.files and head.digest(CARD) != written.get(CARD):
            names.remove(CARD)
            warn(f"{repo_id}: {CARD} is not the last push's and stays; to replace it, delete it there first")
        left = [name for name in sorted(written.keys() - {*names, CARD}) if head.digest(name) == written[name]]
        # Not `upload_folder`, which makes several commits of a large folder. It fails if the head moves meanwhile.
        return api.create_commit(
            repo_id=repo_id,
            operations=[
                *(CommitOperationDelete(path_in_repo=name) for name in left),
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names),
            ],
            commit_message=message,
            repo_type=repo_type,
            revision=branch,
            parent_commit=head.commit,
        ).commit_url
