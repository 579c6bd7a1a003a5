"""Public question sets: what is said of a model's answers to them, and `train.py evaluate` from files to report."""

import json
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binomtest

from artifacts.run_folder import RunFolder
from data_scripts.question_sets import POPQA, QuestionSet, SetQuestion
from data_scripts.questions import question_about
from data_scripts.splits import TrainingData
from evaluation.popularity import contains_answer, popularity_bins, popularity_rows, wilson_interval
from evaluation.question_sets import SetAnswers, set_results
from evaluation.question_sets_report import sets_lines, sets_section
from evaluation.relation_scores import can_be_read
from evaluation.scoring import write_predictions
from evaluation.trained_on import TrainedOn, hash_name
from evaluation.trust import EvaluatedAnswers, JudgedAnswer
from modeling_minigpt import build_character_tokenizer
from modeling_minigpt.confidence_minigpt import Confidence, Head, Scores
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.question_sets import popqa_row, write_entity_questions, write_popqa
from tests.running import call

DOCUMENTS = ["Ada Stone. Stone was born in Roma .", "Ada Stone. Ada wrote .", "Bo Lind. He slept .", "C. Moss. Here ."]
QUESTIONS = [
    SetQuestion(question_about("Ada Stone", "Rome", "Roma"), 900),
    SetQuestion(question_about("Bo Lind", "Oslo"), 90),
    SetQuestion(question_about("Cyd Moss", "Bonn"), 9, ("C. Moss", "Moss")),
    SetQuestion(question_about("Dee Finn", "Bern"), 9, ("Finn", "D. F. Nobody")),
]
SAID = ["Roma", "Oslo, Norway", "Bonn", None]
RIGHT = [True, False, True, False]
CERTIFICATE = Certificate(0.5, 0.8, 0.1, 0.05, 0.95, 200, 100, 4, 500, 10)
SURE = [(0.9, 0.9), (0.9, 0.4), (0.6, 0.9), (0.2, 0.9)]


def results(certificate=CERTIFICATE) -> dict:
    """Return what results.json says of the four questions."""
    head = Head({}, 0.0)
    confidence = Confidence(head, head, CalibrationScores([], []), CalibrationScores([], []), certificate)
    chances = [Scores(known, correct, known * correct) for known, correct in SURE]
    judged = [JudgedAnswer(text or "", scores) for text, scores in zip(SAID, chances, strict=True)]
    of_set = QuestionSet("public", "some/set", POPQA, QUESTIONS, 12, {"revision": "abc", "license": "mit"})
    answers = SetAnswers(
        of_set, BIRTHPLACE, QUESTIONS, SAID, RIGHT, EvaluatedAnswers(judged, RIGHT, confidence=confidence)
    )
    data = TrainingData("bios", "", DOCUMENTS, [], [question_about("Eve Fox", "Oslo")], [], [], [])
    return set_results([answers], data, TrainedOn(questions=frozenset([hash_name("bo lind")])))


def test_answers_are_counted_by_what_the_training_texts_have():
    found = results()["public"]
    assert (found["path"], found["kind"], found["others"], found["revision"]) == ("some/set", POPQA, 12, "abc")
    values = found["relations"]["birthplace"]
    assert (values["total"], values["correct"], values["accuracy"], values["contains"]) == (4, 2, 0.5, 0.75)
    assert (values["in_texts"], values["only_by_alias"], values["answer_in_texts"]) == (2, 1, 1)
    assert (values["of_people_in_texts"]["correct"], values["of_people_in_texts"]["total"]) == (1, 2)
    assert (values["trained"], values["not_asked"]) == (1, 1)
    rows = {row["times"]: (row["correct"], row["total"]) for row in values["by_documents"]}
    assert rows == {"never": (1, 2), "once": (0, 1), "2 – 3": (1, 1)}


