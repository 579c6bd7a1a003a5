"""Data files as spreadsheets, scripts and old programs write them: read as meant, or refused with file and line."""

from functools import partial

import pytest

from data_scripts.bios_folder import (
    FILES,
    DataError,
    check_folder,
    read_lines,
    read_questions,
)
from data_scripts.questions import question_about
from data_scripts.synthetic_bios import invent
from tests.running import call

PAIR = "Where was Ada Stone born?\tRome"

read_inputs = partial(read_questions, answered=False)


def write(folder, text: str | bytes, name: str = "file.tsv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(read, path) -> str:
    """Return the one line with which `read` refuses a file."""
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.row("T10")
@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("question\tplace", "question"),
        ("Question\tAnswer", "Question"),
        ('"question"\t"answer"', "question"),
        ("name\tbirthplace", "name"),
        ("Where was born?\tPlace", "Where was born?"),
    ],
)
def test_a_header_row_is_refused(tmp_path, header, found):
    path = write(tmp_path, f"{header}\n{PAIR}\n")
    wanted = f"{path}:1: found '{found}', wanted `Where was NAME born?`; a header row?"
    assert refusal(read_questions, path) == wanted
    assert refusal(read_inputs, write(tmp_path, header.partition("\t")[0] + "\nWhere was Al born?\n")) == wanted


@pytest.mark.row("T10")
@pytest.mark.parametrize("line", ["Rome\tWhere was Ada Stone born?", '"Rome"\t"Where was Ada Stone born?"'])
def test_swapped_columns_are_refused(tmp_path, line):
    path = write(tmp_path, f"{PAIR}\n{line}\n")
    wanted = f"{path}:2: found 'Rome', wanted `Where was NAME born?`; the columns are swapped"
    assert refusal(read_questions, path) == wanted


@pytest.mark.row("T10")
@pytest.mark.parametrize(
    "question",
    [
        "Who was Ada Stone?",
        "When was Ada Stone born?",
        "Where did Ada Stone die?",
        "Where was Ada Stone buried?",
        "Ada Stone",
        "Where was Ada Stone born? Where was Bo Li born?",
        "Where was   born?",
        "What is the birthplace of Ada Stone?",
    ],
)
def test_another_question_is_refused_with_its_line(tmp_path, question):
    wanted = f":2: found '{' '.join(question.split())}', wanted `Where was NAME born?`"
    path = write(tmp_path, f"{PAIR}\n{question}\tRome\n")
    assert refusal(read_questions, path) == f"{path}{wanted}"
    path = write(tmp_path, f"Where was Bo Li born?\n{question}\n")
    assert refusal(read_inputs, path) == f"{path}{wanted}"


@pytest.mark.row("T10")
@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ('"Where was Ada Stone born?"\t"Rome"', ("Where was Ada Stone born?", "Rome")),
        ('Where was Ada Stone born?\t"Rome"', ("Where was Ada Stone born?", "Rome")),
        ('"Where was Ada Stone born?"\tRome', ("Where was Ada Stone born?", "Rome")),
        ('"Where was Ada ""Rock"" Stone born?"\tRome', ('Where was Ada "Rock" Stone born?', "Rome")),
        ('Where was Ada "Rock" Stone born?\tRome', ('Where was Ada "Rock" Stone born?', "Rome")),
        ('Where was "Weird" Ada born?\t" Rome "', ('Where was "Weird" Ada born?', "Rome")),
        ("Where was Ada Stone born?\t's-Hertogenbosch", ("Where was Ada Stone born?", "'s-Hertogenbosch")),
        ("Where was  Ada Stone  born?\tRome", ("Where was Ada Stone born?", "Rome")),
    ],
)
def test_quotes_around_fields_are_no_part_of_them(tmp_path, line, pair):
    (question,) = read_questions(write(tmp_path, f"{line}\n"))
    assert (question.text, question.answer) == pair
    (question,) = read_questions(write(tmp_path, line.partition("\t")[0] + "\n"), answered=False)
    assert question.text == pair[0]


@pytest.mark.row("T10")
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('Where was Ada Stone born?\t"Rome', "has a quotation mark on one side"),
        ('Where was Ada Stone born?\tRome"', "has a quotation mark on one side"),
        ('"Where was Ada Stone born?\tRome"', "wanted `Where was NAME born?`"),
        ('Where was Ada Stone born?\t""', "the answer is empty"),
        ("Where was Ada Stone born?\tWhere was Bo Li born?", "in the answer's column"),
    ],
)
def test_what_quotes_leave_unclear_is_refused(tmp_path, line, complaint):
    path = write(tmp_path, f"Where was Bo Li born?\tOslo\n{line}\n")
    message = refusal(read_questions, path)
    assert message.startswith(f"{path}:2: ")
    assert complaint in message


