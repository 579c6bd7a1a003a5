"""The `datasets` builders: columns, splits, what they read and never read, and errors worth showing."""

import os

import pytest

from configuration.schema import CorruptionOptions
from data_scripts.biographies import Biographies
from data_scripts.bios_folder import DataError, read_lines
from data_scripts.closed_book_qa import ClosedBookQA
from data_scripts.file_builder import prepare
from data_scripts.questions import question_about
from data_scripts.span_corruption import SpanCorruption, TextCorruptor
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

SENTINEL = "⁇"


def build(builder_class, files: dict, cache, **options):
    """Return all splits of a builder as a user makes it."""
    files = {split: str(path) for split, path in files.items()}
    return prepare(builder_class(data_files=files, cache_dir=str(cache), **options))


def test_biographies_have_an_id_a_title_and_a_text(tiny_folder, tmp_path):
    splits = build(Biographies, {"train": tiny_folder / "wiki.txt"}, tmp_path)
    assert list(splits) == ["train"]
    assert splits["train"].to_list() == [
        {"id": 0, "title": "Ada Stone", "text": "Ada Stone. Ada Stone was born in Rome ."},
        {"id": 1, "title": "Béla Nagy", "text": "Béla Nagy. Nagy was born in Győr ."},
    ]


def test_titles_are_the_names_of_people_who_are_asked_about(tmp_path):
    (tmp_path / "wiki.txt").write_text("Mr. Ek goes to Rome. It was made in Oslo .\n")
    titles = [
        build(Biographies, {"train": tmp_path / "wiki.txt"}, tmp_path, names=names)["train"]["title"][0]
        for names in (("Mr. Ek goes to Rome",), ())  # one cache: another one's names are another entry of it
    ]
    assert titles == ["Mr. Ek goes to Rome", "Mr"]


def test_questions_have_a_name_a_relation_and_answers_but_for_the_test_file(tiny_folder, tmp_path):
    files = {
        "train": tiny_folder / "birth_places_train.tsv",
        "validation": tiny_folder / "birth_dev.tsv",
        "test": tiny_folder / "birth_test_inputs.tsv",
    }
    splits = build(ClosedBookQA, files, tmp_path)
    assert splits["train"].to_list() == [
        {
            "id": 0,
            "name": "Ada Stone",
            "relation": "birthplace",
            "question": "Where was Ada Stone born?",
            "answers": ["Rome"],
        }
    ]
    assert splits["validation"]["answers"][:] == [["Győr"]]
    assert splits["test"]["question"][:] == ["Where was Cyd Moss born?", "Where was Dee Finn born?"]
    assert splits["test"]["answers"][:] == [[], []]


def test_a_file_of_two_relations_is_read_as_one_of_each_by_those_that_are_known(tiny_folder, tmp_path):
    path = tiny_folder / "birth_places_train.tsv"
    path.write_text("Where did Ada Stone study?\tOslo\nWhere was Ada Stone born?\tRome\n", encoding="utf-8")
    studied = Relation("studied", "Where did {name} study?")
    rows = build(ClosedBookQA, {"train": path}, tmp_path, relations=(BIRTHPLACE, studied))["train"]
    assert rows["relation"][:] == ["studied", "birthplace"]
    assert rows["name"][:] == ["Ada Stone"] * 2
    # Not from the cache of the same file with other relations.
    with pytest.raises(DataError, match=r":2: found 'Where was Ada Stone born.', wanted `Where did NAME study.`"):
        build(ClosedBookQA, {"train": path}, tmp_path, relations=(studied,))


def test_training_text_of_a_question():
    assert question_about("Ada", "Rome").training_text(SENTINEL) == "Where was Ada born?⁇Rome⁇"


def test_the_test_split_holds_questions_alone_whatever_its_file_is_called(tiny_folder, tmp_path):
    path = (tiny_folder / "birth_test_inputs.tsv").rename(tiny_folder / "questions.tsv")
    assert build(ClosedBookQA, {"test": path}, tmp_path)["test"]["answers"][:] == [[], []]


@pytest.mark.parametrize("name", ["birth_dev.tsv", "birth_test_inputs.tsv"])
@pytest.mark.parametrize("state", ["undecodable", "absent"])
def test_the_train_split_alone_opens_no_dev_or_test_file(tiny_folder, tmp_path, name, state):
    if state == "undecodable":
        (tiny_folder / name).write_bytes(b"\xff\xfe\xff")
    else:
        (tiny_folder / name).unlink()
    splits = build(ClosedBookQA, {"train": tiny_folder / "birth_places_train.tsv"}, tmp_path)
    assert list(splits) == ["train"]
    assert splits["train"].num_rows == 1


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(CorruptionOptions(policy="random-span"), id="random-span"),
        pytest.param(CorruptionOptions(), id="salient-span"),
    ],
)
def test_corrupted_rows_are_the_corruptors_epoch_by_epoch(tiny_folder, tmp_path, options):
    path = tiny_folder / "wiki.txt"
    rows = build(SpanCorruption, {"train": path}, tmp_path, options=options, sentinel=SENTINEL, seed=3, epochs=4)
    texts = read_lines(path)
    corruptor = TextCorruptor(texts, options)
    assert rows["train"].to_list() == [
        {"id": index, "epoch": epoch, "text": corruptor.corrupt(3, [epoch], [index], SENTINEL)[0]}
        for epoch in range(4)
        for index in range(len(texts))
    ]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"seed": 1}, id="seed"),
        pytest.param({"epochs": 5}, id="epochs"),
        pytest.param({"sentinel": "<mask>"}, id="sentinel"),
        pytest.param({"options": CorruptionOptions(policy="random-span")}, id="policy"),
        pytest.param({"options": CorruptionOptions(max_context=0)}, id="max-context"),
        pytest.param({"options": CorruptionOptions(answer_fraction=1.0), "answers": ("Rome",)}, id="answers"),
    ],
)
def test_other_corruption_is_not_taken_from_the_cache(tiny_folder, tmp_path, change):
    with open(tiny_folder / "wiki.txt", "a") as file:
        file.write("Cyd Moss. Moss met Dee in Rome, Oslo and Bern .\n")
    files, cache, plain = {"train": tiny_folder / "wiki.txt"}, tmp_path / "cache", {"sentinel": SENTINEL, "epochs": 4}
    before = build(SpanCorruption, files, cache, **plain)["train"]["text"][:]
    after = build(SpanCorruption, files, cache, **plain | change)["train"]["text"][:]
    assert after != before
    assert after == build(SpanCorruption, files, tmp_path / "fresh", **plain | change)["train"]["text"][:]


