"""Faults of the demo: megabytes of text, and marks of HTML and Markdown in what it shows."""

import time

import pytest

gradio = pytest.importorskip("gradio")

from space.app import Demo, plain  # noqa: E402 (needs gradio)
from tests.space.browser import CHROMIUM, ask, open_page  # noqa: E402

pytestmark = pytest.mark.neighbours
MEGABYTES = 5_000_000
HOSTILE = [
    "<b>bold</b>", "<img src=x onerror=alert(1)>", "<script>document.title='x'</script>", "</div><h1>big</h1>", "&lt;",
    "`code` ``", "*a* _b_ **c** ~~d~~", "[a](http://127.0.0.1/x) ![b](http://127.0.0.1/y)", "http://a.example",
    "a@b.c", "www.a.example", "# one\n# two", "1. one", "- one", "> one", "| a | b |\n|---|---|", "$$x^2$$ \\(y\\)",
    "\\*", "---", "```\ncode\n```", ":smile:", "St. Louis-sur-Rhône, d'Arc (Ö)",
]  # fmt: skip


@pytest.fixture(scope="module")
def demo(run):
    """The demo around a tiny finished model."""
    return Demo(str(run / "finetune"))


@pytest.fixture
def no_model(demo, monkeypatch):
    """Let the tokenizer and the pipeline fail."""

    def fail(*arguments, **keywords):
        raise AssertionError("read")

    monkeypatch.setattr(demo, "tokenizer", fail)
    monkeypatch.setattr(demo, "ask_model", fail)


@pytest.mark.row("H14")
@pytest.mark.parametrize("text", ["a", "a b ", "é", "\n.", "?"])
def test_megabytes_of_text_are_refused_before_they_are_read(demo, no_model, text):
    start = time.monotonic()
    with pytest.raises(gradio.Error, match="context of 64 tokens"):
        demo.complete(text * MEGABYTES, 24, 0.0)
    answer, chances, candidates, picture = demo.ask(text * MEGABYTES)
    assert answer.startswith("## I don't know")
    assert (chances, candidates, picture) == ("", "", None)
    assert time.monotonic() - start < 1


@pytest.mark.row("H14")
def test_a_text_just_too_long_is_refused_and_one_that_fits_is_completed(demo):
    fits = "Where was"
    assert len(demo.complete(fits, 10**9, 0.0)) > len(fits)
    too_long = "Ada Stone " * 40
    assert len(too_long) <= demo.max_text
    with pytest.raises(gradio.Error, match="context of 64 tokens"):
        demo.complete(too_long, 24, 0.0)


@pytest.mark.row("H14")
def test_the_page_limits_what_is_sent_and_how_much_waits(demo):
    page = demo.page()
    boxes = [block for block in page.blocks.values() if isinstance(block, gradio.Textbox)]
    assert [box.max_length for box in boxes if box.elem_id != "written"] == [1000, demo.max_text]
    assert demo.max_text < 10_000
    assert page._queue.max_size == 32
    assert page.api_open is False
    events = {event.concurrency_id: event.concurrency_limit for event in page.fns.values()}
    assert events == {"model": 1}


@pytest.mark.row("H15")
@pytest.mark.parametrize("text", HOSTILE)
def test_no_mark_is_left_in_what_markdown_reads(text):
    left = plain(text)
    for reference in ("&lt;", "&gt;", "&amp;", "&quot;", "&#x27;"):
        left = left.replace(reference, "")
    assert not set(left.replace("&#", "").replace(";", "")) & set("<>&\"'`*_[]()#!|~$\\:@.+-=\n")


@pytest.fixture(scope="module")
def page(demo):
    """The page of a demo that answers with what it is asked."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium or Chrome")
    usual = demo.ask_model, demo.name

    def echo(text, top_k):
        reason = text.removeprefix("reason ") if text.startswith("reason ") else None
        candidates = [] if reason else [{"answer": text, "score": 0.75}, {"answer": f"{text} 2", "score": 0.25}]
        return {
            "answer": text, "score": 0.75, "reason": reason, "abstained": reason is not None, "calibrated": True,
            "candidates": candidates, "question": f"Where was {text} born?", "known": 0.9, "correct": 0.8,
        }  # fmt: skip

    demo.ask_model = echo
    demo.name = "`a` <b>b</b> $$x$$"
    blocks = demo.page()
    try:
        _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
        with open_page(address) as opened:
            yield opened
    finally:
        blocks.close()
        demo.ask_model, demo.name = usual


@pytest.mark.row("H15")
def test_the_models_name_is_shown_as_it_is(page):  # seconds: a browser starts
    page.get_by_text("answers from its weights alone").wait_for()
    assert "`a` <b>b</b> $$x$$ answers from its weights alone" in page.locator("body").inner_text()
    assert page.locator("b").count() == 0


@pytest.mark.row("H15")
@pytest.mark.parametrize(
    "text", ["<b>B</b> <img src=x onerror=alert(1)> `c` *d* $$e^2$$ [f](http://127.0.0.1) www.g.example"]
)
def test_answers_candidates_and_reasons_are_shown_as_they_are(page, text):  # seconds: a browser is asked twice
    assert ask(page, text).splitlines()[0] == text
    assert text in page.locator("#candidates").inner_text()
    assert ask(page, f"reason {text}").splitlines()[-1] == text
    for part in ("#answer", "#candidates"):
        assert page.locator(part).locator("b, img, code, em, a, .katex").count() == 0