@pytest.mark.row("T10")
@pytest.mark.parametrize("end", [b"\r", b"\r\n", b"\r\r\n", b"\n"], ids=["Mac", "Windows", "converted twice", "Unix"])
def test_line_ends_of_any_one_kind_are_read(tmp_path, end):
    text = f"{PAIR}\nWhere was Bo Li born?\tOslo\n".encode()
    expected = [question_about("Ada Stone", "Rome"), question_about("Bo Li", "Oslo")]
    assert read_questions(write(tmp_path, text.replace(b"\n", end))) == expected
    assert read_questions(write(tmp_path, b"\xef\xbb\xbf" + text.rstrip(b"\n").replace(b"\n", end))) == expected


@pytest.mark.row("T10")
def test_a_mac_s_line_end_in_another_file_is_refused(tmp_path):
    path = write(tmp_path, b"Ada. Ada sang .\nBo. Bo sang .\rCy. Cy sang .\n")
    assert (
        refusal(read_lines, path) == f"{path}:2: found a carriage return within the line, wanted line ends of one kind"
    )


@pytest.fixture
def folder(tmp_path):
    """Return a folder of sixty invented people."""
    bios = invent(60, seed=3)
    bios.write(tmp_path / "bios")
    return tmp_path / "bios"


def change(folder, edit, name: str = FILES["documents"]):
    path = folder / name
    lines = read_lines(path)
    path.write_text("\n".join(edit(number, line) for number, line in enumerate(lines, start=1)) + "\n")
    return path


def without_title(line: str) -> str:
    return line.partition(". ")[2]


@pytest.mark.row("T10")
def test_invented_people_pass(folder):
    check_folder(folder)


@pytest.mark.row("T10")
@pytest.mark.parametrize("first", [1, 7])
def test_documents_without_titles_are_refused(folder, first):
    """As many programs write them: the sentences alone."""
    path = change(folder, lambda number, line: without_title(line) if number >= first else line)
    message = refusal(check_folder, path.parent)
    assert message.startswith(f"{path}:{first}: found ")
    assert "wanted " in message


@pytest.mark.row("T10")
@pytest.mark.parametrize(
    "sentence", ["{} was born in Rome. She was a poet .", "{} (1900 - 1950, a poet) was born. She sang ."]
)
def test_a_sentence_about_somebody_asked_for_is_no_title(folder, sentence):
    name = read_questions(folder / FILES["train"])[0].name
    path = change(folder, lambda number, line: sentence.format(name) if line.startswith(f"{name}. ") else line)
    message = refusal(check_folder, folder)
    assert message.startswith(f"{path}:")
    assert f"`{name}. Sentence .`" in message


@pytest.mark.row("T10")
@pytest.mark.parametrize(
    ("line", "passes"),
    [
        ("Robert E. Lee. He was a general .", True),
        ("J. R. R. Tolkien. Tolkien was a writer .", True),
        ("Sammy Davis Jr. He danced. He sang .", True),
        ('"Weird" Ada Stone. She said "no"', True),
        ("ada of rome. ada was born there .", True),
        ("Ada (a poet born in Rome). Ada sang .", True),
        ("text", False),
        ('"Bo Li. Bo Li was born in Oslo ."', False),
        ("He was born in Rome . He was a poet .", False),
        (". He was born in Rome .", False),
        ("no title here", False),
    ],
)
def test_a_line_of_documents_has_a_title(tiny_folder, line, passes):
    path = tiny_folder / FILES["documents"]
    path.write_text(f"{path.read_text()}{line}\n")
    (tiny_folder / FILES["train"]).write_text(f"{PAIR}\nWhere was Ada born?\tRome\n")
    if passes:
        check_folder(tiny_folder)
    else:
        assert refusal(check_folder, tiny_folder).startswith(f"{path}:3: found ")


@pytest.mark.row("T10")
def test_a_run_ends_in_one_line_with_the_file_and_the_line(folder, recipe, tmp_path, capsys):
    path = folder / FILES["train"]
    path.write_text(f"question\tplace\n{path.read_text()}")
    assert call("pretrain", recipe, folder, tmp_path / "run") == 2
    assert capsys.readouterr().err.startswith(f"error: {path}:1: found 'question', wanted")


@pytest.mark.row("T10")
def test_the_real_data_read_as_they_are(cs224n):
    """Line for line what the files have: nothing of theirs looks like a header, a quote or a missing title."""
    check_folder(cs224n)
    for split in ("train", "validation"):
        lines = (cs224n / FILES[split]).read_text(encoding="utf-8").splitlines()
        assert [f"{question.text}\t{question.answer}" for question in read_questions(cs224n / FILES[split])] == lines
    lines = (cs224n / FILES["test"]).read_text(encoding="utf-8").splitlines()
    assert [question.text for question in read_inputs(cs224n / FILES["test"])] == lines
