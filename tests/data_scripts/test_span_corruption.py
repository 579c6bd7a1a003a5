"""Span corruption: exact texts under a seed, facts that can be put back, and how much is taken out on average."""

import random
import re
import statistics
from collections.abc import Set

import pytest

from configuration.schema import CorruptionOptions
from data_scripts.bios_folder import FILES, read_lines
from data_scripts.phrases import salient_phrases
from data_scripts.span_corruption import TextCorruptor
from data_scripts.titles import split_title

S = "⁇"
RANDOM = CorruptionOptions(policy="random-span")
SHORT = CorruptionOptions(short_fraction=1.0)
LONG = CorruptionOptions(short_fraction=0.0)
OPTIONS = {"random-span": RANDOM, "salient-short": SHORT, "salient-long": LONG}
TEXTS = (
    "Ada Stone. Ada Stone (born 3 May 1841 in Győr) was a Swiss painter who lived in New York .",
    "Béla Nagy. By profession a judge, Nagy was born in Upper Lund and moved to Oslo in 1902 .",
)
WORDY = "Eva Lund. " + " ".join(f"{'Place' if index % 8 == 1 else 'word'}{index}" for index in range(80))


def draws(text: str, options: CorruptionOptions, count: int, answers: Set[str] = frozenset()) -> list[str]:
    """Return the text's corruptions of `count` epochs."""
    return TextCorruptor([text], options, answers).corrupt(0, range(count), [0] * count, S)


def parse_short(corrupted: str, title: str) -> tuple[list[str], list[str]]:
    """Return (contexts, answers) of a text in the short form, which begins with the title."""
    assert corrupted.startswith(f"{title}.")
    *parts, rest = corrupted.removeprefix(f"{title}.").split(S)
    assert rest == ""
    assert len(parts) % 2 == 0
    return [context.strip() for context in parts[::2]], parts[1::2]


def parse_long(corrupted: str) -> tuple[list[str], list[str]]:
    """Return (contexts, answers) of a text in the long form, one context more than answers."""
    *parts, rest = corrupted.split(S)
    assert rest == ""
    assert len(parts) % 2 == 1
    count = len(parts) // 2
    return parts[: count + 1], parts[count + 1 :]


def restore_long(corrupted: str) -> str:
    """Put the answers of the long form back in the sentinels' places; return the text without white space."""
    contexts, answers = parse_long(corrupted)
    return squeeze("".join(context + answer for context, answer in zip(contexts, [*answers, ""], strict=True)))


def squeeze(text: str) -> str:
    """Return the text without white space."""
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize(
    ("form", "person", "epoch", "expected"),
    [
        ("random-span", 0, 0, "Ada Stone. ⁇e (born 3 May 1841 in Győr) was a Sw⁇Ada Ston"),
        ("random-span", 0, 1, "Ada Ston⁇ Stone⁇e. Ada"),
        ("random-span", 1, 0, "Béla Nagy. By pro⁇agy was born in⁇fession a judge, N"),
        ("random-span", 1, 1, "Béla ⁇fession a judge, Nagy was born⁇Nagy. By pro"),
        ("salient-short", 0, 0, "Ada Stone. Swiss⁇painter who lived⁇"),
        ("salient-short", 0, 1, "Ada Stone. was a Swiss⁇painter who lived in⁇ (born 3 May⁇1841⁇"),
        ("salient-short", 1, 0, "Béla Nagy. to⁇Oslo⁇⁇in Upper⁇"),
        ("salient-short", 1, 1, "Béla Nagy. Nagy was born in⁇Upper Lund⁇"),
        (
            "salient-long",
            0,
            0,
            "Ada Stone. Ada Stone (born 3 May 1841 in Győr) was a Swiss⁇ in New York .⁇painter who lived⁇",
        ),
        (
            "salient-long",
            0,
            1,
            "Ada Stone. Ada Stone (born 3 May⁇ in Győr) was a Swiss⁇ New York .⁇1841⁇painter who lived in⁇",
        ),
        (
            "salient-long",
            1,
            0,
            "Béla Nagy. By profession a judge, Nagy was born⁇ Lund and moved to⁇ in 1902 .⁇in Upper⁇Oslo⁇",
        ),
        (
            "salient-long",
            1,
            1,
            "Béla Nagy. By profession a judge, Nagy was born in⁇ and moved to Oslo in 1902 .⁇Upper Lund⁇",
        ),
    ],
)
def test_exact_texts_under_a_seed(form, person, epoch, expected):
    assert TextCorruptor(TEXTS, OPTIONS[form]).corrupt(7, [epoch], [person], S) == [expected]


