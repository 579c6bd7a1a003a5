"""What people read of wrong answers, in the report and in the terminal."""

import io

import pytest
from rich.console import Console

from evaluation.errors import CLASSES
from evaluation.report import print_results, write_report

TRUST = {"certificate": None, "calibrated": False, "refusal": None, "made_up": 0, "withheld": 0, "threshold": None}


def errors(count: int) -> dict[str, dict]:
    """Return classes of wrong answers, one of which has some, and one of another version of the program."""
    found = {name: {"count": 0, "share": 0.0, "by_chance": None, "examples": []} for name in (*CLASSES, "of_later")}
    example = {"question": "Where was Béla Nagy born?", "answer": "Gyor", "right": "Győr", "probability": 0.75}
    found["other_spelling"] = {"count": count, "share": 0.8, "by_chance": 0.1, "examples": [example]}
    found["of_later"] = {"count": 1, "share": 0.2, "by_chance": None, "examples": []}
    return found


@pytest.fixture
def results() -> dict:
    """Results of one relation, as they were before wrong answers were sorted."""
    return {
        "dataset": "cs224n",
        "split": "dev",
        "seed": 7,
        "model": "finetune",
        "parameters": 1000,
        "train_minutes": {},
        "dev": {"accuracy": 0.95, "correct": 95, "total": 100, "seconds": 4.2},
        "baselines": {"majority": 0.05, "majority_place": "London", "no_pretraining": 0.01, "ceiling": 0.96},
        "samples": [
            {
                "question": "Where was Ada Stone born?",
                "answer": "Rome",
                "score": 0.9,
                "calibrated": True,
                "abstained": False,
                "place": "Rome",
            }
        ],
    }


@pytest.fixture
def two_relations(results, monkeypatch) -> dict:
    """The same with a second relation."""
    monkeypatch.setattr("evaluation.report.trust_section", lambda *arguments, **settings: [])  # has its own tests
    values = {"question": "Where did {name} study?", "answers": "school", "correct": 40, "total": 50, "accuracy": 0.8}
    baselines = {"majority": 0.5, "majority_answer": "LSE", "no_pretraining": None, "ceiling": 0.75}
    studied = {**values, **baselines, "trust": TRUST, "exposure": [], "samples": results["samples"]}
    return {**results, "relations": {"birthplace": {"question": "Where was {name} born?"}, "studied": studied}}


def written(results: dict, folder) -> str:
    return write_report(results, {}, folder).read_text(encoding="utf-8")


def printed(results: dict) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_results(results, console)
    return console.file.getvalue()


def test_the_report_and_the_terminal_show_what_went_wrong(results, tmp_path):
    results["errors"] = errors(4)
    lines = written(results, tmp_path).splitlines()
    assert "## What went wrong" in lines
    assert any(line.startswith("5 of 100 answers are wrong.") for line in lines)
    assert "| the right answer in another spelling | 4 | 80.0 % | 4.0 % | 10.0 % |" in lines
    assert "| of\\_later | 1 | 20.0 % | 1.0 % | – |" in lines
    assert "| Where was Béla Nagy born? | Gyor | Győr | 75.0 % |  |" in lines
    assert "Of the wrong answers: the right answer in another spelling (80.0 %), of_later (20.0 %)." in printed(
        results
    )


def test_each_relation_shows_its_own(two_relations, tmp_path):
    two_relations["errors"] = errors(4)
    two_relations["relations"]["studied"]["errors"] = errors(9)
    first, second = written(two_relations, tmp_path).split("## studied: “Where did NAME study?”")
    assert "### What went wrong" in first.splitlines()
    assert "| the right answer in another spelling | 4 | 80.0 % | 4.0 % | 10.0 % |" in first
    assert "| the right answer in another spelling | 9 | 80.0 % | 18.0 % | 10.0 % |" in second
    assert printed(two_relations).count("Of the wrong answers: ") == 2


@pytest.mark.parametrize("kind", ["results", "two_relations"])
def test_results_of_an_earlier_version_are_shown_without(kind, request, tmp_path):
    results = request.getfixturevalue(kind)
    assert "What went wrong" not in written(results, tmp_path)
    text = printed(results)
    assert "pretrained" in text
    assert "wrong answers" not in text
