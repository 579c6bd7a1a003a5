"""Each wrong answer is in exactly one class, and the report shows by what."""

import json
import random

import pytest

from data_scripts.questions import Question, question_about
from data_scripts.synthetic_bios import invent
from evaluation.answers import exact_matches
from evaluation.baselines import ceiling
from evaluation.errors import CLASSES, EXAMPLES, find_errors
from evaluation.errors_report import errors_line, errors_section
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.relations_minigpt import Relation

STUDIED = Relation("studied", "Where did {name} study?", answers="school")
WORLD = [
    "Ada Stone. Stone was born in Paris, France, and moved to Oslo .",
    "Ada May. Born in Rome .",
    "Cyd Moss. Moss left Lima for Paris, France .",
    "Bo Stone. Born in Bern .",
]
ADA = question_about("Ada Stone", "Paris")


class Documents:
    """Texts that count how often they are read."""

    def __init__(self, texts: list[str]):
        self.texts = texts
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter(self.texts)


def errors_of(
    questions: list[Question], texts: list[str], documents: list[str], train: list[Question] = ()
) -> dict[str, dict]:
    """Return the classes of answers to the questions of one relation, the first of them the surest."""
    answers = [Answer(text, 1 / (2 + place)) for place, text in enumerate(texts)]
    right = exact_matches(texts, questions)
    return find_errors({"birthplace": (questions, answers, right)}, documents, train)["birthplace"]


def class_of(question: Question, text: str, documents: list[str], train: list[Question] = ()) -> tuple[str, dict]:
    """Return the class of one wrong answer, and the example that it is."""
    errors = errors_of([question], [text], documents, train)
    (found,) = [(name, row["examples"][0]) for name, row in errors.items() if row["count"]]
    return found


@pytest.mark.parametrize(
    ("text", "name", "key", "why"),
    [
        ("Pariss", "other_spelling", None, None),
        ("pâris", "other_spelling", None, None),
        ("France", "part_or_whole", "phrase", "Paris, France"),
        ("Paris Nord", "part_or_whole", None, None),
        ("Oslo", "own_document", "phrase", "… born in Paris, France, and moved to Oslo ."),
        ("Bern", "same_last_name", "whose", "Bo Stone"),
        ("Rome", "same_first_name", "whose", "Ada May"),
        ("Lima", "other_person", "whose", "Cyd Moss"),
        ("Parma", "made_up", None, None),
        ("", "empty", None, None),
        (" \n", "empty", None, None),
    ],
)
def test_each_class_has_the_answer_of_the_worked_example(text, name, key, why):
    found, example = class_of(ADA, text, WORLD)
    assert found == name
    assert (example["question"], example["right"], example["probability"]) == (ADA.text, "Paris", 0.5)
    details = {key: example[key] for key in ("whose", "phrase", "documents") if key in example}
    assert details == ({} if key is None else {key: why})
    # What no document of hers has cannot be learned, whatever the answer was.
    found, example = class_of(ADA._replace(answers=("Kyoto",)), text, WORLD)
    assert (found, example["documents"]) == ("not_in_documents", 1)


def test_a_person_without_a_document_could_not_be_learned():
    found, example = class_of(question_about("Dee Finn", "Rome"), "Oslo", WORLD)
    assert (found, example["documents"]) == ("not_in_documents", 0)


def test_what_only_documents_about_nobody_have_is_elsewhere():
    assert class_of(ADA, "Quito", [*WORLD, "from Quito"])[0] == "elsewhere"


def test_an_earlier_class_takes_what_fits_several():
    # Bern, with each further document, is what fewer and fewer could explain.
    documents = [WORLD[0], "Cyd Moss. Of Bern ."]
    steps = [
        ("Ada Roe. Of Bern .", "same_first_name"),
        ("Eve Stone. Of Bern .", "same_last_name"),
        ("Ada Stone. She saw Bern .", "own_document"),
        ("Of Paris, Bern .", "own_document"),
        ("To Paris, Bern .", "part_or_whole"),
    ]
    assert class_of(ADA, "Bern", documents)[0] == "other_person"
    for document, name in steps:
        documents.append(document)
        assert class_of(ADA, "Bern", documents)[0] == name


def test_a_place_is_around_another_where_documents_write_so_often_enough():
    once = [WORLD[0], "Eve Roe. Of France ."]
    assert class_of(ADA, "France", once)[0] == "own_document"
    lists = [*WORLD, "Eve Roe. Of France, Paris .", "Flo Roe. Of France, Paris ."]
    assert class_of(ADA, "France", lists)[0] == "own_document"
    rarely = [*WORLD, *(f"Eve {number}. Of Paris ." for number in range(30))]
    assert class_of(ADA, "France", rarely)[0] == "own_document"
    # The reverse: the right answer is the country.
    assert class_of(ADA._replace(answers=("France",)), "Paris", WORLD)[0] == "part_or_whole"


