"""People in JSON lines, CSV and Parquet: what is accepted, and the one line that is said of the rest."""

import datetime
import json
from decimal import Decimal

import pyarrow
import pyarrow.parquet
import pytest

from configuration.data_schema import DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.sources.base import Person
from data_scripts.sources.rows import Columns, read_people
from data_scripts.sources.tables import CsvSource, JsonlSource, read_parquet
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

STUDIED = Relation("studied", "Where did {name} study?")
RELATIONS = [BIRTHPLACE, STUDIED]


def write(folder, name: str, content: str | bytes):
    """Write a file as it is, and return its source."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def source(path, relations=RELATIONS, **options):
    """Return the source that a path's name looks like."""
    data = DataArguments(path=str(path), **options)
    return {"jsonl": JsonlSource, "csv": CsvSource}[data.source](data, relations)


def read(path, **options) -> list[Person]:
    """Return the people of a file."""
    found = source(path, **options)
    return [person for part in range(found.parts()) for person in found.read(part)]


def refusal(path, **options) -> str:
    """Return what is said of a file, without its folder."""
    with pytest.raises(DataError) as error:
        read(path, **options)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(f"{path.parent}/", "")


def read_line(folder, **row) -> Person:
    """Return the person of one JSON line."""
    (person,) = read(write(folder, "one.jsonl", json.dumps({"name": "Ada", "birthplace": None, **row}) + "\n"))
    return person


def test_json_lines(tmp_path):
    rows = [
        {"name": "Ada  Stone", "text": "Ada Stone.\nShe was born in Rome .", "birthplace": "Rome", "popularity": 7},
        {
            "name": "Be\u0301la",
            "text": ["One .", "Two ."],
            "studied": ["Gy\u0151r", "Pécs", "Győr"],
            "split": "validation",
        },
        {"name": "Cyd", "birthplace": '["Oslo", "Kristiania"]', "studied": 1852, "text": None, "split": None},
    ]
    path = write(tmp_path, "people.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    document = "Ada Stone. She was born in Rome ."
    answers = {"birthplace": ["Oslo", "Kristiania"], "studied": ["1852"]}
    assert read(path) == [
        Person("Ada Stone\tpeople:1", "Ada Stone", [document], {"birthplace": ["Rome"]}, 7, None, f"{path}:1"),
        Person("Béla\tpeople:2", "Béla", ["One .", "Two ."], {"studied": ["Győr", "Pécs"]}, None, "dev", f"{path}:2"),
        Person("Cyd\tpeople:3", "Cyd", [], answers, None, None, f"{path}:3"),
    ]


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("Rome", ["Rome"]),
        (" Rome\u00a0 ", ["Rome"]),
        ([], None),
        ("[]", None),
        ("[Rome]", ["[Rome]"]),
        ('["Rome", 1852]', ["Rome", "1852"]),
        ("['Rome', \"L'Aquila\", 1852]", ["Rome", "L'Aquila", "1852"]),  # as Python prints it
        ("[the city] of Rome [sic]", ["[the city] of Rome [sic]"]),
        (1852, ["1852"]),
        (1852.0, ["1852"]),
        (1.5, ["1.5"]),
        (float("nan"), None),
        (None, None),
    ],
)
def test_answers_are_texts_numbers_or_lists(tmp_path, value, answers):
    assert read_line(tmp_path, birthplace=value).facts.get("birthplace") == answers


@pytest.mark.parametrize(
    "value", ["['Rome' 'Roma']", "['Rome'\n \"L'Aquila\"]", "[1801 1802]", "[nan 'Rome']", "['A', nan]"]
)
def test_a_printed_array_is_no_answer(tmp_path, value):
    path = write(tmp_path, "p.csv", 'name,birthplace\nAda,"' + value.replace('"', '""') + '"\n')
    assert refusal(path) == (
        f'p.csv:2: birthplace: found {value!r}, as an array is printed; wanted a list, ["Rome", "Roma"]'
    )


def test_whole_numbers_of_a_csv_file_are_those_of_json_lines(tmp_path):
    content = "id,name,birthplace,studied\n7.0,1984.0,1801.0,[]\n8.0,Bo,-3.5,1.50\n"
    ada, bo = read(write(tmp_path, "people.csv", content))
    assert (ada.id, ada.name, ada.facts) == ("7", "1984", {"birthplace": ["1801"]})
    assert (bo.id, bo.facts) == ("8", {"birthplace": ["-3.5"], "studied": ["1.50"]})


