"""Write the table of docs/attention.md by which to choose an attention variant, from committed results.

    python -m benchmarks.variant_table            # after attention_recall or attention_scaling has measured again
    python -m benchmarks.variant_table --check    # exit 1 if the page does not show what the files say

Recall is that of `attention_recall` (task "people"), time and memory are those of `attention_scaling`. What a file
lacks is a dash.
"""

import argparse
import statistics
import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts.run_folder import read_json
from benchmarks.attention_scaling import Table, Values, collect, ratio, slopes
from benchmarks.attention_subjects import SDPA, VARIANTS
from benchmarks.harness import results_of, write_number
from benchmarks.recall_report import Runs, cell, lengths_of, reads_of, runs_of
from configuration.errors import run_main
from evaluation.tables import markdown_table, replace_section

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "attention.md"
RESULTS = ROOT / "benchmarks" / "results"
TYPES = tuple(dict.fromkeys(attention_type for attention_type, _ in VARIANTS.values()))
TASK = "people"
SCALING = "yarn"
TRAINING = "forward+backward"


def recall_columns(runs: Runs, trained: int) -> dict[str, tuple[int, str]]:
    """Return the columns of recall: heading, and the length and the suffix of the label that its scores have."""
    longest = max([trained, *lengths_of(runs)])
    columns = {f"recall, {trained:,} tokens": (trained, "")}
    if longest > trained:
        columns[f"recall, {longest:,}"] = (longest, "")
        columns[f"recall, {longest:,}, YaRN"] = (longest, f", {SCALING}")
    return columns


def longest_common(subjects: dict[str, Values]) -> int | None:
    """Return the greatest length at which all variants that were measured have values; None for none."""
    ours = [values for name, values in subjects.items() if name == SDPA or name in TYPES]
    lengths = [{length for length, found in values.items() if found} for values in ours]
    return max(set.intersection(*lengths), default=None) if lengths else None


def median_at(values: Values, length: int | None) -> float | None:
    """Return the median at a length; None where it was not measured."""
    found = values.get(length) if length is not None else None
    return statistics.median(found) if found else None


def write_scaled(value: float | None, scale: float = 1.0) -> str:
    """Write `scale` times a value in three digits, or a dash."""
    return "–" if value is None else write_number(scale * value)


def is_constant(values: Values, length: int | None) -> str:
    """Write whether a cache is no larger at a length than at half of it, or a dash where one was not measured."""
    whole = median_at(values, length)
    half = median_at(values, length and length // 2)
    if whole is None or half is None:
        return "–"
    return "yes" if whole <= half else "no"


def cost_cells(subject: str, table: Table, fits: dict, training: int | None, decoding: int | None) -> list[str]:
    """Write what a subject costs: time over SDPA's, exponents, decoding and its cache."""
    caches = table.get(("decode", "bytes"), {}).get(subject, {})
    seconds = table.get(("decode", "seconds"), {}).get(subject, {})
    over = ratio(table, TRAINING, (subject, training), (SDPA, training)) if training is not None else None
    exponents = [fits.get((TRAINING, field), {}).get(subject) for field in ("seconds", "bytes")]
    return [
        write_scaled(over),
        *("–" if found is None else f"{found[0]:.2f}" for found in exponents),
        write_scaled(median_at(seconds, decoding), 1e3),
        write_scaled(median_at(caches, decoding), 2**-20),
        is_constant(caches, decoding),
    ]


def choosing_table(recall: dict, scaling: dict) -> str:
    """Return the table of all variants, and below them all other models of the recall test, from two records."""
    runs = runs_of(results_of(recall), TASK)
    table = collect(results_of(scaling))
    fits = slopes(table)
    training, decoding = (longest_common(table.get((what, "seconds"), {})) for what in (TRAINING, "decode"))
    scores = recall_columns(runs, recall["length"])
    at_training = "" if training is None else f" at {training:,}"
    at_decoding = "" if decoding is None else f" at {decoding:,}"
    columns = [
        "`attention_type`",
        *scores,
        f"training time over SDPA's{at_training}",
        "its exponent",
        "exponent of memory",
        f"decoding{at_decoding}, ms per token",
        "cache, MiB",
        "constant",
    ]
    rows = []
    for name in dict.fromkeys((*TYPES, *runs)):
        label = f"`{name}`" if name in TYPES else name
        recalled = [cell(reads_of(runs, length).get(name + suffix, [])) for length, suffix in scores.values()]
        subject = SDPA if name == "vanilla" else name
        rows.append([label, *recalled, *cost_cells(subject, table, fits, training, decoding)])
    return markdown_table(columns, rows)


def with_table(text: str, results: Path = RESULTS) -> str:
    """Return the page's text with the table of the results in a folder; ValueError where it lacks a mark."""
    records = [read_json(results / f"attention_{name}.cpu.json") for name in ("recall", "scaling")]
    return replace_section(text, "variants", choosing_table(*records))


def main(argv: list[str] | None = None) -> int:
    """Write the table, or check it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    arguments = parser.parse_args(argv)

    def command() -> int:
        text = PAGE.read_text(encoding="utf-8")
        wanted = with_table(text)
        if not arguments.check:
            PAGE.write_text(wanted, encoding="utf-8")
        return int(arguments.check and wanted != text)

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
