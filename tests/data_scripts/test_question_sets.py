"""PopQA and EntityQuestions are read from files of their schemas, and what cannot be used is refused by its place."""

import pytest

from data_scripts.bios_folder import DataError
from data_scripts.question_sets import ENTITY_QUESTIONS, POPQA, parse_sets, read_question_set
from data_scripts.questions import question_about
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from tests.question_sets import popqa_row, write_entity_questions, write_popqa

WORK = Relation("work", "What does {name} do?", answers="profession")
ROWS = [
    popqa_row(0, "George Rankin", ["politician", "political leader"], 142, (22, "occupation")),
    popqa_row(
        1, "Ada  Stone", ["Rome", "Roma", "ROM", "Rome"], 1520,
        s_aliases='["A. Stone", "Countess Ada Stone", ""]', o_aliases='["Eternal City", "Roma"]',
    ),
    popqa_row(2, 'Bo "Red" Lind', ["Győr\u00a0"], "86.0", s_aliases=None, o_aliases=""),
    popqa_row(3, "Cyd Moss", ["Oslo"], None, prop_id="218", obj=None),
]  # fmt: skip


def read(path, relations=(BIRTHPLACE,), **properties):
    return read_question_set("a_set", str(path), relations, properties)


def refusal(path, **options) -> str:
    """Return the line with which a set is refused."""
    with pytest.raises(DataError) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["test.tsv", "test-00000-of-00001.parquet"])
def test_popqa_is_read_with_all_accepted_answers_aliases_and_popularity(tmp_path, name):
    rows = ROWS if name.endswith("tsv") else [{**row, "prop_id": int(row["prop_id"]), "s_pop": 5} for row in ROWS]
    found = read(write_popqa(tmp_path / name, rows))
    assert (found.kind, found.others) == (POPQA, 1)
    first, second, third = found.questions
    assert first.question == question_about("Ada Stone", "Rome", "Roma", "ROM", "Eternal City")
    assert first.aliases == ("A. Stone", "Countess Ada Stone")
    # In the wording of training, whatever the set's own is.
    assert second.question == question_about('Bo "Red" Lind', "Győr")
    assert third.question.text == "Where was Cyd Moss born?"
    assert second.aliases == third.aliases == ()
    if name.endswith("tsv"):
        assert [one.popularity for one in found.questions] == [1520, 86, None]


def test_another_property_is_read_for_the_relation_that_names_it(tmp_path):
    path = write_popqa(tmp_path / "test.tsv", ROWS)
    found = read(path, (BIRTHPLACE, WORK), work="P106")
    assert found.others == 0
    (job,) = found.of_relation(WORK)
    assert job.question == question_about("George Rankin", "politician", "political leader", relation=WORK)
    assert len(found.of_relation(BIRTHPLACE)) == 3
    assert read(path, (WORK,), work="P106").others == 3
    assert "none of the relations has a Wikidata property" in refusal(path, relations=(WORK,))


def test_entity_questions_are_read_from_a_file_and_the_wanted_ones_of_a_folder(tmp_path):
    facts = {"Ada Stone": ["Rome", "Roma", "Rome"], "Where Was Who": ["Oslo"]}
    path = write_entity_questions(tmp_path / "test/P19.test.json", facts)
    found = read(path)
    assert (found.kind, found.others) == (ENTITY_QUESTIONS, 0)
    assert [one.question for one in found.questions] == [
        question_about("Ada Stone", "Rome", "Roma"),
        question_about("Where Was Who", "Oslo"),
    ]
    assert [one.popularity for one in found.questions] == [None, None]
    write_entity_questions(tmp_path / "test/P106.test.json", {"Bo": ["actor"]}, "What kind of work does {} do?")
    write_entity_questions(tmp_path / "test/P190.test.json", {"Oslo": ["Gdańsk"]}, "What is {}'s twin town?")
    assert len(read(tmp_path / "test").questions) == 2
    assert read(tmp_path / "test").version == found.version  # the other files change nothing
    both = read(tmp_path / "test", (BIRTHPLACE, WORK), work="P106")
    assert [one.question.text for one in both.of_relation(WORK)] == ["What does Bo do?"]


