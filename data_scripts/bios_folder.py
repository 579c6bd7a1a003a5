"""Read a folder in the cs224n layout: four files of biographies and questions, checked line by line.

    wiki.txt                  one biography a line, `Title. Sentence .`
    birth_places_train.tsv    `Where was NAME born?<TAB>PLACE`
    birth_dev.tsv             the same, for scoring only
    birth_test_inputs.tsv     questions without answers

Files are UTF-8. A byte-order mark, Windows line ends and blank lines at the end are accepted; anything else that is
not in the layout raises a `DataError` which names the file, the line, what was found and what was wanted.
"""

import hashlib
import os
from pathlib import Path

from configuration.errors import UserError
from modeling_minigpt.questions_minigpt import BIRTHPLACE, QuestionTemplate, normalise

FILES = {
    "documents": "wiki.txt",
    "train": "birth_places_train.tsv",
    "validation": "birth_dev.tsv",
    "test": "birth_test_inputs.tsv",
}


class DataError(UserError, ValueError):
    """A data file that cannot be used; the message is one line for the user."""


def question_for(name: str, template: QuestionTemplate = BIRTHPLACE) -> str:
    """Return the question about a name, in the words of the data."""
    return template.format(name)


def extract_name(question: str, template: QuestionTemplate = BIRTHPLACE) -> str:
    """Return the name that a question is about; a question of another form is returned whole."""
    return template.extract_name(question) or question


def check_folder(folder: Path) -> None:
    """Raise DataError unless `folder` has all four files; reads none of them."""
    if not os.path.isdir(folder):  # unlike pathlib, False where the name is too long to be one
        raise DataError(f"{folder}: no such folder; wanted one with {', '.join(FILES.values())}")
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} not found; the folder must have {', '.join(FILES.values())}")


def read_bytes(path: str | Path) -> bytes:
    """Return a file's contents, or raise DataError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def sha256_prefix(path: str | Path) -> str:
    """Return a short digest of a file's contents; DataError where it cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()[:16]


def read_lines(path: str | Path) -> list[str]:
    """Return the file's lines without their ends, normalised as what is asked will be.

    Raises:
        DataError: the file is missing or unreadable, has bytes that are not UTF-8, a blank line or no line at all.
    """
    # Split as bytes and at \n alone: `str.splitlines` also breaks at characters that occur within a sentence.
    raw_lines = read_bytes(path).removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n").split(b"\n")
    lines = []
    for number, raw in enumerate(raw_lines, start=1):
        try:
            # Field by field: the tab between a question and its answer is no white space to be folded.
            line = "\t".join(map(normalise, raw.removesuffix(b"\r").decode("utf-8").split("\t")))
        except UnicodeDecodeError as error:
            found = raw[error.start : error.end].hex(" ")
            raise DataError(f"{path}:{number}: byte {error.start + 1} is {found}, wanted UTF-8 text") from error
        if not line.strip():
            wanted = "at least one line" if len(raw_lines) == 1 else "text"
            raise DataError(f"{path}:{number}: found an empty line, wanted {wanted}")
        lines.append(line)
    return lines


def read_pairs(path: str | Path) -> list[tuple[str, str]]:
    """Return (question, place) of every line.

    Raises:
        DataError: as `read_lines`, or a line that is not two non-empty fields with one tab between them.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 2:
            raise DataError(f"{path}:{number}: found {len(fields) - 1} tabs, wanted one: QUESTION<TAB>PLACE")
        for field, label in zip(fields, ("question", "place"), strict=True):
            if not field:
                raise DataError(f"{path}:{number}: the {label} is empty, wanted QUESTION<TAB>PLACE")
        pairs.append((fields[0], fields[1]))
    return pairs


def read_questions(path: str | Path) -> list[str]:
    """Return the questions of a file that has no answers.

    Raises:
        DataError: as `read_lines`, or a line with a tab.
    """
    questions = read_lines(path)
    for number, question in enumerate(questions, start=1):
        if "\t" in question:
            raise DataError(f"{path}:{number}: found a tab, wanted a question alone")
    return [question.strip() for question in questions]
