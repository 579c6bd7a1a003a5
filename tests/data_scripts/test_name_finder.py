"""All phrases of a text at once are those that `is_named` finds one by one, in any script."""

import random

import pytest

from data_scripts.name_finder import NameFinder
from data_scripts.words import is_named

# Letters, a digit, a combining accent, Han, kana, Thai with a vowel mark, Devanagari with one, punctuation.
ALPHABETS = {
    "ascii": "ab_1 '.-",
    "accents": "aé\u0301 b.'",
    "han": "a王小明ア 。1",
    "thai": "กั\u0e48า a-\u0301",
    "devanagari": "राम\u0902 a.",
}
PHRASES = ["York", "New York", "York County", "Bo Lind Jr.", "'s-Hertogenbosch", "王小", "小明", "東京", "Ram", "C.K."]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("He left New York County .", {"York", "New York", "York County"}),
        ("Newer York-Yorker .", {"York"}),
        ("Bo Lind Jr. Born in 's-Hertogenbosch .", {"Bo Lind Jr.", "'s-Hertogenbosch"}),
        ("A's-Hertogenbosch, Bo Lind Jr", set()),
        ("王小明生于東京。", {"王小", "小明", "東京"}),
        ("A王小 東京x", set()),
        ("Ramā and Rams", set()),
        ("By C.K. of York", {"C.K.", "York"}),
        ("C.K.s", set()),
        ("", set()),
    ],
)
def test_phrases_are_found_as_whole_words_also_in_one_another(text, named):
    finder = NameFinder(PHRASES)
    assert finder.find(text) == named
    assert finder.any_in(text) == bool(named)


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_random_texts_and_phrases_agree_with_a_look_for_each_phrase(alphabet):
    rng = random.Random(0)

    def draw(longest):
        return "".join(rng.choices(ALPHABETS[alphabet], k=rng.randint(1, longest)))

    found = 0
    for _ in range(300):
        phrases = {phrase for phrase in (draw(5) for _ in range(30)) if phrase.strip()}
        finder = NameFinder(phrases)
        for text in (draw(15) for _ in range(10)):
            named = {phrase for phrase in phrases if is_named(phrase, text)}
            assert finder.find(text) == named
            assert finder.any_in(text) == bool(named)
            found += len(named)
    assert found > 1000