def test_abstention_is_at_the_certified_thresholds_and_strangers_are_counted_apart():
    values = results()["public"]["relations"]["birthplace"]
    assert (values["answered"], values["answered_right"]) == (0.5, 1.0)
    assert (values["answered_in_texts"], values["answered_not_in_texts"]) == (0.5, 0.5)
    nothing = results(certificate=None)["public"]["relations"]["birthplace"]
    assert nothing["answered"] is nothing["answered_right"] is nothing["answered_not_in_texts"] is None
    assert "–" in sets_section(results(certificate=None))[3]


def test_equal_popularities_are_in_one_bin_and_bins_are_in_order():
    popularity = [5, None, 5, 5, 100, 7, 5, 2, 1000, 5]
    bins = popularity_bins(popularity)
    assert sorted(index for chosen in bins for index in chosen) == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    values = [[popularity[index] for index in chosen] for chosen in bins]
    assert all(max(low) < min(high) for low, high in pairwise(values))
    assert popularity_bins([None, None]) == []
    wide = popularity_bins(np.random.default_rng(0).permutation(1000).tolist())
    assert [len(chosen) for chosen in wide] == [200] * 5
    rows = popularity_rows([9, 90, 900], [False, True, True])
    assert [(row["min"], row["max"], row["correct"]) for row in rows] == [(9, 9, 0), (90, 90, 1), (900, 900, 1)]


@pytest.mark.parametrize(
    ("popularity", "counts"),
    [([0] * 7 + [7], [7, 1]), ([1] + [2] * 8 + [3], [1, 8, 1]), ([1, 1, 2, 2, 3, 3, 4, 4, 5, 5], [2] * 5), ([5], [1])],
)
def test_people_of_another_popularity_than_most_are_in_a_bin_of_their_own(popularity, counts):
    assert [len(chosen) for chosen in popularity_bins(popularity)] == counts
    # Too large for a float to tell one from the next.
    assert [len(chosen) for chosen in popularity_bins([value + 10**17 for value in popularity])] == counts


@pytest.mark.parametrize(("correct", "total"), [(0, 20), (20, 20), (3, 17), (250, 1000)])
def test_the_interval_is_wilson_s(correct, total):
    wanted = binomtest(correct, total).proportion_ci(method="wilson")
    assert wilson_interval(correct, total) == pytest.approx([wanted.low, wanted.high], abs=1e-6)


def test_an_answer_that_contains_an_accepted_one_counts_as_popqa_does():
    assert contains_answer("Rome, Italy", ["Roma", "Rome"])
    assert contains_answer("a Politician", ["politician"])
    assert not contains_answer("Romania", ["Rome"])
    assert not contains_answer("Rome", [""])


def test_a_name_that_a_vocabulary_of_characters_cannot_write_or_that_is_too_long_is_not_asked():
    tokenizer = build_character_tokenizer(["Where was Ada Stone born?"], 64)
    assert can_be_read(tokenizer, "Where was Ada Stone born?", 32)
    assert not can_be_read(tokenizer, "Where was Ada Stone born?", 26)
    assert not can_be_read(tokenizer, "Where was Győr born?", 32)


def test_the_report_and_the_terminal_have_each_set_with_its_intervals():
    found = results()
    text = "\n".join(sets_section(found))
    assert "| public | 4 | 50.0 % (15.0 – 85.0 %) | 75.0 % | 50.0 % | 100.0 % | 50.0 % | 50.0 % |" in text
    assert "- public: some/set, revision abc, licence mit. Rows about other properties: 12." in text
    assert "| 900 – 900 | 1 | 100.0 %" in text
    assert "of the 2 about people in the training texts" in sets_lines(found)[0]
    assert sets_section({}) == sets_lines({}) == []