def test_a_json_file_may_be_one_list_or_lines(tmp_path):
    rows = [{"name": "Ada", "birthplace": "Rome"}, {"name": "Bo", "birthplace": "Oslo"}]
    whole = write(tmp_path, "list.json", b"\xef\xbb\xbf \n" + json.dumps(rows, indent=1).encode())
    lines = write(tmp_path, "lines.json", "\n".join(map(json.dumps, rows)))
    assert [person.name for person in read(whole)] == [person.name for person in read(lines)] == ["Ada", "Bo"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r", b"\r\r\n"], ids=["Unix", "Windows", "Mac", "twice"])
def test_json_lines_with_any_line_ends(tmp_path, line_end):
    lines = [b'{"name": "Ada", "birthplace": "Rome"}', b'{"name": "Bo", "text": "One.\\rTwo.", "birthplace": "Oslo"}']
    people = read(write(tmp_path, "people.jsonl", line_end.join([*lines, b""])))
    assert [(person.name, person.documents) for person in people] == [("Ada", []), ("Bo", ["One. Two."])]


@pytest.mark.parametrize("role", ["name", "text", "id", "popularity", "split"])
def test_a_relation_cannot_be_called_like_another_column(tmp_path, role):
    path = write(tmp_path, "people.csv", "name,text\nAda,Ada sang .\n")
    relation = Relation(role, "Where did {name} study?")
    message = refusal(path, relations=[relation], columns={"name": "name"})
    assert message.startswith(f"relations.{role}: is the name of a relation and of a column")


def test_columns_of_other_names_and_ids(tmp_path):
    path = write(tmp_path, "people.jsonl", '{"subj": "Ada", "obj": "Rome", "qid": 7, "bio": "Text ."}\n')
    columns = {"name": "subj", "birthplace": "obj", "id": "qid", "text": "bio"}
    (person,) = read(path, columns=columns)
    assert (person.id, person.name, person.facts, person.documents) == (
        "7",
        "Ada",
        {"birthplace": ["Rome"]},
        ["Text ."],
    )


def test_the_first_people(tmp_path):
    path = write(tmp_path, "people.csv", "name,birthplace\nAda,Rome\nBo,Oslo\nbroken")
    assert [person.name for person in read(path, max_people=2)] == ["Ada", "Bo"]


def test_the_first_people_have_all_their_rows(tmp_path):
    rows = "".join(f"{number // 3},Ada{number // 3} Stone,Rome{number}\n" for number in range(12))
    path = write(tmp_path, "people.csv", f"id,name,birthplace\n{rows}")
    assert [person.id for person in read(path, max_people=2)] == list("000111")
    assert len(read(path, max_people=9)) == 12


def test_a_column_that_later_rows_alone_have(tmp_path):
    path = write(tmp_path, "people.jsonl", '{"name": "Ada"}\n\n{"name": "Bo", "studied": "Turku"}\n')
    assert [person.facts for person in read(path)] == [{}, {"studied": ["Turku"]}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_csv_in_every_dialect(tmp_path, delimiter, line_end):
    fields = [
        ["name", "birthplace", "text"],
        ['"Bo ""Red"" Lind"', '"Rome, Italy; or | not\tthere"', f'"Two{line_end}lines ."'],
        ["Ada", "Győr", ""],
        [],
    ]
    text = "\ufeff" + line_end.join(map(delimiter.join, fields))
    path = write(tmp_path, "people.csv", text)
    bo, ada = read(path)
    assert (bo.name, bo.facts) == ('Bo "Red" Lind', {"birthplace": ["Rome, Italy; or | not there"]})
    assert (bo.documents, bo.where, ada.where) == (["Two lines ."], f"{path}:2", f"{path}:4")
    assert (ada.documents, ada.facts) == ([], {"birthplace": ["Győr"]})


def test_a_csv_field_of_any_length(tmp_path):
    long = "word " * 100_000
    (person,) = read(write(tmp_path, "people.csv", f"name,birthplace,text\nAda,Rome,{long}\n"))
    assert person.documents == [long.strip()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "Ada", "birthplace": "Rome"}\n{"name": "Bo", "birth', "p.jsonl:2: not JSON (Unterminated string"),
        ('{"name": "Ada", "birthplace": "Rome"}\n{"name": "Bo",}\n', "p.jsonl:2: not JSON ("),
        ("[1]\n", "p.jsonl:1: found [1], wanted a JSON object"),
        ("null\n", "p.jsonl:1: found null, wanted a JSON object"),
        ("[" * 100_000, "p.jsonl:1: not JSON ("),
        ("", "p.jsonl: no row in it"),
        ("\n\n", "p.jsonl: no row in it"),
        (b'{"name": "Ada\xff"}\n', "p.jsonl:1: byte 14 is ff, wanted UTF-8 text"),
        ('{"name": null, "birthplace": "Rome"}', "p.jsonl:1: name: found null, wanted a text"),
        ('{"name": " ", "birthplace": "Rome"}', "p.jsonl:1: name: is empty, wanted a text"),
        ('{"name": ["Ada"], "birthplace": "Rome"}', 'p.jsonl:1: name: found ["Ada"], wanted a text'),
        ('{"name": "\\ud800", "birthplace": "Rome"}', "p.jsonl:1: name: found half of a surrogate pair"),
        ('{"name": "Ada", "birthplace": ""}', "p.jsonl:1: birthplace: the answer is empty, wanted a text, or []"),
        ('{"name": "Ada", "birthplace": ["Rome", ""]}', "p.jsonl:1: birthplace: is empty, wanted a text"),
        ('{"name": "Ada", "birthplace": ["Rome", null]}', "p.jsonl:1: birthplace: found null, wanted a text"),
        ('{"name": "Ada", "birthplace": true}', "p.jsonl:1: birthplace: found true, wanted a text"),
        ('{"name": "Ada", "birthplace": {"a": 1}}', 'p.jsonl:1: birthplace: found {"a": 1}, wanted a text'),
        ('{"name": "Ada", "birthplace": Infinity}', "p.jsonl:1: birthplace: found inf, wanted a text or a number"),
        ('{"name": -Infinity, "birthplace": "Rome"}', "p.jsonl:1: name: found -inf, wanted a text or a number"),
        ('{"name": "Ada", "birthplace": "Rome", "text": 7.5e3}', None),
        ('{"name": "Ada", "birthplace": "Rome", "text": {}}', "p.jsonl:1: text: found {}, wanted a text"),
        ('{"name": "Ada", "birthplace": "Rome", "id": null}', "p.jsonl:1: id: found null, wanted a text"),
        ('{"name": "Ada", "birthplace": "Rome", "split": "tran"}', "p.jsonl:1: split: found 'tran', wanted train"),
        ('{"name": "Ada", "birthplace": "Rome", "split": []}', "p.jsonl:1: split: found '[]', wanted train"),
        ('{"name": "Ada", "birthplace": "Rome", "popularity": "x"}', "p.jsonl:1: popularity: found 'x', wanted a num"),
        ('{"name": "Ada", "place": "Rome"}', "p.jsonl: no column of answers; found name, place; wanted birthplace"),
        ('{"title": "Ada", "birthplace": "Rome"}', "p.jsonl:1: no column name; found title, birthplace; set data"),
    ],
)  # fmt: skip
def test_bad_json_lines(tmp_path, content, message):
    path = write(tmp_path, "p.jsonl", content)
    if message is None:
        assert read(path)[0].documents == ["7500"]
    else:
        assert refusal(path).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "p.csv:1: no header, wanted the columns' names"),
        ("name,birthplace\n", "p.csv: no row in it"),
        ("name,name,birthplace\n", "p.csv:1: the column 'name' is there twice"),
        ("Ada,Rome\nBo,Oslo\n", "p.csv: no column name; found Ada, Rome; set data.columns.name"),
        ("name,place\nBo,Oslo\n", "p.csv: no column of answers; found name, place; wanted birthplace, studied"),
        ('name,birthplace\n"Bo\nLind",Oslo\nAda\n', "p.csv:4: found 1 fields, wanted 2: name, birthplace"),
        ("name,birthplace\nBo,Oslo,Norway\n", "p.csv:2: found 3 fields, wanted 2: name, birthplace"),
        ('name,birthplace\nAda,Rome\n"Bo,Oslo\nCyd,Turku\n', "p.csv:3: not CSV: unexpected end of data; is a"),
        ('name,birthplace\n"Bo" Lind,Oslo\n', "p.csv:2: not CSV: "),
        (b"name,birthplace\nAda,Rome\nB\xf8,Oslo\n", "p.csv:3: byte 2 is f8, wanted UTF-8 text"),
        ("name,birthplace\nAda,\n", "p.csv:2: birthplace: the answer is empty, wanted a text, or []"),
        ("name,birthplace\n,Rome\n", "p.csv:2: name: is empty, wanted a text"),
    ],
)  # fmt: skip
def test_bad_csv(tmp_path, content, message):
    assert refusal(write(tmp_path, "p.csv", content)).startswith(message)