@pytest.mark.parametrize(
    ("right", "text", "name"),
    [
        pytest.param("Southampton", "Northampton", "same_last_name", id="a-place-of-others"),
        pytest.param("Southampton", "Sauthamptun", "other_spelling", id="two-letters"),
        pytest.param("Southampton", "Northampten", "made_up", id="three-letters"),
        pytest.param("Rome", "Roma", "other_spelling", id="one-of-four-letters"),
        pytest.param("Rome", "Romni", "made_up", id="two-of-four-letters"),
        pytest.param("St. Louis", "St Louis", "other_spelling", id="marks"),
        pytest.param("東京", "大阪", "made_up", id="two-letters-in-all"),
    ],
)
def test_a_spelling_differs_in_few_letters_and_is_of_no_other_place(right, text, name):
    documents = [f"Ada Stone. Born in {right} .", "Bo Stone. Born in Northampton ."]
    assert class_of(ADA._replace(answers=(right,)), text, documents)[0] == name


def test_training_answers_are_somebody_s_as_documents_are():
    train = [question_about("Eve Stone", "Quito"), question_about("Ada Stone", "Cork", relation=STUDIED)]
    found, example = class_of(ADA, "Quito", WORLD, train)
    assert (found, example["whose"]) == ("same_last_name", "Eve Stone")
    assert class_of(ADA._replace(answers=("Paris", "Quita")), "Quito", WORLD, train)[0] == "same_last_name"
    found, example = class_of(ADA, "Cork", WORLD, train)
    assert (found, example["phrase"]) == ("own_document", "Where did Ada Stone study? Cork")


def test_the_nearest_in_name_is_found_among_those_who_have_the_answer():
    documents = [*WORLD, "Zoe Quirk. Of Quito .", "Ida Stove. Of Quito .", "Max Wu. Of Quito ."]
    assert class_of(ADA, "Quito", documents)[1]["whose"] == "Ida Stove"


def test_any_accepted_answer_counts():
    question = question_about("Ada Stone", "Lutetia", "Paris")
    found, example = class_of(question, "Pariss", WORLD)
    assert (found, example["right"], example["accepted"]) == ("other_spelling", "Lutetia", ["Lutetia", "Paris"])
    assert class_of(question, "France", WORLD)[0] == "part_or_whole"
    assert errors_of([question], ["Paris"], WORLD)["own_document"] == {
        "count": 0,
        "share": None,
        "by_chance": None,
        "examples": [],
    }


def test_a_part_of_the_right_phrase_is_no_other_phrase_of_the_document():
    question = question_about("Ada Stone", "Boston, Massachusetts")
    documents = ["Ada Stone. Born in Boston, Massachusetts, by the Massachusetts Bay ."]
    for part in ("Boston", "massachusetts"):
        assert class_of(question, part, documents)[0] == "part_or_whole"
    assert class_of(question, "Massachusetts Bay", documents)[0] == "own_document"


def test_people_of_one_name_share_their_documents():
    documents = ["Ada Stone. Born in Paris .", "Ada Stone. A judge from Rome ."]
    assert class_of(ADA, "Rome", documents)[0] == "own_document"
    assert class_of(ADA._replace(answers=("Rome",)), "Paris", documents)[0] == "own_document"


@pytest.mark.parametrize(
    ("name", "right", "text", "documents", "expected"),
    [
        ("王小明", "東京", "大阪", ["王小明。生于東京。", "李大明。生于大阪。"], "same_last_name"),
        ("王小明", "東京", "大阪", ["王小明。生于東京。后居大阪。"], "own_document"),
        ("王小明", "東京", "日本", ["王小明。生于東京、日本。", "李。生于東京、日本。"], "part_or_whole"),
        ("Иван Петров", "Киев", "Тверь", ["Иван Петров. Родился: Киев .", "Пётр Петров. Тверь ."], "same_last_name"),
        ("राम वर्मा", "काशी", "आगरा", ["राम वर्मा. काशी .", "राम दास. आगरा ."], "same_first_name"),
        ("Bo Lind Jr.", "Oslo", "Rome", ["Bo Lind Jr. Of Oslo .", "Al Moe Jr. Of Rome ."], "other_person"),
        ("Bo Lind Jr.", "Oslo", "Rome", ["Bo Lind Jr. Of Oslo .", "Al Lind. Of Rome ."], "same_last_name"),
        ("Plato", "Athens", "Rome", ["Plato. Of Athens .", "Cato. Of Rome ."], "other_person"),
    ],
)
def test_names_and_answers_of_any_script_are_compared(name, right, text, documents, expected):
    assert class_of(question_about(name, right), text, documents)[0] == expected


