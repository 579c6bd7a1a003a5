"""The report as one HTML file: all is inside, and names are shown as they are."""

import copy
import re
from html.parser import HTMLParser

import pytest

from evaluation.report import write_report
from evaluation.report_page import render_page
from tests.evaluation.example_results import CERTIFICATE, HISTORIES, RESULTS, trust

LOADING = {"src", "href", "srcset", "data", "action", "background", "poster"}


class PageReader(HTMLParser):
    """Gather what a page loads, its elements, and the texts of its table cells and title."""

    def __init__(self):
        super().__init__()
        self.addresses: list[str] = []
        self.elements: list[str] = []
        self.open: str | None = None
        self.texts: dict[str, list[str]] = {"td": [], "title": [], "strong": []}

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.addresses += [value for name, value in attributes if name in LOADING]
        if tag in self.texts:
            self.open = tag
            self.texts[tag].append("")

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, text):
        if self.open:
            self.texts[self.open][-1] += text


def read(page: str) -> PageReader:
    reader = PageReader()
    reader.feed(page)
    return reader


@pytest.fixture
def results() -> dict:
    return copy.deepcopy(RESULTS)


def test_each_picture_is_inside_and_nothing_is_loaded(results, tmp_path):
    results["trust"] = trust(certificate=CERTIFICATE)
    (tmp_path / "trust.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    report = write_report(results, HISTORIES, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = read(page)
    assert len(shown.addresses) == report.read_text(encoding="utf-8").count("![") == 3
    assert all(address.startswith("data:image/png;base64,") for address in shown.addresses)
    assert not {"script", "link", "iframe", "object", "a"} & set(shown.elements)
    assert not re.search(r"url\(|@import|https?://", page)


def test_the_page_says_what_the_report_says(results, tmp_path):
    results["trust"] = trust(certificate=CERTIFICATE)
    write_report(results, {}, tmp_path)
    shown = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert shown.texts["title"] == ["cs224n"]
    (certified,) = shown.texts["strong"]
    assert certified.startswith("Certified on people whose questions were held out of training: with 95 % confidence")
    cells = shown.texts["td"]
    assert cells[cells.index("pretrained") + 1] == "61.0 %"


@pytest.mark.parametrize(
    "name", ["A | B", "<script>alert(1)</script>", "*A*", "![x](http://example.com/x.png)", "&amp;"]
)
def test_special_characters_in_names_are_shown_as_they_are(results, tmp_path, name):
    results["dataset"] = name
    results["baselines"]["majority_place"] = name
    results["samples"][0]["answer"] = name
    results["source"] = {"source": name}
    write_report(results, {}, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = read(page)
    assert shown.texts["title"] == [name]
    assert f"always {name}" in shown.texts["td"]
    assert name in shown.texts["td"]
    assert not {"script", "em"} & set(shown.elements)
    assert all(address.startswith("data:") for address in shown.addresses)


def test_a_picture_that_is_missing_leaves_its_caption(tmp_path):
    page = render_page("# A\n\n![The loss](losses.png)\n", tmp_path)
    assert read(page).addresses == []
    assert "<p>The loss</p>" in page


def test_html_in_a_report_is_text(tmp_path):
    assert "&lt;b&gt;" in render_page("<b>bold</b>", tmp_path)