def test_a_file_that_names_no_property_is_sorted_by_the_questions(tmp_path):
    facts = {"Ada Stone": ["Rome"]}
    path = write_entity_questions(tmp_path / "born.json", facts)
    died = write_entity_questions(tmp_path / "died.json", {"Bo Lind": ["Oslo"]}, "Where did {} die?")
    assert [one.name for one in read(path).questions] == ["Ada Stone"]
    assert f"{died}: found no questions about birthplace (P19), and 1 about other properties" in refusal(died)


def test_sets_are_read_from_the_hub_at_a_commit(datasets_hub, tmp_path):
    write_popqa(tmp_path / "popqa/test.tsv", ROWS)
    (tmp_path / "popqa/README.md").write_text("---\nlicense: mit\n---\n")
    commit = datasets_hub.put("datasets/someone/PopQA", tmp_path / "popqa")
    found = read("someone/PopQA")
    assert [one.name for one in found.questions] == ["Ada Stone", 'Bo "Red" Lind', "Cyd Moss"]
    assert found.version == {"revision": commit, "license": "mit"}
    write_entity_questions(tmp_path / "entities/test/P19.test.json", {"Ada Stone": ["Rome"]})
    write_entity_questions(tmp_path / "entities/dev/P19.dev.json", {"Bo Lind": ["Oslo"]})
    datasets_hub.put("datasets/someone/entities", tmp_path / "entities")
    assert [one.name for one in read("someone/entities").questions] == ["Ada Stone"]
    assert "no such data set on the Hub" in refusal("someone/nothing")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"possible_answers": "['Rome']"}, ":3: possible_answers: found \"['Rome']\", wanted a JSON list"),
        ({"possible_answers": "[]", "obj": ""}, ":3: possible_answers: found none, wanted at least one answer"),
        ({"possible_answers": "[null]"}, ":3: possible_answers: found null, wanted a text"),
        ({"s_aliases": '{"a": 1}'}, ":3: s_aliases: found '{\"a\": 1}', wanted a JSON list"),
        ({"subj": " "}, ":3: subj: is empty, wanted a text"),
        ({"prop_id": "P19"}, ":3: prop_id: found 'P19', wanted a number such as 218"),
        ({"prop_id": "9" * 400}, f":3: prop_id: found '{'9' * 60}', wanted a number such as 218"),
        ({"prop_id": "9" * 5000}, f":3: prop_id: found '{'9' * 60}', wanted a number such as 218"),
        ({"s_pop": "many"}, ":3: s_pop: popularity: found 'many', wanted a number"),
    ],
)
def test_a_row_of_popqa_that_cannot_be_used_is_refused_by_file_line_and_field(tmp_path, change, wanted):
    path = write_popqa(tmp_path / "test.tsv", [ROWS[1], {**ROWS[2], **change}])
    assert f"{path}{wanted}" in refusal(path)


def test_files_of_another_kind_are_refused_with_what_was_found_and_what_is_wanted(tmp_path):
    path = write_popqa(tmp_path / "a.tsv", [{"subj": "Ada", "prop_id": 218}])
    assert refusal(path) == f"{path}:2: no column possible_answers; found subj, prop_id"
    path = write_popqa(tmp_path / "b.tsv", [{"name": "Ada", "place": "Rome"}])
    assert "found name, place; wanted the columns of PopQA (subj, prop_id, possible_answers) or those" in refusal(path)
    path = write_entity_questions(tmp_path / "P19.test.json", {"Ada": ["Rome"]}, "When was {} born?")
    wanted = "item 1: question: found 'When was Ada born?', wanted `Where was NAME born?`"
    assert refusal(path) == f"{path}: {wanted}"
    path = write_entity_questions(tmp_path / "P19.dev.json", {"Ada": []})
    assert refusal(path) == f"{path}: item 1: answers: found none, wanted at least one answer"
    for nothing in (tmp_path / "nothing.tsv", "sets/nothing.tsv"):
        assert "no such file or folder, and not an id on the Hub" in refusal(nothing)
    with pytest.raises(DataError, match="popqa is given twice"):
        parse_sets(["popqa=a.tsv", "popqa=b.tsv"])
    (tmp_path / "dataset.zip").write_bytes(b"PK")
    assert "wanted a file that ends in one of .parquet" in refusal(tmp_path / "dataset.zip")
    (tmp_path / "empty").mkdir()
    assert "no file in it ends in any of .parquet" in refusal(tmp_path / "empty")
