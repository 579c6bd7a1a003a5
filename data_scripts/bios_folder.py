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
import re
from collections.abc import Iterable
from pathlib import Path

from configuration.errors import UserError
from modeling_minigpt.questions_minigpt import BIRTHPLACE, QuestionTemplate

FILES = {
    "documents": "wiki.txt",
    "train": "birth_places_train.tsv",
    "validation": "birth_dev.tsv",
    "test": "birth_test_inputs.tsv",
}
# The title ends at the first full stop that is not an initial's or an abbreviation's. In
# `James A. Smith. He was …` the first one follows an initial (a single letter), the second ends the title.
TITLE_END = re.compile(r"(?<! )(?<!\b[^\W\d_])(?<!\b[DJMS]r)(?<!\bSt)(?<!\bMrs)\. ")


class DataError(UserError, ValueError):
    """A data file that cannot be used; the message is one line for the user."""


def question_for(name: str, template: QuestionTemplate = BIRTHPLACE) -> str:
    """Return the question about a name, in the words of the data."""
    return template.format(name)


def extract_name(question: str, template: QuestionTemplate = BIRTHPLACE) -> str:
    """Return the name that a question is about; a question of another form is returned whole."""
    return template.extract_name(question) or question


def split_title(document: str) -> tuple[str, str]:
    """Split a biography into its title and its body; the title is empty where there is none."""
    end = TITLE_END.search(document)
    if end is None:  # only initials, as in "J. R. was a producer": then the first full stop is as good as any
        title, separator, body = document.partition(". ")
        return (title, body) if separator else ("", document)
    return document[: end.start()], document[end.end() :]


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
    documents = read_lines(path)
    # "Robert E. Lee. He was" may have the title "Robert E" or "Robert E. Lee": a name is a title if it may be one.
    heads = {". ".join(parts[:end]) for parts in (line.split(". ", 4) for line in documents) for end in range(1, 5)}
    untitled = set(names) - heads
    for number, line in enumerate(documents, start=1):
        head, stop, _ = line.partition(". ")
        # In running text a sentence's full stop stands after a space, " . ", and a title's does not.
        if not stop or not head.strip() or head.endswith(" ") or unquote(line) != line:
            raise DataError(f"{path}:{number}: found {line[:60]!r}, wanted `Title. Sentence .`")
        words = head.split(" ")
        for end in range(1, len(words) - 2) if untitled else ():
            # "Ada Stone was born in Rome. She …": three words more, and not those of a longer name.
            is_sentence = words[end][:1].islower() or (words[end].startswith("(") and not head.endswith(")"))
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
    """Return the file's lines without their ends.

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
        if not line.strip():
            wanted = "at least one line" if len(raw_lines) == 1 else "text"
            raise DataError(f"{path}:{number}: found an empty line, wanted {wanted}")
        if "\r" in line:
            raise DataError(f"{path}:{number}: found a carriage return within the line, wanted line ends of one kind")
        lines.append(line)
    return lines


def unquote(field: str) -> str:
    """Return a field without the quotes around it that spreadsheets write, and with those within it single again."""
    inner = field[1:-1]
    is_quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"').strip() if is_quoted else field


def read_question(text: str, where: str, place: str = "") -> str:
    """Return a field's question, without space around its name.

    Args:
        text: the field.
        where: file and line, for the message.
        place: the field beside it; a question there shows that the columns are swapped.

    Raises:
        DataError: it is not a question of the data's form about one name.
    """
    question = unquote(text.strip())
    name = BIRTHPLACE.extract_name(question)
    if name is None or not name.strip() or "?" in name:
        is_swapped = BIRTHPLACE.extract_name(place) is not None
        hint = "; the columns are swapped" if is_swapped else "; a header row?" if where.endswith(":1") else ""
        raise DataError(f"{where}: found {question[:60]!r}, wanted `{question_for('NAME')}`{hint}")
    return question_for(name.strip())


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
