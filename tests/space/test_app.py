"""The demo in a browser: answers as the pipeline gives them, "I don't know", candidates, attention, completion."""

import math
import subprocess
import sys

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from modeling_minigpt import ClosedBookPipeline
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.running import ROOT

pytestmark = pytest.mark.neighbours
NAME = "Brihi Hikdo"
AUTO = {"model": AutoModelForCausalLM, "tokenizer": AutoTokenizer}


@pytest.fixture(scope="module")
def address(run):
    """The address of the demo around a tiny finished model."""
    from tests.space.browser import CHROMIUM, serve

    if CHROMIUM is None:
        pytest.skip("needs Chromium or Chrome")
    with serve(str(run / "finetune")) as address:
        yield address


@pytest.fixture(scope="module")
def page(address):
    """The demo's page."""
    from tests.space.browser import open_page

    with open_page(address) as page:
        yield page


def test_a_name_gets_the_pipelines_answer_its_chance_and_candidates(page, run):
    from tests.space.browser import ask

    wanted = pipeline("birthplace-qa", model=str(run / "finetune"), trust_remote_code=True)(NAME)
    shown = ask(page, NAME)
    # Nothing is certified for this model, so it answers nothing, and no candidate looks like an answer.
    assert shown.startswith("I don't know")
    assert wanted["reason"] in shown
    candidates = page.locator("#candidates").inner_text()
    assert candidates.startswith("What the model would have guessed")
    assert page.locator("#candidates h1, #candidates h2").count() == 0
    assert all((one["answer"] or "(nothing)") in candidates for one in wanted["candidates"])
    picture = page.locator("#attention img")
    picture.wait_for()
    assert picture.bounding_box()["width"] > 200


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no name in it"), ("What is the time?", "neither a name nor"), ("<b>1</b>" * 30, "neither a name nor")],
)
def test_what_is_no_name_is_not_known_and_why(page, text, reason):
    from tests.space.browser import ask

    ask(page, NAME)
    shown = ask(page, text)
    assert shown.startswith("I don't know")
    assert reason in shown


def test_the_second_tab_completes_text(page, run):
    model, tokenizer = (kind.from_pretrained(run / "finetune") for kind in (AutoModelForCausalLM, AutoTokenizer))
    prompt = tokenizer("Where was", return_tensors="pt")
    wanted = tokenizer.decode(model.generate(**prompt, max_new_tokens=24, do_sample=False)[0])
    page.get_by_role("tab", name="Complete").click()
    page.get_by_label("Text", exact=True).fill("Where was")
    page.get_by_role("button", name="Complete").click()
    written = page.locator("#written textarea")
    page.wait_for_function("box => box.value", arg=written.element_handle())
    assert written.input_value() == wanted
    page.get_by_role("tab", name="Ask").click()


@pytest.fixture
def phone(page, address):
    """The page in a phone's window, of the same browser."""
    phone = page.context.browser.new_page(viewport={"width": 390, "height": 844})
    phone.goto(address)
    yield phone
    phone.close()


def test_a_phone_shows_all_of_it_in_one_column_and_in_one_font(phone):
    from tests.space.browser import ask, fonts_of

    title = phone.locator("h1").inner_text()
    assert {"A", "N", "b"} <= set(title)
    assert len(fonts_of(phone, "h1")) == 1
    assert not phone.locator("#attention").is_visible()  # nothing is asked yet
    ask(phone, NAME)
    phone.locator("#attention img").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    lefts = [phone.locator(part).bounding_box()["x"] for part in ("#answer", "#candidates")]
    assert lefts[0] == lefts[1]
    assert phone.locator("#attention img").bounding_box()["width"] > 300


