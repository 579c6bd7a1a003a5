"""What a run may learn from: held-out questions and withheld people are in nothing else."""

import pytest

from data_scripts.bios_folder import FILES, DataError, read_questions
from data_scripts.divided_files import split_questions
from data_scripts.questions import question_about
from data_scripts.splits import load_scoring_questions, load_training_data, made_up_people
from data_scripts.strangers import FOLDS
from tests.running import recipe_of

PARTS = {"validation_questions": 3, "calibration_questions": 5, "withheld_people": 4}


def load(folder, tmp_path, seed=0, **sizes):
    return load_training_data(recipe_of(tmp_path / "run", path=folder, seed=seed, **sizes), tmp_path / "run")


def test_every_training_question_is_in_one_part(data, tmp_path):
    loaded = load(data, tmp_path, **PARTS)
    parts = [loaded.held_out, loaded.calibration, loaded.withheld, loaded.train]
    assert [len(part) for part in parts] == [3, 5, 4, 8]
    assert sorted(pair for part in parts for pair in part) == sorted(read_questions(data / FILES["train"]))
    assert load_scoring_questions(loaded) == ("held_out", loaded.held_out)


def test_nothing_is_held_out_unless_asked_for(data, tmp_path):
    loaded = load(data, tmp_path)
    assert (loaded.held_out, loaded.calibration, loaded.withheld, loaded.withheld_documents) == ([], [], [], [])
    assert loaded.train == read_questions(data / FILES["train"])


def test_the_same_questions_are_held_out_whatever_the_seed(data, tmp_path):
    one, other = (load(data, tmp_path, seed, **PARTS) for seed in (0, 1))
    assert (one.calibration, one.withheld) == (other.calibration, other.withheld)


def test_tuning_questions_are_never_those_that_calibrate_or_are_withheld(data, tmp_path):
    alone = load(data, tmp_path, calibration_questions=5, withheld_people=4)
    tuned = load(data, tmp_path, **PARTS)
    assert (alone.calibration, alone.withheld) == (tuned.calibration, tuned.withheld)


def test_a_line_more_moves_one_person_at_most_into_a_part_or_out_of_it(tmp_path):
    questions = [question_about(f"Person {index}", "Rome") for index in range(300)]
    before = split_questions(questions, [50, 40, 30], tmp_path)
    for place in (0, 150, 300):
        longer = [*questions[:place], question_about("Somebody New", "Oslo"), *questions[place:]]
        for part, other in zip(before, split_questions(longer, [50, 40, 30], tmp_path), strict=True):
            assert len(set(part) - set(other)) <= 1


def test_a_question_of_another_form_cannot_be_withheld(tiny_folder, tmp_path):
    (tiny_folder / FILES["train"]).write_text("Who was Ada?\tRome\nWho was Eva?\tOslo\n")
    with pytest.raises(DataError, match=r"train\.tsv:1: found 'Who was Ada\?', wanted"):
        load(tiny_folder, tmp_path, withheld_people=1)


def test_made_up_people_for_calibration_and_for_evaluation_are_others(data, tmp_path):
    loaded = load(data, tmp_path, **PARTS)
    folds = [set(made_up_people(loaded, fold, 20)) for fold in FOLDS]
    real = {question.name for question in read_questions(data / FILES["train"])}
    assert all(len(fold) > 5 for fold in folds)
    assert not folds[0] & folds[1]
    assert not (folds[0] | folds[1]) & real


def test_no_document_names_a_withheld_person_but_all_the_others_stay(data, tmp_path):
    loaded, everything = load(data, tmp_path, **PARTS), load(data, tmp_path)
    for question in loaded.withheld:
        assert not [document for document in loaded.documents if question.name in document]
    assert len(loaded.withheld_documents) == 4 * 4  # lines a person
    withheld = set(loaded.withheld_documents)
    assert loaded.documents == [document for document in everything.documents if document not in withheld]
    for question in loaded.calibration:
        assert [document for document in loaded.documents if document.startswith(question.name)]


def test_a_mention_in_another_s_line_is_withheld_too(tiny_folder, tmp_path):
    (tiny_folder / FILES["train"]).write_text("Where was Ada Stone born?\tRome\nWhere was Eva Lund born?\tOslo\n")
    with (tiny_folder / FILES["documents"]).open("a") as file:
        file.write("Cyd Moss. Moss married Ada Stone and Eva Lund .\n")
    loaded = load(tiny_folder, tmp_path, withheld_people=1)
    assert len(loaded.withheld) == 1
    assert "Cyd Moss. Moss married Ada Stone and Eva Lund ." in loaded.withheld_documents


def test_a_person_who_is_asked_for_twice_stays_in_one_part(tiny_folder, tmp_path):
    question = "Where was Ada Stone born?"
    (tiny_folder / FILES["train"]).write_text(f"{question}\tRome\nWhere was Eva Lund born?\tOslo\n{question}\tLazio\n")
    loaded = load(tiny_folder, tmp_path, calibration_questions=1)
    assert sorted([len(loaded.calibration), len(loaded.train)]) == [1, 2]
    assert not {question.text for question in loaded.calibration} & {question.text for question in loaded.train}


def test_holding_out_everybody_is_refused_with_the_numbers(data, tmp_path):
    with pytest.raises(DataError, match=r"birth_places_train\.tsv: asks for 20 people, but the recipe holds out 20"):
        load(data, tmp_path, validation_questions=5, calibration_questions=5, withheld_people=10)


def test_withholding_every_document_is_refused(tiny_folder, tmp_path):
    (tiny_folder / FILES["train"]).write_text("Where was was born?\tRome\nWhere was born born?\tOslo\n")
    with pytest.raises(DataError, match=r"wiki\.txt: every line names a withheld person"):
        load(tiny_folder, tmp_path, withheld_people=1)


@pytest.mark.parametrize("pair", ["Where was ⁇ born?\tRome", "Where was Ada born?\tRo□me"], ids=["question", "place"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_question_with_a_special_token_is_left_out_and_reported(tiny_folder, tmp_path, caplog, split, pair):
    path = tiny_folder / FILES[split]
    path.write_text(f"Where was Bo Li born?\tOslo\n{pair}\n", encoding="utf-8")
    loaded = load(tiny_folder, tmp_path)
    questions = loaded.train if split == "train" else load_scoring_questions(loaded)[1]
    assert [(question.name, question.answer) for question in questions] == [("Bo Li", "Oslo")]
    assert f"{path}:2" in caplog.text


def test_a_dev_file_of_which_nothing_is_left_is_refused(tiny_folder, tmp_path):
    (tiny_folder / FILES["validation"]).write_text("Where was ⁇ born?\tRome\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"birth_dev\.tsv: every line has a special token"):
        load_scoring_questions(load(tiny_folder, tmp_path))


def test_a_folder_with_an_impossible_name_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load("x" * 5000, tmp_path)
