"""`train.py` with several relations: results, candidates, pipeline, card and files of each; what is refused."""

import json

import pytest
from huggingface_hub import ModelCard
from transformers import pipeline

from artifacts.run_folder import RunFolder
from data_scripts.bios_folder import FILES, read_lines
from tests.publishing import dry_run
from tests.question_sets import popqa_row, write_popqa
from tests.running import call, command_line, finish, start_torchrun
from tests.two_relations import SCHOOLS, STUDIED, write_two_relations

SCHOOL = "relations.studied.answers=school"
SETTINGS = (STUDIED, SCHOOL, "evaluate.max_new_tokens=16")
KEYS = {
    "accuracy",
    "correct",
    "ceiling",
    "majority",
    "majority_answer",
    "no_pretraining",
    "total",
    "trust",
    "exposure",
    "errors",
}


@pytest.fixture(scope="module")
def both(recipe, tmp_path_factory):
    """A finished run of two relations."""
    folder = tmp_path_factory.mktemp("both")
    write_two_relations(folder / "data")
    held_back = ("data.calibration_questions=6", "data.withheld_people=2")
    assert call("all", recipe, folder / "data", folder / "run", *SETTINGS, *held_back) == 0
    return folder / "run"


@pytest.fixture
def results(both):
    return json.loads((both / "results.json").read_text())


def test_each_relation_has_its_results_and_the_first_ones_are_at_the_top(both, results):
    relations = results["relations"]
    assert list(relations) == ["birthplace", "studied"]
    for values in relations.values():
        assert set(values) >= KEYS
        assert values["ceiling"] > 0.9
        assert values["trust"]["accuracy"] is not None
        assert sum(row["count"] for row in values["errors"].values()) == values["total"] - values["correct"]
        assert {sample["place"] is None for sample in values["samples"]} == {True, False}
    assert relations["studied"]["majority_answer"] in SCHOOLS
    assert {sample["question"].startswith("Where did") for sample in relations["studied"]["samples"]} == {True}
    first = relations["birthplace"]
    assert {key: results["dev"][key] for key in ("accuracy", "correct", "total")} == {
        key: first[key] for key in ("accuracy", "correct", "total")
    }
    assert results["baselines"]["ceiling"] == first["ceiling"]
    assert results["trust"] == first["trust"]


def test_each_relation_has_its_predictions_plot_section_and_lines_in_the_terminal(both, results, recipe, capfd):
    report = (both / "report.md").read_text()
    for name, suffix in (("birthplace", ""), ("studied", ".studied")):
        lines = (both / f"predictions.dev{suffix}.txt").read_text().splitlines()
        assert len(lines) == results["relations"][name]["total"]
        assert f"](trust{suffix}.png)" in report
        assert (both / f"trust{suffix}.png").is_file()
    assert "## studied: “Where did NAME study?”" in report
    assert "| right school |" in report
    data = both.parent / "data"
    held_back = ("data.calibration_questions=6", "data.withheld_people=2")
    assert call("all", recipe, data, both, *SETTINGS, *held_back, resume=True) == 0
    shown = capfd.readouterr().out
    assert "dev birthplace questions" in shown
    assert "dev studied questions" in shown


def test_a_relation_that_cannot_be_calibrated_says_so_by_its_name(both, results):
    reasons = RunFolder(both).training_record("finetune")["uncalibrated"]
    assert set(reasons) == {"birthplace", "studied"}
    for name, reason in reasons.items():
        assert results["relations"][name]["trust"]["refusal"] == reason
        assert "too few right answers" in reason


def test_the_pipeline_answers_each_question_under_its_own_candidates(both):
    ask = pipeline("closed-book-qa", model=str(both / "finetune"), device="cpu", trust_remote_code=True)
    name = ask.names.text.splitlines()[0]
    born, studied, bare = ask([f"Where was {name} born?", f"where did {name} study", name])
    assert (born["relation"], studied["relation"], bare["relation"]) == ("birthplace", "studied", "birthplace")
    assert set(ask.facts["studied"].candidates) == set(SCHOOLS)
    assert not set(ask.facts["birthplace"].candidates) & set(SCHOOLS)
    assert {one["answer"] for one in studied["candidates"]} & set(SCHOOLS)
    assert ask(name.upper())["matched_name"] == name


