"""Read a folder in the cs224n layout: four files of biographies and questions, checked line by line.

    wiki.txt                  one biography a line, `Title. Sentence .`
    birth_places_train.tsv    `Where was NAME born?<TAB>PLACE`, or any relation's question and answer
    birth_dev.tsv             the same, for scoring only
    birth_test_inputs.tsv     questions without answers

Files are UTF-8. A byte-order mark, the line ends of Windows and of old Macs, blank lines at the end, and the quotes
that spreadsheets put around fields are accepted; anything else that is not in the layout raises a `DataError` which
names the file, the line, what was found and what was wanted.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from configuration.errors import UserError
from data_scripts.questions import Question, question_about
from data_scripts.titles import split_title
from modeling_minigpt.questions_minigpt import normalise
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation, match_relations

FILES = {
    "documents": "wiki.txt",
    "train": "birth_places_train.tsv",
    "validation": "birth_dev.tsv",
    "test": "birth_test_inputs.tsv",
}


class DataError(UserError, ValueError):
    """A data file that cannot be used; the message is one line for the user."""


def check_files(folder: Path) -> None:
    """Raise DataError where `folder` lacks a file; the questions without answers may be missing."""
    needed = [name for key, name in FILES.items() if key != "test"]
    if not os.path.isdir(folder):  # unlike pathlib, False where the name is too long to be one
        raise DataError(f"{folder}: no such folder; wanted one with {', '.join(needed)}")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} not found; the folder must have {', '.join(needed)}")


def check_folder(folder: Path, relations: Sequence[Relation] = (BIRTHPLACE,)) -> None:
    """Raise DataError unless `folder` has the files and its documents have titles; reads no dev or test file."""
    check_files(folder)
    questions = read_questions(folder / FILES["train"], relations)
    check_titles(folder / FILES["documents"], [question.name for question in questions])


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


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's contents; DataError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # the latter for a NUL in the name
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error


def sha256_prefix(path: str | Path) -> str:
    """Return the first 16 digits of a file's SHA-256; DataError where it cannot be read."""
    return sha256(path)[:16]


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


def parse_question(text: str, where: str, relations: Sequence[Relation], answer: str = "") -> Question:
    """Return the question in a field, without its answers: its case and its end are as people type them.

    Args:
        text: the field.
        where: file and line, for the message.
        relations: those whose questions are known.
        answer: the field beside it; a question there shows that the columns are swapped.

    Raises:
        DataError: it is a question of none of the relations, or of several.
    """
    question = unquote(text.strip())
    found = match_relations(relations, question)
    if len(found) == 1:
        relation, name = found[0]
        return question_about(name, relation=relation)
    wanted = " or ".join(f"`{relation.format('NAME')}`" for relation in relations)
    if found:
        names = " and ".join(relation.name for relation, _ in found)
        raise DataError(f"{where}: found {question[:60]!r}, which asks for {names}; wanted one of {wanted}")
    is_swapped = bool(match_relations(relations, answer))
    hint = "; the columns are swapped" if is_swapped else "; a header row?" if where.endswith(":1") else ""
    raise DataError(f"{where}: found {question[:60]!r}, wanted {wanted}{hint}")


def split_fields(line: str, where: str) -> tuple[str, str]:
    """Return a line's question and answer; DataError where they are not two fields with one tab between them."""
    fields = [unquote(field.strip()) for field in line.split("\t")]
    if len(fields) != 2:
        raise DataError(f"{where}: found {len(fields) - 1} tabs, wanted one: QUESTION<TAB>ANSWER")
    for field, label in zip(fields, ("question", "answer"), strict=True):
        if not field:
            raise DataError(f"{where}: the {label} is empty, wanted QUESTION<TAB>ANSWER")
    question, answer = fields
    return question, answer


def check_answer(answer: str, where: str, relations: Sequence[Relation]) -> None:
    """Raise DataError where an answer is a question, or a part of a quoted field."""
    if match_relations(relations, answer):
        raise DataError(f"{where}: found the question {answer[:60]!r} in the answer's column")
    if answer.startswith('"') != answer.endswith('"'):
        raise DataError(f"{where}: the answer {answer[:60]!r} has a quotation mark on one side")


def read_questions(
    path: str | Path, relations: Sequence[Relation] = (BIRTHPLACE,), answered: bool = True
) -> list[Question]:
    """Return the question of every line, with its answer where the file has answers.

    Args:
        path: a file of `QUESTION<TAB>ANSWER` lines; of questions alone where it is not `answered`.
        relations: those whose questions are known; each line must be the question of exactly one.

    Raises:
        DataError: as `read_lines`, `split_fields`, `parse_question` and `check_answer`, or a tab where there are no
            answers.
    """
    questions = []
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}:{number}"
        if answered:
            text, answer = split_fields(line, where)
            question = parse_question(text, where, relations, answer)
            check_answer(answer, where, relations)
            questions.append(question._replace(answers=(answer,)))
        elif "\t" in line:
            raise DataError(f"{where}: found a tab, wanted a question alone")
        else:
            questions.append(parse_question(line, where, relations))
    return questions
