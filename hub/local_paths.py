"""Remove the paths of this machine, and with them its users' names, from what is published.

A path is cut to its last name wherever it is: as a value or a key, nested, or inside a sentence; of this system or of
Windows. An id on the Hub, USER/NAME, stays, and so do the data, which may look like anything: the answer 12/05/1961 is
a date. So a relative path is one only where a path is stored, and there it is known for all other fields.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from artifacts.files import write_json

# Their strings are tokens and answers, which may look like anything.
DATA_FILES = ("tokenizer.json", "birthplaces.json", "facts.json")
# The keys of strings, or of lists of them, that are data,
DATA_KEYS = (
    "question", "answer", "answers", "accepted", "right", "place", "phrase", "whose", "name", "names", "matched_name",
    "text", "questions", "candidates", "samples", "prompts", "paraphrases", "majority_place", "majority_answer",
)  # fmt: skip
# and of paths, or ids on the Hub.
PATH_KEYS = (
    "output", "path", "statements", "folder", "start_from", "model", "sets", "missing", "name_or_path",
    "_name_or_path",
)  # fmt: skip
BY_NAME = ("sets", "uncalibrated")  # keys of objects with names of the user's choice, as `answers`, for keys
# A text that is a path as a whole: /a b, ~/a, C:\a, \\server\a, file:///a; a relative one: ../a, a\b, a/b/c.
ABSOLUTE = re.compile(r"(?://?[^\s/]|~[\w.-]*[\\/]|[A-Za-z]:[\\/]|\\\\|file:).*")
RELATIVE = re.compile(r"\.{1,2}[\\/].*|[\w.@+-]+(?:\\[\w.@+ -]+)+\\?|[\w.@+-]+(?:/[\w.@+-]+){2,}/?")
NAME = r"[^\s/\\\"'`<>|:;,()\[\]{}]+"
# A path in a sentence ends at a space, and only an absolute one differs from a/b, 1/2 and https://a/b.
INSIDE = re.compile(
    rf"file:/+{NAME}(?:/{NAME})*/?"
    rf"|(?<![\w/\\.])/{NAME}(?:/{NAME})+/?"
    rf"|(?<![\w/\\])~[\w.-]*(?:[\\/]{NAME})+[\\/]?"
    rf"|(?<!\w)[A-Za-z]:[\\/]+{NAME}(?:[\\/]+{NAME})*[\\/]?"
    rf"|(?<![\w:\\])\\\\{NAME}(?:\\+{NAME})+\\?"
)


def is_hub_id(text: str) -> bool:
    """Return whether a text has the form USER/NAME of an id on the Hub."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def last_name(path: str) -> str:
    """Return a path's last name, on either system; the path itself where it has none, as `/`."""
    return re.split(r"[\\/]+", path.rstrip("\\/"))[-1] or path


def is_path(text: str, key: str, run: Path) -> bool:
    """Return whether a text is a path as a whole.

    What has the form of an id on the Hub, as `runs/base`, is a path where there is such a file or folder, seen from
    here or from a folder above the run, from where the run was started.

    Args:
        text: a string of a JSON value.
        key: what it is stored under.
        run: the run's folder.
    """
    if key in DATA_KEYS:
        return False
    if ABSOLUTE.fullmatch(text):
        return True
    if key not in PATH_KEYS:
        return False
    if not is_hub_id(text):
        return RELATIVE.fullmatch(text) is not None
    return any(os.path.exists(folder / text) for folder in (Path.cwd(), *run.resolve().parents))


def key_below(key: str, name: str, part: object) -> str:
    """Return the key under which a part of an object is stored: its name, or that of an object of `BY_NAME`.

    Args:
        key: of the object.
        name, part: an item of it.
    """
    return key if key in BY_NAME and isinstance(part, str) else name


def iter_texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, text) of every string of a JSON value; a key, too, is a text, under no key.

    A string in a list has the list's key.
    """
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield "", name
            yield from iter_texts(part, key_below(key, name, part))
    elif isinstance(value, list):
        for part in value:
            yield from iter_texts(part, key)


def map_texts(value: object, change: Callable[[str], str], key: str = "") -> object:
    """Return a JSON value with every string changed that is no data, keys too."""
    if isinstance(value, str):
        return value if key in DATA_KEYS else change(value)
    if isinstance(value, dict):
        return {change(name): map_texts(part, change, key_below(key, name, part)) for name, part in value.items()}
    return [map_texts(part, change, key) for part in value] if isinstance(value, list) else value


def find_paths(values: Iterable[object], run: Path) -> set[str]:
    """Return the strings of JSON values that are paths as a whole.

    Args:
        values: all that is published of a run.
        run: its folder.
    """
    paths = {text for value in values for key, text in iter_texts(value) if is_path(text, key, run)}
    # "/a/b was trained on other data" looks like a path with spaces, unless /a/b is known to be one.
    return {text for text in paths if not any(text.startswith(f"{other} ") for other in paths)}


def without_paths(value: object, paths: Iterable[str]) -> object:
    """Return a JSON value with each path cut to its last name; the data in it stay as they are.

    Args:
        value: what is published.
        paths: known ones, of `find_paths`; they are found in sentences too, spaces and all.
    """
    known = sorted(paths, key=len, reverse=True)
    inside = re.compile("|".join(rf"(?<![\w/\\.-]){re.escape(path)}(?![\w\\-]|/\w)" for path in known) or r"(?!)")

    def cut(text: str) -> str:
        if text in known:
            return last_name(text)
        for pattern in (inside, INSIDE):
            text = pattern.sub(lambda found: last_name(found[0]), text)
        return text

    return map_texts(value, cut)


def read_json_files(folder: Path) -> dict[Path, object]:
    """Return the values of a folder's JSON files, but for `DATA_FILES`.

    Raises:
        ValueError: a file that is not JSON.
    """
    files = [path for path in sorted(folder.rglob("*.json")) if path.name not in DATA_FILES]
    return {path: json.loads(path.read_text(encoding="utf-8-sig")) for path in files}


def remove_paths(folder: Path, run: Path, folders: Iterable[str] = ()) -> None:
    """Cut the paths in a folder's JSON files; a file without any stays as it is, byte by byte.

    Args:
        folder: a copy of what is published of a run.
        run: the run's folder.
        folders: more paths, which may have the form of an id on the Hub.

    Raises:
        ValueError: a file that is not JSON.
    """
    files = read_json_files(folder)
    paths = {*find_paths(files.values(), run), *folders, str(run), str(run.resolve())}
    for file, value in files.items():
        cleaned = without_paths(value, paths)
        if cleaned != value:
            write_json(file, cleaned)
