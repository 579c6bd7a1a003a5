"""The benchmark of candidates: every way of ranking runs, the files say what was measured, bars follow the numbers."""

import json

import pytest

from benchmarks import candidates_scaling, harness
from benchmarks.candidates_scaling import FULL, SEARCH, batch_of, invent_places, invent_questions, judge
from benchmarks.harness import Point
from modeling_minigpt import build_bpe_tokenizer

SIZES = [20, 60]
TOP = "best-first, top 1"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the benchmark as short as it can be, in this process."""
    folder = tmp_path_factory.mktemp("candidates")
    sizes = ["--sizes", *map(str, SIZES), "--rounds", "1", "--people", "40", "--steps", "4", "--seconds", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "in_fresh_process", harness.in_this_process)
        patch.setattr(candidates_scaling, "MAX_SCORED_IN_FULL", 20)
        patch.setattr(candidates_scaling, "PART", 25)
        assert candidates_scaling.main([*sizes, "--output", str(folder / "candidates.json")]) == 0
    return folder


def test_every_way_is_measured_and_written_and_finds_the_same_answers(output):
    record = json.loads((output / "candidates.json").read_text())
    measured = {(point["subject"], point["size"]): point["rounds"][0] for point in record["points"]}
    assert set(measured) == {(FULL, 20), *((subject, size) for subject in SEARCH for size in SIZES)}
    assert all(result["seconds"] > 0 and result["trie_seconds"] > 0 for result in measured.values())
    found = {size: (measured[TOP, size]["same"], measured[TOP, size]["compared"]) for size in SIZES}
    assert found == {20: (32, 32), 60: (4, 4)}
    tables = (output / "candidates.md").read_text(encoding="utf-8")
    assert "| same | 32 of 32 | 4 of 4 |" in tables
    assert all(subject in tables for subject in (FULL, *SEARCH))
    assert "<svg" in (output / "candidates.svg").read_text(encoding="utf-8")


def test_labels_are_the_answers_and_the_sentinel_that_ends_them():
    places = invent_places(5)
    questions = invent_questions(12, places)
    tokenizer = build_bpe_tokenizer([f"{one.text} {one.answer}" for one in questions], 300, 128)
    batch = batch_of(questions, tokenizer)
    for question, labels in zip(questions, batch["labels"], strict=True):
        assert labels[labels >= 0].tolist() == [*tokenizer(question.answer)["input_ids"], tokenizer.eos_token_id]


def test_popular_places_come_first():
    places = invent_places(1000)
    assert len(set(places)) == 1000
    drawn = [question.answer for question in invent_questions(2000, places)]
    counts = [sum(place in part for place in drawn) for part in (set(places[:10]), set(places[500:510]))]
    assert counts[0] > 10 * counts[1]


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_bars_follow_the_numbers(good):
    results = {
        Point(TOP, size=50_000): [{"seconds": 0.004 if good else 0.006, "bytes": 5e7 if good else 7e7}],
        Point("best-first, top 5", size=50_000): [{"seconds": 0.009 if good else 0.011}],
    }
    results[Point(TOP, size=50_000)][0] |= {"same": 4 if good else 3, "compared": 4}
    bars = judge(results, [50_000])
    assert [bar.found for bar in bars] == pytest.approx([4, 9, 50, 1.0] if good else [6, 11, 70, 0.75])
    assert [bar.holds for bar in bars] == [good] * 4


def test_what_could_not_be_measured_misses_its_bar():
    bars = judge({Point(TOP, size=50_000): [{"error": "killed"}]}, [50_000])
    assert [bar.holds for bar in bars] == [False] * 4