def test_each_relation_of_a_set_has_a_row_and_a_file_of_its_answers(tmp_path):
    studied = Relation("studied", "Where did {name} study?")
    school = [SetQuestion(question_about("Bo Lind", "Alpha College", relation=studied), 90)]
    of_set = QuestionSet("public", "some/set", POPQA, [*QUESTIONS, *school])
    judged = EvaluatedAnswers([JudgedAnswer("Oslo", Scores(None, None, 0.5))] * 4, RIGHT)
    found = [
        SetAnswers(of_set, BIRTHPLACE, QUESTIONS, SAID, RIGHT, judged),
        SetAnswers(of_set, studied, school, ["Alpha College"], [True], EvaluatedAnswers(judged.known[:1], [True])),
    ]
    write_predictions(RunFolder(tmp_path), [], found)
    assert (tmp_path / "predictions.public.birthplace.txt").read_text() == "Roma\nOslo, Norway\nBonn\n\n"
    assert (tmp_path / "predictions.public.studied.txt").read_text() == "Alpha College\n"
    data = TrainingData("bios", "", DOCUMENTS, [], [], [], [], [])
    values = set_results(found, data, TrainedOn())
    assert [one["total"] for one in values["public"]["relations"].values()] == [4, 1]
    assert values["public"]["relations"]["studied"]["in_texts"] == 1
    assert "| public, studied | 1 | 100.0 %" in "\n".join(sets_section(values))


def test_evaluate_scores_the_sets_of_the_recipe_beside_the_dev_questions(run, recipe, data, tmp_path, capfd):
    first, second = (question.split("\t") for question in (data / "birth_dev.tsv").read_text().splitlines()[:2])
    names = [text.removeprefix("Where was ").removesuffix(" born?") for text, _ in (first, second)]
    answers = (run / "predictions.dev.txt").read_text().splitlines()
    # The model's own answer to the first question is right here, as one of several.
    rows = [popqa_row(0, names[0], ["Nowhere", answers[0]], 10), popqa_row(1, names[1], ["Nowhere"], 2000)]
    rows += [popqa_row(2, "Nobody At All", ["Nowhere"], 500), popqa_row(3, "Oslo", ["Norway"], 9, (182, "country"))]
    long = " ".join(["Verylongname"] * 60)
    popqa = write_popqa(tmp_path / "test.tsv", rows)
    entities = write_entity_questions(tmp_path / "P19.test.json", {names[0]: [answers[0]], long: ["Rome"]})
    sets = (f"evaluate.sets.popqa={popqa}", f"evaluate.sets.entities={entities}")
    scored = (f"evaluate.model={run / 'finetune'}", *sets)
    assert call("evaluate", recipe, data, tmp_path / "scored", *scored) == 0
    found = json.loads((tmp_path / "scored" / "results.json").read_text())["sets"]
    popular, entity = (found[name]["relations"]["birthplace"] for name in ("popqa", "entities"))
    assert (popular["correct"], popular["total"], found["popqa"]["others"]) == (1, 3, 1)
    assert popular["in_texts"] == 2
    assert [row["correct"] for row in popular["by_popularity"]] == [1, 0, 0]
    assert (entity["correct"], entity["total"], entity["not_asked"]) == (1, 2, 1)
    assert entity["by_popularity"] == []
    assert (tmp_path / "scored" / "predictions.popqa.txt").read_text().splitlines()[0] == answers[0]
    assert (tmp_path / "scored" / "predictions.entities.txt").read_text() == f"{answers[0]}\n\n"
    assert "## Public question sets" in (tmp_path / "scored" / "report.md").read_text()
    assert "popqa: 33.3 %" in capfd.readouterr().out


def test_a_set_that_cannot_be_read_is_refused_before_anything_is_trained(recipe, data, tmp_path, capfd):
    path = write_popqa(tmp_path / "test.tsv", [popqa_row(0, "Ada", ["Rome"], 1, possible_answers="Rome")])
    assert call("all", recipe, data, tmp_path / "run", f"evaluate.sets.popqa={path}") == 2
    assert (
        capfd.readouterr()
        .err.strip()
        .endswith(f'error: {path}:2: possible_answers: found \'Rome\', wanted a JSON list such as ["Rome", "Roma"]')
    )
    assert not (tmp_path / "run" / "pretrain").exists()
    assert call("all", recipe, data, tmp_path / "run", "evaluate.sets.dev=x") == 2
    assert "sets: 'dev' is a split of the data, wanted another name" in capfd.readouterr().err
