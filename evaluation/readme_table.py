"""Write the README's table of results from committed results files.

python -m evaluation.readme_table            # after copying RUN/results.json to benchmarks/results/recipes/NAME.json
python -m evaluation.readme_table --check    # exit 1 if the README does not show what the files say
"""

import argparse
import json
import sys
from pathlib import Path

from evaluation.report import accuracy_rows
from evaluation.tables import markdown_table, percent

ROOT = Path(__file__).parent.parent
RESULTS = Path("benchmarks") / "results" / "recipes"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->"
COLUMNS = ["recipe", "always the top place", "no pretraining", "pretrained", "ceiling", "training minutes"]


def results_table(folder: Path) -> str:
    """Return the table of all results files in `folder`, one row a file, by name."""
    rows = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        results = json.loads(path.read_text(encoding="utf-8"))
        minutes = sum(results["train_minutes"].get(stage, 0.0) for stage in ("pretrain", "finetune"))
        shares = [percent(share) for _, share in accuracy_rows(results)]
        before = " and those before" if results.get("start_from") else ""
        rows.append([f"`{path.stem}`", *shares, f"{minutes:.1f}{before}"])
    return markdown_table(COLUMNS, rows)


def with_table(readme: str, table: str) -> str:
    """Return the README's text with the table between its two marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"the README must hold one {BEGIN.strip()} and one {END}")
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table + END + after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the README is out of date")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    wanted = with_table(readme, results_table(ROOT / RESULTS))
    if arguments.check:
        return int(wanted != readme)
    path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