def test_every_wrong_answer_is_in_one_class_and_the_documents_are_read_once():
    bios = invent(120, seed=5)
    rng = random.Random(0)
    documents = Documents(bios.documents)
    places = [question.answer for question in bios.train]
    words = [*places, *"".join(bios.documents[:20]).split(), "", " ", ".", "|", "Nowhere", *(p[:-1] for p in places)]
    asked = {}
    for relation in ("birthplace", "studied"):
        questions = [question._replace(relation=relation) for question in bios.validation]
        texts = [question.answer if rng.random() < 0.2 else rng.choice(words) for question in questions]
        asked[relation] = (questions, [Answer(text, rng.random()) for text in texts], exact_matches(texts, questions))
    found = find_errors(asked, documents, bios.train)
    assert documents.passes == 1
    for relation, (questions, _, right) in asked.items():
        errors = found[relation]
        assert list(errors) == list(CLASSES)
        assert sum(row["count"] for row in errors.values()) == len(questions) - sum(right)
        assert sum(row["share"] for row in errors.values()) == pytest.approx(1)
        assert sum(row["by_chance"] or 0.0 for row in errors.values()) <= 1
        assert all(len(row["examples"]) == min(EXAMPLES, row["count"]) for row in errors.values())
    json.dumps(found, allow_nan=False)


def test_what_could_not_be_learned_is_what_is_above_the_ceiling():
    bios = invent(400, seed=5)
    errors = errors_of(bios.validation, ["Nowhere"] * len(bios.validation), bios.documents, bios.train)
    assert errors["not_in_documents"]["share"] == pytest.approx(1 - ceiling(bios.documents, bios.validation))
    assert errors["not_in_documents"]["count"] > 0
    assert errors["made_up"]["share"] == pytest.approx(ceiling(bios.documents, bios.validation))


def test_documents_are_not_read_where_all_answers_are_right():
    documents = Documents(WORLD)
    errors = find_errors({"birthplace": ([ADA], [Answer("Paris", 0.9)], [True])}, documents, [])["birthplace"]
    assert documents.passes == 0
    assert errors_section(errors, 1, "##") == []
    assert errors_line(errors) is None


def test_relations_have_their_own_classes():
    studied = question_about("Bo Stone", "LSE", relation=STUDIED)
    asked = {
        "birthplace": ([ADA], [Answer("Oslo", 0.5)], [False]),
        "studied": ([studied], [Answer("Bern", 0.25)], [False]),
    }
    found = find_errors(asked, [*WORLD, "Bo Stone. Stone studied at LSE ."], [])
    assert [example["answer"] for example in found["birthplace"]["own_document"]["examples"]] == ["Oslo"]
    assert [example["answer"] for example in found["studied"]["own_document"]["examples"]] == ["Bern"]


def test_a_namesake_s_answer_is_compared_with_chance():
    # Everybody answers as the one with the same last name was born; with the answers swapped nobody does.
    lasts = ["Stone", "May", "Moss", "Nagy"]
    places = ["Rome", "Oslo", "Lima", "Bern"]
    questions = [question_about(f"Ada{last} {last}", "Paris") for last in lasts]
    documents = [f"{question.name}. Of Paris ." for question in questions]
    documents += [f"Bo{last} {last}. Of {place} ." for last, place in zip(lasts, places, strict=True)]
    errors = errors_of(questions, places, documents)
    assert (errors["same_last_name"]["share"], errors["same_last_name"]["by_chance"]) == (1.0, 0.0)
    assert errors["made_up"]["by_chance"] is None
    assert errors_of(questions[:1], places[:1], documents)["same_last_name"]["by_chance"] is None
    # One answer to all is the namesake's of one of them, whoever is asked about.
    errors = errors_of(questions, ["Rome"] * 4, documents)
    assert (errors["same_last_name"]["share"], errors["same_last_name"]["by_chance"]) == (0.25, 0.25)


def test_the_surest_examples_are_shown_with_why():
    questions = [question_about(f"Ada{number} Stone", "Paris") for number in range(EXAMPLES + 2)]
    documents = [*WORLD, *(f"{question.name}. Of Paris ." for question in questions)]
    errors = errors_of(questions[::-1], ["Bern"] * len(questions), documents)
    lines = "\n".join(errors_section(errors, 48, "##")).splitlines()
    assert lines[0] == "## What went wrong"
    assert "| the answer of somebody with the same last name | 12 | 100.0 % | 25.0 % | 100.0 % |" in lines
    assert "### The answer of somebody with the same last name" in lines
    rows = [line for line in lines if line.startswith("| Where")]
    assert len(rows) == EXAMPLES
    assert rows[0] == "| Where was Ada11 Stone born? | Bern | Paris | 50.0 % | Bo Stone |"
    assert errors_line(errors) == ("Of the wrong answers: the answer of somebody with the same last name (100.0 %).")


def test_text_from_data_is_no_markdown():
    name = "Ada | <img src=x> *Stone*"
    documents = [f"{name}. Of Paris and [x](http://y) `z` .", "Bo *Stone*. Of a|b\\|c ."]
    question = question_about(name, "Paris")
    for text in ("[x](http://y) `z`", "a|b\\|c"):
        errors = errors_of([question], [text], documents)
        section = "\n".join(errors_section(errors, 1, "##"))
        (row,) = [line for line in section.splitlines() if line.startswith("| Where")]
        plain = row.replace("\\\\", "")
        assert plain.replace("\\|", "").count("|") == 6
        for mark in "<[`*":
            assert plain.count(mark) == plain.count(f"\\{mark}")
