"""Write the tables of results in README.md and docs/trust.md from committed results files.

python -m evaluation.readme_table            # after copying RUN/results.json to benchmarks/results/recipes/NAME.json
python -m evaluation.readme_table --check    # exit 1 if a page does not show what the files say
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.report import accuracy_rows, training_minutes
from evaluation.tables import markdown_table, number, percent, replace_section
from evaluation.trust_report import HEADINGS

ROOT = Path(__file__).parent.parent
RESULTS = Path("benchmarks") / "results" / "recipes"
RESULT_COLUMNS = [
    "recipe",
    "most frequent place",
    "no pretraining",
    "pretrained",
    "upper bound",
    "training minutes",
    "scored on",
]


def name_processor(results: dict) -> str:
    """Return the instructions that decide how fast a CPU trains, or the GPU's name; a dash in older results."""
    machine = results.get("provenance", {}).get("machine")
    return (machine["instructions"] or machine["device"]) if machine else "–"


def results_table(folder: Path) -> str:
    """Return the table of all results files in `folder`, one row a file, by name."""
    rows = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        results = json.loads(path.read_text(encoding="utf-8"))
        shares = [percent(share) for _, share in accuracy_rows(results)]
        before = " and those before" if results.get("start_from") else ""
        minutes = f"{training_minutes(results):.1f}{before}" if results["train_minutes"] else "–"
        rows.append([f"`{path.stem}`", *shares, minutes, name_processor(results)])
    return markdown_table(RESULT_COLUMNS, rows)


def trust_table(folder: Path) -> str:
    """Return the table of how far the calibrated models among them can be trusted."""
    rows = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        trust = json.loads(path.read_text(encoding="utf-8")).get("trust")
        if trust and trust["calibrated"]:
            # Results of older versions lack some: a dash.
            cells = [(percent if is_share else number)(trust.get(key)) for key, (_, is_share) in HEADINGS.items()]
            rows.append([f"`{path.stem}`", *cells])
    return markdown_table(["recipe", *(heading for heading, _ in HEADINGS.values())], rows)


TABLES = {"results": results_table, "trust": trust_table}
PAGES = {"README.md": ("results",), "docs/trust.md": ("trust",)}  # which tables are on which page


def with_tables(text: str, folder: Path, names: Sequence[str] = tuple(TABLES)) -> str:
    """Return a page's text with each named table between its two marks; ValueError where it lacks a mark."""
    for name in names:
        text = replace_section(text, name, TABLES[name](folder))
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is out of date")
    arguments = parser.parse_args()
    outdated = False
    for page, names in PAGES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        wanted = with_tables(text, ROOT / RESULTS, names)
        outdated |= wanted != text
        if not arguments.check:
            (ROOT / page).write_text(wanted, encoding="utf-8")
    return int(arguments.check and outdated)


if __name__ == "__main__":
    sys.exit(main())
