"""Remove the paths of this machine, and with them its users' names, from what is published.

A path is cut to its last name wherever it is: as a value or a key, nested, or inside a sentence; of this system or of
Windows. An id on the Hub, USER/NAME, stays.
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
# A text that is a path as a whole: /a b, ~/a, ../a, C:\a, \\server\a, file:///a; a relative one: a\b, a/b/c.
WHOLE = re.compile(
    r"(?://?[^\s/]|~[\w.-]*[\\/]|\.{1,2}[\\/]|[A-Za-z]:[\\/]|\\\\|file:).*"
    r"|[\w.@+-]+(?:\\[\w.@+ -]+)+\\?"
    r"|[\w.@+-]+(?:/[\w.@+-]+){2,}/?"
)
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


def is_path(text: str, run: Path) -> bool:
    """Return whether a text is a path as a whole.

    A folder `runs/base` has the form of an id on the Hub; it is one where such a folder is, seen from here or from a
    folder above the run, from where the run was started.
    """
    if not is_hub_id(text):
        return WHOLE.fullmatch(text) is not None
    return any(os.path.isdir(folder / text) for folder in (Path.cwd(), *run.resolve().parents))


def iter_texts(value: object) -> Iterator[str]:
    """Yield every string of a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from iter_texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from iter_texts(part)


def map_texts(value: object, change: Callable[[str], str]) -> object:
    """Return a JSON value with every string changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): map_texts(part, change) for key, part in value.items()}
    return [map_texts(part, change) for part in value] if isinstance(value, list) else value


def find_paths(values: Iterable[object], run: Path) -> set[str]:
    """Return the strings of JSON values that are paths as a whole.

    Args:
        values: all that is published of a run.
        run: its folder.
    """
    paths = {text for value in values for text in iter_texts(value) if is_path(text, run)}
    # "/a/b was trained on other data" looks like a path with spaces, unless /a/b is known to be one.
    return {text for text in paths if not any(text.startswith(f"{other} ") for other in paths)}


def without_paths(value: object, paths: Iterable[str]) -> object:
    """Return a JSON value with each path cut to its last name.

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
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in files}


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
