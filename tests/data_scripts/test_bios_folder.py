"""The cs224n layout: what is accepted, and what the one-line error says about the rest."""

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
from data_scripts.titles import split_title
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

NEEDED = [name for key, name in FILES.items() if key != "test"]
read_inputs = partial(read_questions, answered=False)


def write(folder, data: bytes | str):
    path = folder / "file.tsv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refusal(read, path) -> str:
    """Return the message with which `read` refuses `path`."""
    with pytest.raises(DataError) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_complete_folder_passes(tiny_folder):
    check_folder(tiny_folder)


def test_a_missing_folder_is_named_with_the_files_wanted(tmp_path):
    message = refusal(check_folder, tmp_path / "nowhere")
    assert message.startswith(f"{tmp_path / 'nowhere'}: no such folder")
    assert all(name in message for name in NEEDED)


def test_a_file_is_not_a_folder(tiny_folder):
    assert "no such folder" in refusal(check_folder, tiny_folder / "wiki.txt")


@pytest.mark.parametrize("name", NEEDED)
def test_the_one_missing_file_is_named(tiny_folder, name):
    (tiny_folder / name).unlink()
    assert refusal(check_folder, tiny_folder).startswith(f"{tiny_folder}: {name} not found")


def test_all_missing_files_are_named_at_once(tmp_path):
    assert refusal(check_folder, tmp_path).startswith(f"{tmp_path}: {', '.join(NEEDED)} not found")


def test_a_folder_in_the_place_of_a_file_is_missing(tiny_folder):
    (tiny_folder / "birth_dev.tsv").unlink()
    (tiny_folder / "birth_dev.tsv").mkdir()
    assert "birth_dev.tsv not found" in refusal(check_folder, tiny_folder)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        pytest.param("Where was Ada born? Rome", "found 0 tabs, wanted one: QUESTION<TAB>ANSWER", id="no-tab"),
        pytest.param(
            "Where was Ada born?\tRome\tItaly", "found 2 tabs, wanted one: QUESTION<TAB>ANSWER", id="two-tabs"
        ),
        pytest.param("\tRome", "the question is empty, wanted QUESTION<TAB>ANSWER", id="no-question"),
        pytest.param("  \tRome", "the question is empty, wanted QUESTION<TAB>ANSWER", id="blank-question"),
        pytest.param("Where was Ada born?\t", "the answer is empty, wanted QUESTION<TAB>ANSWER", id="no-place"),
        pytest.param(
            "Where was Ada born?\t \u00a0", "the answer is empty, wanted QUESTION<TAB>ANSWER", id="blank-place"
        ),
        pytest.param("", "found an empty line, wanted text", id="empty-line"),
        pytest.param(" \t ", "found an empty line, wanted text", id="blank-line"),
    ],
)
def test_a_bad_pair_is_refused_with_its_line(tmp_path, line, complaint):
    path = write(tmp_path, f"Where was Bob born?\tOslo\n{line}\nWhere was Cyd born?\tBonn\n")
    assert refusal(read_questions, path) == f"{path}:2: {complaint}"


def test_an_empty_last_place_is_not_taken_for_the_end_of_the_file(tmp_path):
    path = write(tmp_path, "Where was Bob born?\tOslo\nWhere was Ada born?\t\n")
    assert refusal(read_questions, path) == f"{path}:2: the answer is empty, wanted QUESTION<TAB>ANSWER"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param(b"ok\nGy\xf6r\n", "2: byte 3 is f6, wanted UTF-8 text", id="latin-1"),
        pytest.param(b"ok\nGy\xc3\nok\n", "2: byte 3 is c3, wanted UTF-8 text", id="cut-character"),
        pytest.param(b"ok\r\n\xe2\x82\r\n", "2: byte 1 is e2 82, wanted UTF-8 text", id="cut-before-windows-end"),
        pytest.param("ok\n".encode("utf-16"), "1: byte 1 is ff, wanted UTF-8 text", id="utf-16"),
    ],
)
def test_bytes_that_are_not_utf8_are_shown_in_hex(tmp_path, data, complaint):
    path = write(tmp_path, data)
    assert refusal(read_lines, path) == f"{path}:{complaint}"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="no-bytes"),
        pytest.param(b"\n\r\n\n", id="line-ends-only"),
        pytest.param(b"\xef\xbb\xbf", id="byte-order-mark-only"),
        pytest.param(b"   \n", id="one-blank-line"),
    ],
)
@pytest.mark.parametrize("read", [read_lines, read_questions])
def test_a_file_without_text_is_refused(tmp_path, read, data):
    path = write(tmp_path, data)
    assert refusal(read, path) == f"{path}:1: found an empty line, wanted at least one line"


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert (
        refusal(read_lines, tmp_path / "none.txt")
        == f"{tmp_path / 'none.txt'}: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize(
    "disguise",
    [
        pytest.param(lambda data: data.rstrip(b"\n"), id="no-line-end-at-the-end"),
        pytest.param(lambda data: data + b"\n\n", id="blank-lines-at-the-end"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n"), id="windows"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n") + b"\r\n\r\n", id="windows-blank-lines-at-the-end"),
        pytest.param(lambda data: b"\xef\xbb\xbf" + data, id="byte-order-mark"),
        pytest.param(lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), id="windows-byte-order-mark"),
    ],
)
@pytest.mark.parametrize(
    ("name", "read"),
    [("wiki.txt", read_lines), ("birth_dev.tsv", read_questions), ("birth_test_inputs.tsv", read_inputs)],
)
def test_other_line_ends_and_marks_change_nothing(tiny_folder, name, read, disguise):
    path = tiny_folder / name
    clean = read(path)
    path.write_bytes(disguise(path.read_bytes()))
    assert read(path) == clean