def test_columns_that_are_named_but_not_there(tmp_path):
    path = write(tmp_path, "p.csv", "name,place of birth\nAda,Rome\n")
    assert refusal(path, columns={"birthplace": "place_of_birth"}) == (
        "p.csv: no column place_of_birth (data.columns.birthplace); found name, place of birth;"
        " did you mean place of birth?"
    )
    assert refusal(path, columns={"birthplce": "place of birth"}) == (
        "data.columns: birthplce is neither a relation nor a role; did you mean birthplace?"
    )


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.csv"])
def test_a_file_that_is_not_there(tmp_path, name):
    assert refusal(tmp_path / name) == f"{name}: cannot be read: No such file or directory"


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "people.csv").mkdir()
    assert refusal(tmp_path / "people.csv") == "people.csv: cannot be read: Is a directory"


def test_a_changed_file_has_another_digest(tmp_path):
    path = write(tmp_path, "people.csv", "name,birthplace\nAda,Rome\n")
    before = source(path).inputs()
    assert list(before) == ["people.csv"]
    write(tmp_path, "people.csv", "name,birthplace\nAda,Rom3\n")
    assert source(path).inputs() != before
    assert source(path).describe() == {"source": "csv", "path": str(path)}


def read_shard(path) -> list[Person]:
    """Return the people of a Parquet file."""
    columns = Columns({}, RELATIONS)
    with path.open("rb") as file:
        return list(read_people(read_parquet(file, "p", columns), columns, "p"))