def test_a_changed_file_is_read_anew_in_spite_of_the_cache(tiny_folder, tmp_path):
    files = {"train": tiny_folder / "wiki.txt"}
    assert build(Biographies, files, tmp_path)["train"]["title"][:] == ["Ada Stone", "Béla Nagy"]
    files["train"].write_text("Eva Lund. She sang .\n", encoding="utf-8")
    later = files["train"].stat().st_mtime + 2
    os.utime(files["train"], (later, later))
    assert build(Biographies, files, tmp_path)["train"]["title"][:] == ["Eva Lund"]


def test_a_file_changed_to_an_equally_old_one_is_read_anew(tiny_folder, tmp_path):
    path = tiny_folder / "wiki.txt"
    build(Biographies, {"train": path}, tmp_path)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text("Eva Lund. She sang .\n", encoding="utf-8")
    os.utime(path, ns=times)  # as `cp -p`, `rsync -t` or an archive would leave it
    assert build(Biographies, {"train": path}, tmp_path)["train"]["title"][:] == ["Eva Lund"]


@pytest.mark.parametrize(
    ("builder_class", "name", "data", "complaint"),
    [
        pytest.param(Biographies, "wiki.txt", b"A. b\n\nC. d\n", ":2: found an empty line", id="bios-empty-line"),
        pytest.param(Biographies, "wiki.txt", b"", ":1: found an empty line", id="bios-empty-file"),
        pytest.param(Biographies, "wiki.txt", b"A. b\n\xff\n", ":2: byte 1 is ff", id="bios-undecodable"),
        pytest.param(ClosedBookQA, "birth_dev.tsv", b"Where?\n", ":1: found 0 tabs", id="questions-no-tab"),
        pytest.param(ClosedBookQA, "birth_dev.tsv", b"Where?\t\n", ":1: the answer is empty", id="questions-no-place"),
        pytest.param(SpanCorruption, "wiki.txt", b"\xff\n", ":1: byte 1 is ff", id="corruption-undecodable"),
    ],
)
def test_bad_input_surfaces_as_one_line(tiny_folder, tmp_path, builder_class, name, data, complaint):
    path = tiny_folder / name
    path.write_bytes(data)
    options = {"sentinel": SENTINEL} if builder_class is SpanCorruption else {}
    with pytest.raises(DataError) as error:
        build(builder_class, {"train": path}, tmp_path, **options)
    assert str(error.value).startswith(f"{path}{complaint}")
    assert "\n" not in str(error.value)


def test_a_repaired_file_builds_after_a_refusal(tiny_folder, tmp_path):
    path = tiny_folder / "wiki.txt"
    path.write_text("A. b\n\nC. d\n", encoding="utf-8")
    with pytest.raises(DataError):
        build(Biographies, {"train": path}, tmp_path)
    path.write_text("A. b\nC. d\n", encoding="utf-8")
    assert build(Biographies, {"train": path}, tmp_path)["train"].num_rows == 2


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        ".hidden",
        "Győr",
        "a#b%20",
        "data[1]",
        "a::b",
    ],
)
def test_a_folder_may_have_any_name(tiny_folder, tmp_path, name):
    folder = tiny_folder.rename(tmp_path / name)
    assert build(Biographies, {"train": folder / "wiki.txt"}, tmp_path / "cache")["train"].num_rows == 2


@pytest.mark.parametrize(
    ("builder_class", "options", "complaint"),
    [
        (Biographies, {}, "Biographies needs data_files="),
        (ClosedBookQA, {}, "ClosedBookQA needs data_files="),
        (SpanCorruption, {"data_files": {"train": "wiki.txt"}}, "SpanCorruption needs sentinel="),
    ],
    ids=["bios-no-files", "questions-no-files", "corruption-no-sentinel"],
)
def test_what_a_builder_cannot_do_without_is_asked_for(
    tiny_folder, tmp_path, monkeypatch, builder_class, options, complaint
):
    monkeypatch.chdir(tiny_folder)
    with pytest.raises(ValueError, match=complaint):
        prepare(builder_class(cache_dir=str(tmp_path), **options))


def test_the_real_folder_builds_in_full(cs224n, tmp_path):
    documents = build(Biographies, {"train": cs224n / "wiki.txt"}, tmp_path)["train"]
    assert documents.num_rows == 2937
    assert documents[0]["title"] == "Khatchig Mouradian"
    questions = build(ClosedBookQA, {"train": cs224n / "birth_places_train.tsv"}, tmp_path)["train"]
    assert questions.num_rows == 2000
    assert {len(answers) for answers in questions["answers"][:]} == {1}