@pytest.mark.parametrize("form", OPTIONS)
def test_order_company_and_the_global_generator_change_nothing(form):
    corruptor, examples = TextCorruptor(TEXTS, OPTIONS[form]), [0, 1] * 3
    epochs = [0, 0, 1, 1, 2, 2]
    forwards = corruptor.corrupt(5, epochs, examples, S)
    random.seed(5)
    assert corruptor.corrupt(5, epochs[::-1], examples[::-1], S) == forwards[::-1]
    assert [
        corruptor.corrupt(5, [epoch], [one], S)[0] for epoch, one in zip(epochs, examples, strict=True)
    ] == forwards


@pytest.mark.parametrize("form", OPTIONS)
@pytest.mark.parametrize("key", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["seed", "epoch", "example"])
def test_every_part_of_the_key_counts(form, key):
    (seed, epoch, step), corruptor = key, TextCorruptor([WORDY] * 400, OPTIONS[form])
    plain = corruptor.corrupt(0, [0] * 200, range(0, 400, 2), S)
    other = corruptor.corrupt(seed, [epoch] * 200, range(step, 400, 2), S)
    assert sum(one == another for one, another in zip(plain, other, strict=True)) < 40  # some 20 by chance, at most


@pytest.mark.parametrize("form", OPTIONS)
def test_the_sentinel_is_the_one_given(form):
    corruptor = TextCorruptor(TEXTS, OPTIONS[form])
    text = corruptor.corrupt(0, [0], [0], S)[0]
    assert corruptor.corrupt(0, [0], [0], "<m>") == [text.replace(S, "<m>")]


@pytest.mark.parametrize("form", OPTIONS)
def test_no_texts_are_corrupted_to_none(form):
    assert TextCorruptor([], OPTIONS[form]).corrupt(0, [], [], S) == []


def test_random_span_restores_to_a_cut_of_every_length():
    text = WORDY[:200]
    lengths = set()
    for corrupted in draws(text, RANDOM, 3000):
        prefix, suffix, masked = corrupted.split(S)
        whole = prefix + masked + suffix
        assert text.startswith(whole)
        assert masked
        lengths.add(len(whole))
    assert lengths == set(range(4, 113))


def test_random_span_takes_out_a_quarter_on_average_and_anywhere():
    shares, starts, ends = [], 0, 0
    for corrupted in draws(WORDY, CorruptionOptions(policy="random-span", max_length=400), 4000):
        prefix, suffix, masked = corrupted.split(S)
        length = len(prefix + suffix + masked)
        shares.append(len(masked) / length)
        assert length / 8 - 0.5 <= len(masked) <= length * 3 / 8 + 0.5
        starts += not prefix
        ends += not suffix
    assert statistics.mean(shares) == pytest.approx(0.25, abs=0.01)
    assert starts > 10
    assert ends > 10


@pytest.mark.parametrize("text", ["a", "ab", "A. ", "A. b", "A. bc", "....", "(", "Adams"])
@pytest.mark.parametrize("form", OPTIONS)
def test_texts_shorter_than_a_span_lose_something_still(form, text):
    for corrupted in draws(text, OPTIONS[form], 20):
        assert S in corrupted
        assert set(corrupted) <= set(text) | {S}
        if form == "random-span":
            prefix, suffix, masked = corrupted.split(S)
            assert text.startswith(prefix + masked + suffix)
            assert masked
        elif form == "salient-long":
            assert squeeze(text).startswith(restore_long(corrupted))


@pytest.mark.parametrize("form", OPTIONS)
def test_no_text_at_all_gives_sentinels_alone(form):
    assert set("".join(draws("", OPTIONS[form], 20))) == {S}