def test_questions_keep_their_order_and_lose_surrounding_space(tmp_path):
    path = write(tmp_path, " Where was Béla born? \t Győr \nWhere was Ada born?\tNew York\n")
    assert read_questions(path) == [question_about("Béla", "Győr"), question_about("Ada", "New York")]


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0c", "\u00a0", " \u2003"])
def test_only_a_line_feed_ends_a_line_and_other_white_space_becomes_a_space(tmp_path, character):
    assert read_lines(write(tmp_path, f"Ada. One{character}two .\n")) == ["Ada. One two ."]


@pytest.mark.parametrize("character", ["\xad", "\u200b", "\u200e", "\ufeff"])
def test_characters_that_nobody_sees_are_not_read(tmp_path, character):
    assert read_lines(write(tmp_path, f"Ada. One{character}two .\n")) == ["Ada. Onetwo ."]


def test_a_question_file_with_answers_is_refused(tmp_path):
    path = write(tmp_path, "Where was Ada born?\nWhere was Bob born?\tOslo\n")
    assert refusal(read_inputs, path) == f"{path}:2: found a tab, wanted a question alone"


def test_questions_lose_surrounding_space(tmp_path):
    assert read_inputs(write(tmp_path, " Where was Ada born? \n")) == [question_about("Ada")]


@pytest.mark.parametrize(
    ("document", "title", "body"),
    [
        pytest.param("Plato. He was a man .", "Plato", "He was a man .", id="one-word"),
        pytest.param("Ada Stone. She sang. She slept .", "Ada Stone", "She sang. She slept .", id="two-sentences"),
        pytest.param("Robert E. Lee. He was a general .", "Robert E. Lee", "He was a general .", id="initial"),
        pytest.param("J. R. R. Tolkien. He wrote .", "J. R. R. Tolkien", "He wrote .", id="three-initials"),
        pytest.param("É. Borel. He counted .", "É. Borel", "He counted .", id="accented-initial"),
        pytest.param("Dr. Seuss. He drew .", "Dr. Seuss", "He drew .", id="doctor"),
        pytest.param("Mrs. Beeton. She cooked .", "Mrs. Beeton", "She cooked .", id="mrs"),
        pytest.param("John St. Ives. He sailed .", "John St. Ives", "He sailed .", id="saint"),
        pytest.param("Malcolm X. He spoke .", "Malcolm X", "He spoke .", id="ends-with-an-initial"),
        pytest.param("Sammy Davis Jr. He danced .", "Sammy Davis Jr", "He danced .", id="ends-with-junior"),
        pytest.param("John Paul II. He prayed .", "John Paul II", "He prayed .", id="numeral"),
        pytest.param("no title here", "", "no title here", id="no-title"),
        pytest.param("", "", "", id="nothing"),
        pytest.param("Plato. ", "Plato", "", id="no-body"),
    ],
)
def test_a_title_ends_at_its_own_full_stop(document, title, body):
    assert split_title(document) == (title, body)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("John A. Smith (politician)", id="initial"),
        pytest.param("Mr. Bean goes to Rome", id="words-in-lower-case"),
        pytest.param("Washington, D.C. in the 1920s", id="abbreviation"),
        pytest.param("Acme Inc. and sons Ltd.", id="own-full-stop"),
    ],
)
def test_a_known_name_is_the_title_whatever_its_full_stops(name):
    document = f"{name.rstrip('.')}. He was born in Rome. He sang."
    names = {name, "John A", "Mr", "Henry V"}  # the longest counts
    assert split_title(document, names) == (name.rstrip("."), "He was born in Rome. He sang.")
    assert split_title("Henry V. Henry V was born in Monmouth .", names)[0] == "Henry V"


STUDIED = Relation("studied", "Where did {name} study?", paraphrases=("What was the school of {name}?",))


def test_a_file_may_ask_for_several_relations_in_any_of_their_wordings(tmp_path):
    path = write(tmp_path, "Where was Ada born?\tRome\nWhat was the school of Ada?\tLSE\nwhere did Bo study\tMIT\n")
    assert read_questions(path, (BIRTHPLACE, STUDIED)) == [
        question_about("Ada", "Rome"),
        question_about("Ada", "LSE", relation=STUDIED),
        question_about("Bo", "MIT", relation=STUDIED),
    ]


def test_a_line_that_two_templates_match_is_refused_with_both(tmp_path):
    general = Relation("place", "Where did {name}?")
    path = write(tmp_path, "Where did Bo study?\tOslo\n")
    with pytest.raises(DataError) as error:
        read_questions(path, (STUDIED, general))
    assert str(error.value) == (
        f"{path}:1: found 'Where did Bo study?', which asks for studied and place; "
        "wanted one of `Where did NAME study?` or `Where did NAME?`"
    )


def test_a_title_that_ends_with_an_initial_does_not_swallow_a_sentence():
    assert split_title("Malcolm X. He spoke . He was born in Omaha .")[0] == "Malcolm X"


def test_every_person_of_the_real_dev_file_is_a_title(cs224n):
    titles = {split_title(line)[0] for line in read_lines(cs224n / FILES["documents"])}
    names = {question.name for question in read_questions(cs224n / FILES["validation"])}
    assert len(names) == 500
    assert names <= titles


def test_the_real_folder_reads_in_full(cs224n):
    check_folder(cs224n)
    assert len(read_lines(cs224n / FILES["documents"])) == 2937
    assert len(read_questions(cs224n / FILES["train"])) == 2000
    assert len(read_inputs(cs224n / FILES["test"])) == 437