@pytest.fixture(scope="module")
def calibrated(run, tmp_path_factory):
    """The demo around a model that is sure of everybody, as far as it may be."""
    app = pytest.importorskip("space.app", reason="needs gradio", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    ask = pipeline("birthplace-qa", model=str(run / "finetune"), trust_remote_code=True)
    heads = (Head({}, 3.0), Head({}, 1.0))
    half = CalibrationScores([(*(1.0 / (1.0 + math.exp(-head.bias)) for head in heads), True)] * 40)
    certificate = Certificate(0.5, 0.5, 0.1, None, 0.95, 40, 40, 0, 0, 0)
    ask = ClosedBookPipeline(
        model=ask.model, tokenizer=ask.tokenizer, names=ask.names.text.splitlines(), candidates=["Rome"]
    )
    ask.confidence = Confidence(*heads, half, half, certificate)
    ask.save_pretrained(folder)
    return app.Demo(str(folder))


def test_both_chances_are_bars_beside_an_answer(calibrated):
    answer, chances, candidates, _ = calibrated.ask(NAME)
    assert not answer.startswith("## I don't know")
    assert answer.endswith("70 % probability of being right")
    assert "The person is in the training texts" in chances
    assert "95 %" in chances
    assert "If so, the answer is right" in chances
    assert "73 %" in chances
    assert candidates.startswith("<div>Candidates</div>")


def test_the_examples_are_people_of_training_and_one_who_is_not(calibrated):
    names = calibrated.ask_model.names.text.splitlines()
    *known, stranger = calibrated.examples
    assert set(known) <= set(names)
    assert stranger not in names
    assert calibrated.examples[known[0]] == "known well"
    assert calibrated.examples[stranger] == "made up"
    blocks = calibrated.page().blocks.values()
    buttons = {one.value for one in blocks if type(one).__name__ == "Button"}
    assert {f"{name} ({kind})" for name, kind in calibrated.examples.items()} <= buttons
    assert calibrated.show_example(stranger)[:4] == (stranger, *calibrated.ask(stranger)[:3])


@pytest.mark.parametrize(("chance", "wanted"), [(0.9999, "more than 99 %"), (0.001, "less than 1 %"), (0.5, "50 %")])
def test_no_chance_is_shown_as_a_certainty(calibrated, chance, wanted):
    from space.app import draw_bars

    assert f">{wanted}<" in draw_bars({"Rome": chance})


def test_the_heads_are_numbered_and_every_picture_has_the_same_scale(calibrated):
    for name in (NAME, "Ada Stone"):
        axes, scale = calibrated.attention(f"Where was {name} born?").axes
        assert axes.images[0].get_clim() == (0.0, 1.0)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["1.1", "1.2", "2.1", "2.2"]
        words = [label.get_text() for label in axes.get_xticklabels()]
        assert all(words)
        assert words[-1] == "(answer)"
        assert scale.get_xlabel() == "attention weight"


@pytest.fixture(scope="module")
def several(run, tmp_path_factory):
    """The demo around a model of two relations."""
    app = pytest.importorskip("space.app", reason="needs gradio", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("several") / "model"
    parts = {kind: auto.from_pretrained(run / "finetune") for kind, auto in AUTO.items()}
    studied = Relation("studied", "Where did {name} study?")
    candidates = {"studied": ["Oslo"]}
    ClosedBookPipeline(**parts, relations=[BIRTHPLACE, studied], candidates=candidates).save_pretrained(folder)
    return app.Demo(str(folder))


def test_a_model_of_several_relations_answers_what_the_text_or_the_selector_asks(several):
    asked = several.ask("Where did Brihi Hikdo study?")[:3]
    assert asked == several.ask(NAME, "studied")[:3]
    assert "Oslo" in asked[2]
    assert "Oslo" not in several.ask(NAME)[2]
    assert "asked under" in several.ask("Where did Brihi Hikdo study?", "birthplace")[0]


def test_the_page_has_a_selector_where_there_is_more_than_one_relation(several, run):
    from space.app import Demo, gradio

    for demo, choices in ((several, ["", "birthplace", "studied"]), (Demo(str(run / "finetune")), None)):
        blocks = demo.page().blocks.values()
        found = [block for block in blocks if isinstance(block, gradio.Dropdown)]
        assert [[value for _, value in block.choices] for block in found] == ([] if choices is None else [choices])


@pytest.mark.parametrize("words", [[], ["nowhere"]], ids=["no-model", "no-such-model"])
def test_without_a_model_there_is_one_line(words, tmp_path):
    command = [sys.executable, str(ROOT / "space" / "app.py"), *words]
    environment = {"PATH": "", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "app.py: error: " in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
