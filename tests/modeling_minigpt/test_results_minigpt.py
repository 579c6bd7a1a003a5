"""A result in words: what a person reads of an answer, of an abstention and of the chance in them."""

import pytest

from modeling_minigpt.confidence_minigpt import Scores
from modeling_minigpt.results_minigpt import describe_result, explain_abstention, format_chance
from modeling_minigpt.risk_control_minigpt import Certificate


@pytest.mark.parametrize(
    ("scores", "failed", "reason"),
    [
        ((0.12, 0.9), "known", "I have probably never read about this person (12 % that I have)"),
        ((0.85, 0.9), "known", "I have probably read about this person, but that is not sure enough (85 %)"),
        ((0.97, 0.61), "correct", "I know of this person but am not sure (61 %)"),
        ((0.97, 0.8), None, None),
    ],
)
def test_an_abstention_names_the_chance_that_was_too_low(scores, failed, reason):
    certificate = Certificate(0.9, 0.7, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0)
    said = Scores(*scores, scores[0] * scores[1])
    assert explain_abstention(said, certificate) == (failed, reason)
    assert explain_abstention(said, said.score) == (None, None)
    assert explain_abstention(said, said.score + 0.01)[0] == min(("known", "correct"), key=said._asdict().get)


def test_nobody_is_said_to_be_known_who_probably_is_not():
    assert explain_abstention(Scores(0.3, 0.25, 0.075), 0.9) == (
        "correct", "I may know of this person but am not sure (25 %)",
    )  # fmt: skip


def test_a_result_reads_as_a_person_would_say_it():
    unknown = {"abstained": True, "failed": "known", "reason": "…", "known": 0.05, "correct": 0.5}
    unknown["candidates"] = [{"answer": "Raerburg", "score": 0.02}]
    expected = "I don't know (5 % that I have read about this person; I would have guessed Raerburg)"
    assert describe_result(unknown) == expected
    unsure = {**unknown, "failed": "correct", "known": 0.999, "correct": 0.61}
    expected = "(more than 99 % that I have read about this person; 61 % that I would be right; I would"
    assert expected in describe_result(unsure)
    given = {"abstained": False, "answer": "Rome", "score": 0.97, "calibrated": True}
    assert describe_result(given) == "Rome (97 % that this is right)"
    assert "uncalibrated" in describe_result({**given, "calibrated": False})
    assert describe_result({**unknown, "failed": None, "reason": "no name in it", "candidates": []}) == (
        "I don't know (no name in it)"
    )


@pytest.mark.parametrize(
    ("chance", "text"),
    [(0.0, "0 %"), (0.001, "less than 1 %"), (0.05, "5 %"), (0.9951, "more than 99 %"), (1.0, "100 %")],
)
def test_no_chance_reads_as_a_certainty_that_it_is_not(chance, text):
    assert format_chance(chance) == text
