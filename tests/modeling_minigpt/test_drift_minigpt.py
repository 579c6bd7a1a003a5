"""A log of scores, compared with those of the calibration: like them, unlike them, or too few to say."""

import json

import numpy as np
import pytest
from scipy.stats import ks_2samp

from modeling_minigpt.cli_minigpt import main
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.drift_minigpt import describe_drift, ks_p_value, log_line, read_log
from modeling_minigpt.risk_control_minigpt import CalibrationScores


def draw(count, seed, power=0.3):
    """Draw pairs of chances: the second one is higher where the power is lower."""
    rng = np.random.default_rng(seed)
    return list(zip(rng.uniform(0.6, 1.0, count).tolist(), (rng.random(count) ** power).tolist(), strict=True))


def make(pairs):
    """Return a calibration with these pairs on its certification half."""
    half = CalibrationScores([(*pair, True) for pair in pairs])
    return Confidence(Head({}, 0.0), Head({}, 0.0), half, half)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.15, 0.2])
def test_the_test_of_two_samples_is_scipy_s(shift):
    rng = np.random.default_rng(1)
    one, other = rng.random(200), np.clip(rng.random(150) + shift, 0, 1)
    # Near the alarm's 0.01 as well: scipy's is exact, this one asymptotic.
    assert ks_p_value(one.tolist(), other.tolist()) == pytest.approx(ks_2samp(one, other).pvalue, rel=0.35, abs=1e-3)


def test_questions_like_those_of_the_calibration_raise_no_alarm_and_others_do():
    confidence = make(draw(200, 0))
    assert "the others are like those of the calibration" in describe_drift(confidence, draw(200, 1))
    assert "calibrate again" in describe_drift(confidence, draw(200, 2, power=2.0))


def test_scores_that_only_rounding_tells_apart_are_equal():
    chance = 122 / 127
    nearly = [np.nextafter(chance, 0.0), np.nextafter(chance, 1.0), chance + 1e-12]
    assert ks_p_value(nearly * 40, [chance] * 125) == 1.0
    assert ks_p_value([chance + 1e-6] * 120, [chance] * 125) < 1e-20
    confidence = make([(0.99, chance)] * 125)
    assert "are like those of the calibration" in describe_drift(confidence, [(0.99, one) for one in nearly * 40])


def test_strangers_are_counted_and_not_compared():
    confidence = make(draw(200, 0))
    said = describe_drift(confidence, draw(150, 1) + [(0.05, 0.0)] * 50)
    assert said.startswith("25% of 200 questions asked look like strangers (0% of the calibration's people do)")
    assert "are like those of the calibration" in said


def test_too_few_questions_say_nothing():
    confidence = make(draw(200, 0))
    assert describe_drift(confidence, draw(10, 1)) == "cannot be said of 10 questions, wanted 30"
    assert "too few to compare" in describe_drift(confidence, draw(10, 1) + [(0.1, 0.1)] * 40)
    former = Confidence(None, Head({}, 0.0), confidence.selection, confidence.certification)
    assert "one score for both" in describe_drift(former, draw(40, 1))


def test_a_log_has_chances_and_no_names(tmp_path):
    result = {
        "relation": "birthplace",
        "known": 0.5,
        "correct": 0.25,
        "abstained": True,
        "question": "Ada",
        "answer": None,
    }
    line = log_line(result)
    assert json.loads(line) == {"relation": "birthplace", "known": 0.5, "correct": 0.25, "answered": False}
    path = tmp_path / "log.jsonl"
    path.write_text(f"{line}\n{log_line({**result, 'known': None, 'correct': None})}\n{line}\n")
    assert read_log(path) == {"birthplace": [(0.5, 0.25)] * 2}


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[1]",
        "3",
        '{"relation": "a", "known": NaN, "correct": 0.5}',
        '{"relation": "a", "known": 2.0, "correct": 0.5}',
        '{"relation": ["a"], "known": 0.5, "correct": 0.5}',
    ],
)
def test_a_line_that_is_none_of_a_log_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"relation": "a", "known": 0.5, "correct": 0.5}}\n{line}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl:2: wanted a relation and known and correct in \[0, 1\]"):
        read_log(path)


def test_an_empty_line_is_none_and_what_is_no_text_is_refused_by_the_file(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('\n{"relation": "a", "known": 0.5, "correct": 0.5}\n\n')
    assert read_log(path) == {"a": [(0.5, 0.5)]}
    path.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"log\.jsonl: wanted text in UTF-8"):
        read_log(path)


def test_the_command_logs_what_is_asked_and_reads_it_again(run, tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        assert main(["ask", str(run), "Ada Stone", "???", "--log", str(path)]) == 0
    assert len(path.read_text().splitlines()) == 2  # what is no question has no chances
    assert main(["info", str(run), "--log", str(path)]) == 0
    assert main(["info", str(run), "--log", str(tmp_path / "none")]) == 2
    assert main(["ask", str(run), "Ada Stone", "--log", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_a_log_that_an_editor_has_saved_is_read_line_by_line(tmp_path):
    line = '{"relation": "born\u2028in", "known": 0.5, "correct": 0.25, "answered": true}'
    (tmp_path / "log.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n{line}\r\n".encode())
    assert read_log(tmp_path / "log.jsonl") == {"born\u2028in": [(0.5, 0.25)] * 2}
