"""The tables of README.md and docs/trust.md, written from results files."""

import copy
import json
import sys

import pytest

from evaluation import readme_table
from tests.evaluation.example_results import CERTIFICATE, RESULTS, trust


@pytest.fixture
def results() -> dict:
    return copy.deepcopy(RESULTS)


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


def test_a_run_that_trained_nothing_has_no_minutes(checkout, results):
    path = checkout / readme_table.RESULTS / "cs224n.json"
    assert "| 12.6 |" in readme_table.results_table(path.parent)
    path.write_text(json.dumps({**results, "train_minutes": {}}), encoding="utf-8")
    assert readme_table.results_table(path.parent).endswith("| – | – |\n")  # minutes, and the processor