@pytest.mark.parametrize(("form", "sentinels"), [("salient-short", 2), ("salient-long", 3)])
def test_an_empty_body_is_asked_for_once(form, sentinels):
    assert {corrupted.count(S) for corrupted in draws("Ada. ", OPTIONS[form], 50)} == {sentinels}


@pytest.mark.parametrize("max_spans", [1, 2, 3, 6])
def test_short_form_asks_for_facts_of_the_body_after_the_title(max_spans):
    title, body = split_title(TEXTS[0])
    numbers = set()
    for corrupted in draws(TEXTS[0], CorruptionOptions(short_fraction=1.0, max_spans=max_spans), 300):
        contexts, answers = parse_short(corrupted, title)
        for context, answer in zip(contexts, answers, strict=True):
            assert answer.strip()
            assert re.search(rf"{re.escape(context)}\s*{re.escape(answer)}", body)
        numbers.add(len(answers))
    assert numbers == set(range(1, max_spans + 1))


def test_short_form_contexts_begin_with_a_whole_word_and_stay_in_bounds():
    words = set(re.findall(r"\w+", TEXTS[1]))
    lengths = set()
    for corrupted in draws(TEXTS[1], CorruptionOptions(short_fraction=1.0, max_context=10), 500):
        for context in parse_short(corrupted, "Béla Nagy")[0]:
            assert set(re.findall(r"\w+", context)) <= words
            lengths.add(len(context))
    assert 0 in lengths
    assert 8 <= max(lengths) <= 10


def test_short_form_without_context_is_title_and_answers():
    for corrupted in draws(TEXTS[0], CorruptionOptions(short_fraction=1.0, max_context=0), 50):
        assert set(parse_short(corrupted, "Ada Stone")[0]) == {""}


@pytest.mark.parametrize("max_spans", [1, 3, 6])
def test_long_form_restores_to_the_text(max_spans):
    numbers = set()
    options = CorruptionOptions(short_fraction=0.0, max_spans=max_spans, max_length=1000)
    for corrupted in draws(TEXTS[1], options, 1500):
        assert corrupted.startswith("Béla Nagy.")
        assert restore_long(corrupted) == squeeze(TEXTS[1])
        numbers.add(len(parse_long(corrupted)[1]))
    assert numbers == set(range(1, max_spans + 1))


def test_long_form_of_a_long_text_restores_to_its_beginning():
    restored = [restore_long(corrupted) for corrupted in draws(WORDY, LONG, 100)]
    assert all(squeeze(WORDY).startswith(beginning) for beginning in restored)
    assert min(map(len, restored)) > 80


def test_long_form_is_cut_between_words():
    words = set(re.findall(r"\w+", WORDY))
    for max_length in range(60, 90):
        for corrupted in draws(WORDY, CorruptionOptions(short_fraction=0.0, max_length=max_length), 5):
            assert set(re.findall(r"\w+", corrupted)) <= words


def test_long_form_is_no_longer_than_asked_before_corruption():
    text = "Eva Lund. " + " ".join("abcdefghijklmnopqrstuvwxyz")
    for max_length in range(30, 60):
        for corrupted in draws(text, CorruptionOptions(short_fraction=0.0, max_length=max_length), 5):
            assert len(restore_long(corrupted)) <= len(squeeze(text[:max_length]))


@pytest.mark.parametrize("form", ["salient-short", "salient-long"])
def test_no_word_is_taken_out_twice(form):
    options = CorruptionOptions(short_fraction=OPTIONS[form].short_fraction, max_spans=8, max_length=200)
    for corrupted in draws(WORDY, options, 300):
        answers = parse_short(corrupted, "Eva Lund")[1] if form == "salient-short" else parse_long(corrupted)[1]
        taken = [word for answer in answers for word in answer.split()]
        assert len(set(taken)) == len(taken)


def test_salient_phrases_are_capitalised_and_say_more_than_the_title():
    title, body = "Ada Stone", "Born in New York, Stone met Ada Moss-Quint in Győr and Éva in 1902 ."
    phrases = [body[start:end] for start, end in salient_phrases(title, body)]
    assert phrases == ["New York", "Győr", "Éva"]


