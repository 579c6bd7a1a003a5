"""The benchmark of serving: threads and clients are measured on a real server, and the bars follow the numbers."""

import json

import pytest

from benchmarks import harness, serving
from benchmarks.harness import Point
from benchmarks.serving import CLIENTS, THREADS, Reply, count_differences, judge
from configuration.errors import UserError
from tests.pipelines import pipeline_factory

GOOD = {"failed": 0, "false_abstentions": 0, "other_answers": 0, "other_scores": 0, "rate": 250.0}


def result(answer, score=0.5):
    """Return what a test looks at of a pipeline's result."""
    return {"answer": answer, "abstained": answer is None, "score": score}


def test_threads_and_clients_get_what_one_thread_gets(tmp_path):
    pipeline_factory()().save_pretrained(tmp_path / "model")
    output = tmp_path / "serving.json"
    words = [str(tmp_path / "model"), "--seconds", "1", "--questions", "6", "--output", str(output)]
    assert serving.main(words) in (0, 1)  # a busy machine may be slow
    content = json.loads(output.read_text())
    found = {point["subject"]: point["rounds"][0] for point in content["points"]}
    assert found[THREADS]["asked"] == 6
    assert found[CLIENTS]["asked"] >= 32
    assert 0 < found[CLIENTS]["p50"] <= found[CLIENTS]["p99"] <= found[CLIENTS]["longest"]
    for one in found.values():
        assert [one[key] for key in ("failed", "false_abstentions", "other_answers")] == [0, 0, 0]
    assert "| 32 clients |" in output.with_suffix(".md").read_text()
    assert str(tmp_path) not in output.read_text()
    assert harness.rewrite_report(output) == output.with_suffix(".md").read_text()


def test_a_model_without_names_is_refused(tmp_path):
    ask = pipeline_factory()()
    ask.names = type(ask.names)("")
    with pytest.raises(UserError, match=r"no names\.txt"):
        serving.list_questions(ask, 5)


def test_differences_are_counted_by_kind():
    expected = {"a": result("Rome"), "b": result(None), "c": result("Oslo")}
    replies = [
        Reply("a", result("Rome", 0.5001), 0.1),
        Reply("a", result(None), 0.1),
        Reply("b", result("Rome"), 0.1),
        Reply("c", result("Oslo", 0.6), 0.1),
        Reply("c", None, 0.1),
    ]
    assert count_differences(replies, expected) == {
        "failed": 1,
        "false_abstentions": 1,
        "other_answers": 2,
        "other_scores": 1,
    }


@pytest.mark.parametrize(
    ("change", "missed"),
    [({}, []), ({"rate": 199.0}, ["answers per second"]), ({"false_abstentions": 1}, ["false abstentions"])],
    ids=["good", "slow", "abstains"],
)
def test_bars_follow_the_numbers(change, missed):
    bars = judge({Point(THREADS): [GOOD], Point(CLIENTS): [{**GOOD, **change}]})
    assert [bar.what for bar in bars if not bar.holds] == [f"clients: {what}" for what in missed]
    failed = judge({Point(CLIENTS): [{"error": "out of memory"}]})
    assert not any(bar.holds for bar in failed)
