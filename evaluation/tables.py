"""Markdown: tables, numbers as they are written in them, and the parts of a page that are generated."""

import statistics
from collections.abc import Sequence


def percent(share: float | None) -> str:
    """Write a share as a percentage, or a dash where it was not measured."""
    return "–" if share is None else f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """Write a value with three digits, or a dash where it was not measured."""
    return "–" if value is None else f"{value:.3f}"


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """Write the mean of some values and, of several, their standard deviation; a dash for none."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def markdown_cell(text: str) -> str:
    """Write text so that a Markdown table takes it for one cell."""
    return " ".join(text.split()).replace("|", "\\|")


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """Lay out a Markdown table, its first column left and the others right."""
    cells = [[markdown_cell(cell) for cell in row] for row in (columns, *rows)]
    lines = [cells[0], [":--", *["--:"] * (len(columns) - 1)], *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def replace_section(text: str, name: str, section: str) -> str:
    """Return a page's text with a section between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        ValueError: the page does not have each of the two marks once.
    """
    begin = f"<!-- {name}: begin -->\n"
    end = f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the page must have one {begin.strip()} and one {end}")
    before, rest = text.split(begin)
    return before + begin + section + end + rest.split(end)[1]