def test_salient_phrases_begin_with_a_capital_letter():
    body = "Once the French émigré met Łukasz at the école ."
    assert [body[start:end] for start, end in salient_phrases("Ada", body)] == ["French", "Łukasz"]


def test_a_phrase_with_a_word_of_the_title_is_no_target_of_salience():
    options = CorruptionOptions(short_fraction=1.0, salient_fraction=1.0, max_spans=1)
    answers = {parse_short(corrupted, "Béla Nagy")[1][0] for corrupted in draws(TEXTS[1], options, 100)}
    assert answers == {"Upper Lund", "Oslo"}


@pytest.mark.parametrize(
    ("fraction", "answers", "share"),
    [
        pytest.param(1.0, {"Oslo"}, 1.0, id="always"),
        pytest.param(0.5, {"Oslo"}, 0.75, id="half-the-time-and-by-chance"),
        pytest.param(0.0, {"Oslo"}, 0.5, id="by-chance"),
        pytest.param(1.0, {"Rome"}, 0.5, id="no-answer-in-the-text"),
        pytest.param(1.0, set(), 0.5, id="no-answers"),
    ],
)
def test_phrases_that_answer_a_training_question_are_preferred(fraction, answers, share):
    options = CorruptionOptions(short_fraction=1.0, salient_fraction=1.0, max_spans=1, answer_fraction=fraction)
    found = [corrupted.endswith("⁇Oslo⁇") for corrupted in draws(TEXTS[1], options, 1500, answers)]
    assert statistics.mean(found) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.75, 1.0])
def test_the_share_of_capitalised_targets_is_the_one_asked_for(fraction):
    options = CorruptionOptions(short_fraction=1.0, salient_fraction=fraction, max_spans=1)
    answers = [parse_short(corrupted, "Eva Lund")[1][0] for corrupted in draws(WORDY, options, 3000)]
    by_chance = (1 - fraction) / 8 / 4  # a run of words may be one capitalised word too
    share = sum(re.fullmatch(r"Place\d+", answer) is not None for answer in answers) / len(answers)
    assert share == pytest.approx(fraction + by_chance, abs=0.025)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_the_share_of_short_forms_is_the_one_asked_for(fraction):
    options = CorruptionOptions(short_fraction=fraction, max_spans=1)
    short = [corrupted.count(S) == 2 for corrupted in draws(TEXTS[0], options, 1500)]
    assert statistics.mean(short) == pytest.approx(fraction, abs=0.03)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"policy": "t5"}, "policy must be one of random-span, salient-span, found 't5'"),
        ({"short_fraction": 1.5}, r"short_fraction must be in \[0, 1\], found 1.5"),
        ({"salient_fraction": -0.1}, r"salient_fraction must be in \[0, 1\], found -0.1"),
        ({"answer_fraction": 2.0}, r"answer_fraction must be in \[0, 1\], found 2.0"),
        ({"max_length": 3}, "max_length must be at least 4 characters, found 3"),
        ({"max_spans": 0}, r"max_spans must be in \[1, 1000\], found 0"),
        ({"max_spans": 10**9}, r"max_spans must be in \[1, 1000\], found 1000000000"),
        ({"max_context": -1}, "max_context must not be negative, found -1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_out_of_range_are_refused_with_the_number(bad, message):
    with pytest.raises(ValueError, match=message):
        CorruptionOptions(**bad)


@pytest.mark.parametrize("form", OPTIONS)
def test_real_biographies_can_be_put_together_again(cs224n, form):
    texts = read_lines(cs224n / FILES["documents"])
    made = TextCorruptor(texts, OPTIONS[form]).corrupt(0, [0] * len(texts), range(len(texts)), S)
    for text, corrupted in zip(texts, made, strict=True):
        if form == "random-span":
            prefix, suffix, masked = corrupted.split(S)
            assert text.startswith(prefix + masked + suffix)
        elif form == "salient-long":
            assert squeeze(text).startswith(restore_long(corrupted))
        else:
            assert corrupted.startswith(f"{split_title(text)[0]}.")
            assert all(answer in text for answer in corrupted.split(S)[1::2])