def test_the_card_names_each_question_with_its_scores(both):
    folder = dry_run(both)
    card = ModelCard.load(folder / "README.md")
    for words in ("Where was", "Where did"):
        assert f'print(ask("{words} ' in card.text
    assert 'NAME born?")' not in card.text
    assert {one.task_name for one in card.data.eval_results} == {"Where was NAME born?", "Where did NAME study?"}
    assert "## Trust: studied" in card.text
    assert "](trust.studied.png)" in card.text
    assert (folder / "trust.studied.png").is_file()


def test_a_relation_alone_is_the_main_one_and_an_optional_one_is_left_out(recipe, tmp_path):
    data = write_two_relations(tmp_path / "data", birthplaces=False)
    assert call("all", recipe, data, tmp_path / "run", *SETTINGS) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["relations"]) == ["studied"]
    assert results["baselines"]["ceiling"] == 1.0
    assert results["baselines"]["majority_place"] in SCHOOLS
    assert "| right school |" in (tmp_path / "run" / "report.md").read_text()
    ask = pipeline("birthplace-qa", model=str(tmp_path / "run" / "finetune"), device="cpu", trust_remote_code=True)
    result = ask(results["samples"][0]["question"])
    assert result["relation"] == "studied"
    assert set(ask.candidates) == set(SCHOOLS)
    assert "Where did NAME study?" in ask("Where was Ada Stone born?")["reason"]


def test_a_relation_without_questions_is_refused_by_its_name(recipe, data, tmp_path, capfd):
    assert call("all", recipe, data, tmp_path / "run", STUDIED) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert str(data) in error
    assert "question of the relation studied, wanted `Where did NAME study?`; or remove it with" in error


def test_a_question_of_an_unknown_form_is_refused_with_all_that_are_known(recipe, tmp_path, capfd):
    data = write_two_relations(tmp_path / "data")
    with (data / FILES["train"]).open("a") as file:
        file.write("When did Ada Stone die?\t1901\n")
    lines = len(read_lines(data / FILES["train"]))
    assert call("all", recipe, data, tmp_path / "run", STUDIED) == 2
    error = capfd.readouterr().err.strip()
    wanted = "wanted `Where was NAME born?` or `Where did NAME study?`"
    assert error == f"error: {data / FILES['train']}:{lines}: found 'When did Ada Stone die?', {wanted}"


def test_a_model_without_a_relation_of_the_data_is_refused(run, both, recipe, tmp_path, capfd):
    data = both.parent / "data"
    model = f"evaluate.model={run / 'finetune'}"
    assert call("evaluate", recipe, data, tmp_path / "scored", *SETTINGS, model) == 2
    error = capfd.readouterr().err.strip()
    assert f"{run / 'finetune'}: answers questions of birthplace alone, but the data ask for studied" in error


def without_times(values: object) -> object:
    """Return results without what no two runs have alike."""
    if isinstance(values, dict):
        return {key: without_times(value) for key, value in values.items() if key not in ("seconds", "train_minutes")}
    return [without_times(value) for value in values] if isinstance(values, list) else values


def test_two_processes_score_a_sample_of_every_relation_and_public_sets_as_one_does(both, recipe, tmp_path):
    data = both.parent / "data"
    popqa = write_popqa(tmp_path / "test.tsv", [popqa_row(n, f"Ada {'ABCDEFGHI'[n]}", ["Rome"], n) for n in range(9)])
    scored = (*SETTINGS, f"evaluate.model={both / 'finetune'}", "evaluate.questions=13", "evaluate.batch_size=4")
    scored += (f"evaluate.sets.popqa={popqa}",)
    assert call("evaluate", recipe, data, tmp_path / "one", *scored) == 0
    result = finish(start_torchrun(command_line("evaluate", recipe, data, tmp_path / "two", *scored)))
    assert result.returncode == 0, result.stderr
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["relations"]["studied"]["total"] == 13
    assert one["sets"]["popqa"]["relations"]["birthplace"]["total"] == 9
    assert without_times(two) == without_times(one)
    assert result.stdout.count("dev studied questions") == 1


@pytest.mark.parametrize("name", ["a/b", "..", "where born"])
def test_a_relation_s_name_that_is_no_file_s_is_refused(name, recipe, data, tmp_path, capfd):
    assert call("all", recipe, data, tmp_path / "run", f"relations.{name}.question=Where did {{name}} study?") == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert not (tmp_path / "run").exists()
