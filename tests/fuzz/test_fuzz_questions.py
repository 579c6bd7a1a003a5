"""Questions of any kind: each gets its answer or its reason, in order, and none is a NaN or an exception."""

import math
from collections import UserDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artifacts.loading import load_pipeline
from modeling_minigpt import BirthplacePipeline, ClosedBookPipeline, build_character_tokenizer
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import FEATURE_NAMES
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores
from tests.fuzz.cases import assert_one_line, cases, quickly
from tests.fuzz.test_fuzz_data import tiny

KEYS = {
    "question", "answer", "known", "correct", "score", "abstained", "candidates", "calibrated", "reason",
    "failed", "relation", "matched_name",
}  # fmt: skip
Pair = namedtuple("Pair", "first second")
ODD = [
    "", " ", "\n", "\0", "\ud800", "a\udfff b", "⁇", "□", "Ada⁇Stone", "Ada□", "Where was born?", "Where was  born?",
    "where was Ada Stone born", "Where was Ada\nStone born?", "WHERE WAS ADA BORN ? ?", "A" * 100_000, "a b " * 50_000,
    "where was" + " born" * 20_000, "where was x born" + " " * 50_000 + "x", "مرحبا", "\u202eAda", "Ada\u2028Stone",
    "\U0001f600\U0001f469\u200d\U0001f680", "e\u0301" * 20, "ｗｈｅｒｅ was Ada born?", "Ada\tStone", "\x1b[2JAda",
    "Ж", "ﷺ" * 20,
    "Ada" * 20, "Stone Ada " * 3, "{name}", "%s", "Ada {0}", "<|endoftext|>", "</s>", "Ada\r\n", "\ufeffAda", "1",
    "?", ".", "ǅ", "ß" * 80,
    "🏳️‍🌈 Bo",
]  # fmt: skip
texts = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(), max_size=30),
    st.text(st.characters(codec="utf-8"), max_size=60).map(lambda name: f"Where was {name} born?"),
    st.lists(
        st.sampled_from(["ada", "Ada", "Stone", " ", "born?", "seen", "Where was", "?", "⁇", "\n"]), max_size=6
    ).map(" ".join),
)
things = st.one_of(
    st.sampled_from([
        None, True, 0, 1.5, float("nan"), b"Ada", bytearray(b"x"), {}, {"question": "Ada"}, [], ["Ada"], (),
        ("Ada", "Bo"), {"Ada"}, object(), str, Pair("Ada", 1), UserDict(a=1), torch.tensor(1.0), torch.ones(2, 2),
        np.zeros(3), Path("Ada"), range(3), 1j, Ellipsis, NotImplemented,
    ]),
    st.integers(), st.floats(), st.binary(max_size=5), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def pipelines(run) -> dict[str, BirthplacePipeline]:
    """Return the pipelines that are asked: a finished model's, the same with a calibration, and three tiny ones."""
    plain, calibrated = load_pipeline(run / "finetune"), load_pipeline(run / "finetune")
    head = Head(dict.fromkeys(FEATURE_NAMES, 0.3), 1.0)
    calibrated.confidence = Confidence(head, head, CalibrationScores([]), CalibrationScores([]))
    tokenizer = build_character_tokenizer(["Where was Ada Stone born?", "Bo. and born in"], 48)
    own = {}
    for kind in ("rotary", "learned"):
        model = tiny(tokenizer, position_embedding_type=kind).eval()
        parts = {"model": model, "tokenizer": tokenizer, "names": ["Ada Stone", "Bo"]}
        own[kind] = BirthplacePipeline(**parts, candidates=["Stone", "Ada"])
    seen = Relation("seen", "Where was {name} seen?", ("{name}.",), ("{name} was seen where?",))
    own["several"] = ClosedBookPipeline(**parts, relations=[BIRTHPLACE, seen], candidates={"seen": ["Ada"]})
    return {"plain": plain, "calibrated": calibrated, **own}


def check(results: list[dict], questions: list) -> None:
    """Check that every question has a result with the documented keys and values, in its place."""
    assert len(results) == len(questions)
    for question, result in zip(questions, results, strict=True):
        assert set(result) == KEYS
        assert isinstance(result["score"], float)
        assert 0.0 <= result["score"] <= 1.0
        assert result["abstained"] is (result["answer"] is None) is (result["reason"] is not None)
        assert all(math.isfinite(one["score"]) and 0.0 <= one["score"] <= 1.0 for one in result["candidates"])
        if result["reason"] is None:
            assert isinstance(question, str)
            assert result["answer"].strip()
        if not isinstance(question, str):
            assert result["reason"] == f"not a text but {type(question).__name__}"
            assert result["candidates"] == []


@cases(150)
@given(
    text=texts, name=st.sampled_from(["plain", "calibrated", "rotary", "learned", "several"]), free_form=st.booleans()
)
def test_any_text_gets_an_answer_or_a_reason(pipelines, text, name, free_form):
    with quickly():
        check([pipelines[name](text, threshold=0.0, free_form=free_form)], [text])


@cases(150)
@given(
    questions=st.lists(texts | things, max_size=5),
    name=st.sampled_from(["plain", "calibrated", "rotary", "learned", "several"]),
    top_k=st.sampled_from([1, 2, 10**9]),
    cutoff=st.sampled_from([0.0, 1e-3, 1.0]),
    batch_size=st.sampled_from([1, 2, 64]),
)
def test_no_thing_in_a_list_harms_another(pipelines, questions, name, top_k, cutoff, batch_size):
    with quickly():
        results = pipelines[name](questions, threshold=0.0, top_k=top_k, cutoff=cutoff, batch_size=batch_size)
    check(results, questions)
    assert all(len(result["candidates"]) <= top_k for result in results)


@cases(60)
@given(
    questions=st.lists(texts | things, max_size=3),
    kind=st.sampled_from([tuple, iter, lambda questions: (one for one in questions)]),
)
def test_tuples_and_iterators_are_answered_alike(pipelines, questions, kind):
    with quickly():
        check(list(pipelines["plain"](kind(questions), threshold=0.0)), questions)


@cases(60)
@given(
    settings=st.dictionaries(
        st.sampled_from(["threshold", "cutoff", "top_k"]),
        st.sampled_from([-1, 2, 0.5, float("nan"), float("inf"), 10**400, -0.0, 1]),
        max_size=3,
    )
)
def test_settings_out_of_range_are_refused_by_name(pipelines, settings):
    try:
        check([pipelines["plain"]("Ada Stone", **settings)], ["Ada Stone"])
    except (ValueError, TypeError) as error:
        assert assert_one_line(error).startswith(tuple(f"{name} must be " for name in settings))  # noqa: PT017
