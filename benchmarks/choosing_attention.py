"""Write the table of docs/attention.md by which to choose a variant, from committed results.

    python -m benchmarks.choosing_attention            # after a new attention_recall.cpu or attention_scaling.cpu.json
    python -m benchmarks.choosing_attention --check    # exit 1 if the page does not show what the files say

What a file does not have is a dash.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

from artifacts.run_folder import read_json
from benchmarks.attention_scaling import SDPA, Table, collect, ratio, slopes
from benchmarks.harness import results_of, write_number
from benchmarks.recall_report import cell, lengths_of, reads_of, runs_of
from configuration.errors import run_main
from evaluation.tables import markdown_table, replace_section

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "attention.md"
RECALL = ROOT / "benchmarks" / "results" / "attention_recall.cpu.json"
SCALING = ROOT / "benchmarks" / "results" / "attention_scaling.cpu.json"
TASK = "people"
CONSTANT = 1.2  # a cache is of constant size that grows by less than this while the context doubles


def recall_cells(recall: dict) -> dict[str, list[str]]:
    """Return, by subject, recall at the trained length and at the longest read one, without and with YaRN."""
    runs = runs_of(results_of(recall), TASK)
    trained = recall["length"]
    longest = max(lengths_of(runs), default=trained)
    cells = {}
    for subject, seeds in runs.items():
        near = reads_of({subject: seeds}, trained)
        far = reads_of({subject: seeds}, longest) if longest > trained else {}
        reads = (near.get(subject, []), far.get(subject, []), far.get(f"{subject}, yarn", []))
        cells[subject] = [cell(read) for read in reads]
    return cells


def cost_cells(table: Table) -> dict[str, list[str]]:
    """Return, by subject, speed over SDPA's, the exponents of time and memory, and what a decoded token costs."""
    fits = slopes(table)
    layer = table.get(("forward+backward", "seconds"), {})
    decoding = table.get(("decode", "seconds"), {})
    longest = longest_of(table, "forward+backward")
    cells = {}
    for subject in layer:
        speed = ratio(table, "forward+backward", (SDPA, longest), (subject, longest))
        exponents = [fits.get(("forward+backward", field), {}).get(subject) for field in ("seconds", "bytes")]
        tokens = decoding.get(subject, {})
        cells[subject] = [
            "–" if speed is None else f"{speed:.1f}",
            *("–" if fit is None else f"{fit[0]:.2f}" for fit in exponents),
            f"{1e3 * median(tokens[max(tokens)]):.1f}" if tokens and tokens[max(tokens)] else "–",
            describe_cache(table.get(("decode", "bytes"), {}).get(subject, {})),
        ]
    return cells


def longest_of(table: Table, what: str) -> int:
    """Return the longest context that something was timed with, 0 if none."""
    return max((length for values in table.get((what, "seconds"), {}).values() for length in values), default=0)


def describe_cache(sizes: dict[int, list[float]]) -> str:
    """Write how large a cache is at the longest context, and whether it grows with it; a dash where unmeasured.

    Args:
        sizes: bytes of all rounds, by length.
    """
    measured = [median(values) for _, values in sorted(sizes.items()) if values]
    if not measured:
        return "–"
    # Compared with the length before alone: a memory of constant size may fill up first.
    constant = len(measured) > 1 and measured[-1] < CONSTANT * measured[-2]
    return f"{write_number(measured[-1] / 2**20)}, {'constant' if constant else 'grows'}"


def choosing_table(recall: dict, scaling: dict) -> str:
    """Return the table: a row for each subject of either file, vanilla first."""
    recalled = recall_cells(recall)
    table = collect(results_of(scaling))
    costs = cost_cells(table)
    costs["vanilla"] = costs.pop(SDPA, ["–"] * 5)
    lengths = lengths_of(runs_of(results_of(recall), TASK))
    trained = recall["length"]
    longest = max([trained, *lengths])
    timed = longest_of(table, "forward+backward")
    decoded = longest_of(table, "decode")
    subjects = dict.fromkeys(["vanilla", *recalled])
    rows = [
        [f"`{subject}`", *recalled.get(subject, ["–"] * 3), *costs.get(subject, ["–"] * 5)] for subject in subjects
    ]
    columns = [
        "attention",
        f"recall at {trained:,} tokens",
        f"at {longest:,}" if longest > trained else "beyond",
        "the same with YaRN",
        f"times as fast as vanilla at {timed:,}",
        "exponent of time",
        "of memory",
        f"ms to decode a token after {decoded:,}",
        "cache, MiB",
    ]
    return markdown_table(columns, rows)


def page_with_table(text: str) -> str:
    """Return the page's text with the table that the committed results give."""
    return replace_section(text, "choosing", choosing_table(read_json(RECALL), read_json(SCALING)))


def main(argv: list[str] | None = None) -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    arguments = parser.parse_args(argv)

    def command() -> int:
        text = PAGE.read_text(encoding="utf-8")
        wanted = page_with_table(text)
        if not arguments.check:
            PAGE.write_text(wanted, encoding="utf-8")
        return int(arguments.check and wanted != text)

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
