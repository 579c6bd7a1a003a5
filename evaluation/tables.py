"""Markdown: tables, numbers as they are written in them, and the parts of a page that are generated."""

import re
import statistics
from collections.abc import Collection, Sequence

from modeling_minigpt.results_minigpt import format_chance

CHANCES = ("known", "correct", "score")  # of an answer, as the pipeline's results name them
PAGE_WIDTH = 110  # characters of a line in a table that is no wider than a page
MARKS = re.compile(r"[\\`*_\[\]<>&#~$!]")


def percent(share: float | None) -> str:
    """Write a share as a percentage, or a dash where it was not measured."""
    return "–" if share is None else f"{100 * share:.1f} %"


def chance(probability: float | None) -> str:
    """Write a probability as `format_chance` does, or a dash where it was not measured."""
    return "–" if probability is None else format_chance(probability)


def number(value: float | None) -> str:
    """Write a value with three digits, or a dash where it was not measured."""
    return "–" if value is None else f"{value:.3f}"


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """Write the mean of some values and, of several, their standard deviation; a dash for none."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def literal(text: str) -> str:
    """Write text so that Markdown shows it as it is: no emphasis, link, HTML or formula in it is one."""
    # Not the bar, which `markdown_cell` escapes.
    return MARKS.sub(r"\\\g<0>", text)


def shorten(text: str, width: int) -> str:
    """Return a text of at most `width` characters, with an ellipsis in place of an end that is cut off."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)].rstrip()}…"


def markdown_cell(text: str) -> str:
    """Write text so that a Markdown table takes it for one cell."""
    return " ".join(text.split()).replace("|", "\\|")


def table_line(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table as a line."""
    return f"| {' | '.join(map(markdown_cell, cells))} |"


def markdown_table(columns: list[str], rows: list[list[str]], left: Collection[int] = (0,)) -> str:
    """Lay out a Markdown table, the columns of the numbers `left` aligned left and the others right."""
    marks = [":--" if number in left else "--:" for number in range(len(columns))]
    return "\n".join(map(table_line, (columns, marks, *rows))) + "\n"


def fit_row(texts: Sequence[str], width: int = PAGE_WIDTH) -> list[str]:
    """Return a row of plain texts as literal Markdown whose line has at most `width` characters.

    The longest text is shortened, character by character, until the line fits: so two long ones lose both of their
    ends, and short ones, as numbers are, lose nothing.
    """
    texts = [" ".join(text.split()) for text in texts]
    while len(table_line(cells := [literal(text) for text in texts])) > width:
        longest = max(range(len(texts)), key=lambda number: len(texts[number]))
        if len(texts[longest]) <= 1:  # so many columns that nothing can make them fit
            break
        texts[longest] = shorten(texts[longest], len(texts[longest]) - 1)
    return cells


def page_table(columns: list[str], rows: list[list[str]], left: Collection[int] = (0,)) -> str:
    """Lay out a Markdown table no wider than a page of cells that are shown as they are written."""
    return markdown_table(columns, [fit_row(row) for row in rows], left)


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
