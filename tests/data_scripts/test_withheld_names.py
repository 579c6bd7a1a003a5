"""The documents of withheld people, and answers in texts, are found as whole words, in any script."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_scripts.phrases import AnswerFinder
from data_scripts.withheld_names import WithheldNames
from data_scripts.words import IS_UNSPACED, is_named
from modeling_minigpt.names_minigpt import fold

# Curly quotes, dashes, joined and loose marks, scripts with vowels that are marks, without spaces, from right to left,
# an emoji, and all that means something in a regular expression.
CHARACTERS = "abA  ..’‘–—-'_ée\u0301\u094dरािदल北京กั9²😀\u200d\ufe0fمُß·\ue000\u0378\x00\x7f\t\\()[]{}^$*+?|#&~/"
TEXT = st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=12)
NAMES = ["Conan O’Brien", "Ada–May Stone", "हिन्दी राम", "Jose\u0301 Ruiz", "مُحَمَّد علي", "Bo 😀", "A\x00b C", "a|b (c)"]


def withheld(names: list[str], texts: list[str]) -> list[bool]:
    """Return which texts name a withheld person."""
    return WithheldNames(names).find(pa.array(texts, pa.string())).tolist()


def is_spelled(name: str, text: str) -> bool:
    """Return whether a text has another spelling of a name."""
    form = fold(name)
    return bool(form) and is_named(form, fold(text))


@pytest.mark.parametrize(
    "text",
    ["Jose Stone was born .", "JOSÉ STONE .", "By Jose\u0301  Stone .", "jose-stone", "(José Stone)"],
)
def test_a_withheld_person_is_found_however_the_name_is_spelled(text):
    assert withheld(["José Stone"], [text, "Jose Stonefield .", "Josef Stone ."]) == [True, False, False]


def test_a_name_of_one_word_is_no_everyday_word():
    texts = ["Will was born .", "He will come .", "Pele played .", "Pelé played .", "pele"]
    assert withheld(["Will", "Pelé"], texts) == [True, False, True, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_a_withheld_person_is_found_whatever_characters_the_name_has(name):
    texts = [f"{name}. Born .", "Somebody else .", f"Married {name} .", f"x{name}x"]
    assert withheld([name, "Cyd Moss"], texts) == [True, False, True, False]


@given(names=st.lists(TEXT, min_size=1, max_size=4), rest=TEXT, spaced=st.booleans())
def test_withheld_people_are_named_in_the_texts_in_which_is_named_finds_them(names, rest, spaced):
    space = " " if spaced else ""
    texts = [rest, *(f"{rest}{space}{name}{space}{rest}" for name in names)]
    for text, is_withheld in zip(texts, withheld(names, texts), strict=True):
        assert is_withheld or not any(is_named(name, text) for name in names)
        assert not is_withheld or any(is_named(name, text) or is_spelled(name, text) for name in names)


def test_a_thousand_long_names_in_another_script_are_found():
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("अआइईउऊएऐओ"), 300)) for _ in range(1000)]
    assert withheld(names, [f"{names[7]} ।", "कोई नहीं ।"]) == [True, False]


@pytest.mark.parametrize(
    ("answer", "text", "is_found"),
    [
        ("Rom.", "Rom.ania", False),
        ("Rom.", "born in Rom. Then", True),
        ("St. P.", "St. P.x", False),
        ("दिल्ली", "वह दिल्लीवाला था .", False),
        ("दिल्ली", "वह दिल्ली में", True),
        ("'s-Hertogenbosch", "Jan's-Hertogenbosch", False),
        ("'s-Hertogenbosch", "at 's-Hertogenbosch in", True),
    ],
)
def test_an_answer_is_found_as_whole_words(answer, text, is_found):
    found = AnswerFinder([answer]).find(text)
    assert [text[start:end] for start, end in found] == ([answer] if is_found else [])


@given(answer=TEXT, rest=TEXT, spaced=st.booleans())
def test_an_answer_that_is_found_is_one_that_the_text_names(answer, rest, spaced):
    # Where each character is a word, any run of them is an answer: a number before it is no part of it.
    text = f"{rest}{' ' if spaced else ''}{answer}{rest}"
    if AnswerFinder([answer]).find(text) and not IS_UNSPACED.search(text):
        assert is_named(answer, text)