def test_of_a_parquet_file_only_the_needed_columns_are_read(tmp_path):
    path = tmp_path / "p.parquet"
    columns = {"name": ["Ada", "Bo"], "unread": ["x" * 500, "y" * 500], "birthplace": [["Rome"], None]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="none")
    content = path.read_bytes()
    start = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(1).dictionary_page_offset
    path.write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])  # a damage in the other column
    with pytest.raises(OSError, match=r"\w"):
        pyarrow.parquet.read_table(path)
    assert [(person.name, person.facts) for person in read_shard(path)] == [
        ("Ada", {"birthplace": ["Rome"]}),
        ("Bo", {}),
    ]


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        (datetime.date(1990, 1, 31), ["1990-01-31"]),
        (datetime.datetime(1990, 1, 31), ["1990-01-31"]),
        (datetime.datetime(1990, 1, 31, 12, 30), ["1990-01-31T12:30:00"]),
        (Decimal("1852"), ["1852"]),
        (Decimal("1.50"), ["1.50"]),
        ([datetime.date(1990, 1, 31)], ["1990-01-31"]),
    ],
)
def test_dates_and_decimals_of_a_parquet_file_are_read_as_text(tmp_path, value, answers):
    columns = {"name": ["Ada"], "birthplace": [value], "popularity": [Decimal("7")]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    (person,) = read_shard(tmp_path / "p.parquet")
    assert (person.facts, person.popularity) == ({"birthplace": answers}, 7)


def test_32_bit_numbers_of_a_parquet_file_are_read_as_they_are_written(tmp_path):
    values = pyarrow.array([1.85, None, float("nan"), 1801], pyarrow.float32())
    lists = pyarrow.array([[0.1, 2], None, [], [1801]], pyarrow.list_(pyarrow.float32()))
    columns = {"name": ["Ada", "Bo", "Cyd", "Dee"], "birthplace": values, "studied": lists}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    assert [person.facts for person in read_shard(tmp_path / "p.parquet")] == [
        {"birthplace": ["1.85"], "studied": ["0.1", "2"]},
        {},
        {},
        {"birthplace": ["1801"], "studied": ["1801"]},
    ]


def test_another_type_of_a_parquet_file_is_refused_with_its_name(tmp_path):
    columns = {"name": ["Ada"], "birthplace": [datetime.time(12, 30)]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    with pytest.raises(DataError, match='p: row 1: birthplace: found "time 12:30:00", wanted a text'):
        read_shard(tmp_path / "p.parquet")


def test_a_parquet_file_with_damaged_pages_is_named(tmp_path):
    path = tmp_path / "p.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"name": ["Ada"], "birthplace": ["Rome"]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 20 + content[24:])
    with pytest.raises(DataError, match="p: damaged after row 0: "):
        read_shard(path)
