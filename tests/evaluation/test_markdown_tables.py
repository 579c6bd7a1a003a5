"""Markdown tables: their cells are shown as they are written, and no line is wider than a page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from evaluation.tables import PAGE_WIDTH, fit_row, literal, markdown_table, page_table, percent

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
HOSTILE = ["a | b", "<b>x</b>", "*x*", "a\\|b", "[x](http://example.com)", "`x`", "&lt;", "$x$", "# x", "\\", "_x_"]


def shown_cells(table: str) -> list[str]:
    """Return the texts of a rendered table's cells; an element in one, as emphasis, fails the test."""
    found = []
    for token in MARKDOWN.parse(table):
        if token.type == "inline":
            assert {child.type for child in token.children} <= {"text", "text_special"}
            found.append("".join(child.content for child in token.children))
    return found


@pytest.mark.parametrize(
    ("share", "text"), [(0.012, "1.2 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.12345, "12.3 %"), (None, "–")]
)
def test_shares_read_as_percentages(share, text):
    assert percent(share) == text


def test_a_markdown_table_has_as_many_columns_in_every_line():
    table = markdown_table(["a", "b", "c"], [["1", "2", "3"], ["4", "5", "6"]])
    assert table == "| a | b | c |\n| :-- | --: | --: |\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |\n"


def test_columns_of_text_are_aligned_left():
    assert markdown_table(["a", "b", "c"], [], left=(0, 2)).splitlines()[1] == "| :-- | --: | :-- |"


@pytest.mark.parametrize("text", HOSTILE)
def test_special_characters_in_a_cell_are_shown_as_they_are(text):
    assert shown_cells(page_table(["name", "score"], [[text, "1"]])) == ["name", "score", text, "1"]


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))
def test_any_name_is_one_cell_that_shows_it(text):
    cells = shown_cells(markdown_table(["name", "score"], [[literal(text), "1"]]))
    assert cells == ["name", "score", text, "1"]


def test_a_row_wider_than_a_page_loses_the_ends_of_its_longest_texts_and_no_number():
    long = "Where was Ada Maria Stone of Little Rock born? " * 3
    table = page_table(["question", "answer", "share"], [[long, "x" * 90, "97.5 %"], ["short", "Rome", "1.0 %"]])
    wide, short = table.splitlines()[2:]
    assert len(wide) == PAGE_WIDTH
    assert wide.startswith("| Where was Ada Maria Stone of Little Rock")
    assert wide.count("…") == 2
    assert wide.endswith("… | 97.5 % |")
    assert short == "| short | Rome | 1.0 % |"


def test_marks_that_are_escaped_count_in_the_width_of_a_row():
    (cell,) = fit_row(["*" * 100])
    assert cell == "\\*" * 52 + "…"
