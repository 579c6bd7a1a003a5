"""Read a folder in the cs224n layout: four files of biographies and questions, checked line by line.

    wiki.txt                  one biography a line, `Title. Sentence .`
    birth_places_train.tsv    `Where was NAME born?<TAB>PLACE`
    birth_dev.tsv             the same, for scoring only
    birth_test_inputs.tsv     questions without answers

Files are UTF-8. A byte-order mark, the line ends of Windows and of old Macs, blank lines at the end, and the quotes
that spreadsheets put around fields are accepted; anything else that is not in the layout raises a `DataError` which
names the file, the line, what was found and what was wanted.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from configuration.errors import UserError
from data_scripts.titles import split_title
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
    """Raise DataError unless `folder` has all four files and its documents have titles; reads no dev or test file."""
    if not os.path.isdir(folder):  # unlike pathlib, False where the name is too long to be one
        raise DataError(f"{folder}: no such folder; wanted one with {', '.join(FILES.values())}")
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} not found; the folder must have {', '.join(FILES.values())}")
    questions = [question for question, _ in read_pairs(folder / FILES["train"])]
    check_titles(folder / FILES["documents"], [extract_name(question) for question in questions])


def check_titles(path: Path, names: Iterable[str]) -> None:
    """Raise DataError, with the line, where a document has no title.

    Args:
        path: the documents.
        names: of people asked for; a sentence that begins with one, who has no title anywhere, is not a title.
    """
    people = set(names)
    documents = read_lines(path)
    titles = [split_title(line, people)[0] for line in documents]
    titled = set(titles)
    untitled = {name for name in people if name.rstrip(".") not in titled}
    for number, (line, title) in enumerate(zip(documents, titles, strict=True), start=1):
        # In running text a sentence's full stop is after a space, " . ", and a title's does not.
        if not title.strip() or title.endswith(" ") or unquote(line) != line:
            raise DataError(f"{path}:{number}: found {line[:60]!r}, wanted `Title. Sentence .`")
        words = title.split(" ")
        for end in range(1, len(words) - 2) if untitled else ():
            # "Ada Stone was born in Rome. She …": three words more, and not those of a longer name.
            is_sentence = words[end][:1].islower() or (words[end].startswith("(") and not title.endswith(")"))
            if is_sentence and " ".join(words[:end]) in untitled:
                name = " ".join(words[:end])
                raise DataError(f"{path}:{number}: found {line[:60]!r}, wanted the title first, `{name}. Sentence .`")


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
        DataError: the file is missing or unreadable, has bytes that are not UTF-8, a line end of another kind within
            a line, a blank line or no line at all.
    """
    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    # Split as bytes and at one line end: `str.splitlines` also breaks at characters that occur within a sentence.
    line_end = b"\n" if b"\n" in content else b"\r"  # the latter in files of old Macs
    raw_lines = content.rstrip(b"\r\n").split(line_end)
    lines = []
    for number, raw in enumerate(raw_lines, start=1):
        try:
            line = raw.rstrip(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            found = raw[error.start : error.end].hex(" ")
            raise DataError(f"{path}:{number}: byte {error.start + 1} is {found}, wanted UTF-8 text") from error
        if "\r" in line:
            raise DataError(f"{path}:{number}: found a carriage return within the line, wanted line ends of one kind")
        # Field by field: the tab between a question and its answer is no white space to be folded.
        line = "\t".join(map(normalise, line.split("\t")))
        if not line.strip():
            wanted = "at least one line" if len(raw_lines) == 1 else "text"
            raise DataError(f"{path}:{number}: found an empty line, wanted {wanted}")
        lines.append(line)
    return lines


def unquote(field: str) -> str:
    """Return a field without the quotes around it that spreadsheets write, and with those within it single again."""
    inner = field[1:-1]
    is_quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"').strip() if is_quoted else field


def read_question(text: str, where: str, place: str = "") -> str:
    """Return a field's question in the words of the data: its case and its end are as people type them.

    Args:
        text: the field.
        where: file and line, for the message.
        place: the field beside it; a question there shows that the columns are swapped.

    Raises:
        DataError: it is not a question of the data's form about one name.
    """
    question = unquote(text.strip())
    name = BIRTHPLACE.match(question)
    if name is None:
        is_swapped = BIRTHPLACE.extract_name(place) is not None
        hint = "; the columns are swapped" if is_swapped else "; a header row?" if where.endswith(":1") else ""
        raise DataError(f"{where}: found {question[:60]!r}, wanted `{question_for('NAME')}`{hint}")
    return question_for(name)


def read_pairs(path: str | Path) -> list[tuple[str, str]]:
    """Return (question, place) of every line.

    Raises:
        DataError: as `read_lines` and `read_question`, or a line that is not two non-empty fields with one tab between
            them.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}:{number}"
        fields = [unquote(field.strip()) for field in line.split("\t")]
        if len(fields) != 2:
            raise DataError(f"{where}: found {len(fields) - 1} tabs, wanted one: QUESTION<TAB>PLACE")
        for field, label in zip(fields, ("question", "place"), strict=True):
            if not field:
                raise DataError(f"{where}: the {label} is empty, wanted QUESTION<TAB>PLACE")
        question = read_question(fields[0], where, fields[1])
        place = fields[1]
        if BIRTHPLACE.extract_name(place) is not None:
            raise DataError(f"{where}: found the question {place[:60]!r} in the place's column")
        if place.startswith('"') != place.endswith('"'):
            raise DataError(f"{where}: the place {place[:60]!r} has a quotation mark on one side")
        pairs.append((question, place))
    return pairs


def read_questions(path: str | Path) -> list[str]:
    """Return the questions of a file that has no answers.

    Raises:
        DataError: as `read_lines` and `read_question`, or a line with a tab.
    """
    questions = []
    for number, line in enumerate(read_lines(path), start=1):
        if "\t" in line:
            raise DataError(f"{path}:{number}: found a tab, wanted a question alone")
        questions.append(read_question(line, f"{path}:{number}"))
    return questions
