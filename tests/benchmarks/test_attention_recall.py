"""The recall benchmark: its questions are asked alone, what it writes is what it measured, and a run is resumed."""

import json

import numpy as np
import pytest
import torch

from benchmarks import attention_recall, recall_models
from benchmarks.attention_recall import MAX_ASKED, answer_at_end, answer_inside, ask, score, share
from benchmarks.recall_models import SUBJECTS, build_model
from benchmarks.recall_texts import TASKS, Fact, Text, write_people

TINY = ["--length", "128", "--tokens", "128", "--steps", "0", "0", "1", "1", "1", "--contexts", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    """Time one pass only."""
    quick = attention_recall.milliseconds_a_token
    monkeypatch.setattr(attention_recall, "milliseconds_a_token", lambda model, length: quick(model, length, 0.0))


def scrambled(subject, length, task="people"):
    """Return a model whose answers differ from question to question."""
    model = build_model(subject, length, task).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def guess(model, ids):
    """Return the likeliest token after some tokens, read at once without a cache."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_questions_asked_together_are_answered_as_if_alone(subject, monkeypatch):
    model = scrambled(subject, 512)
    text = write_people(np.random.default_rng(0), 400)
    monkeypatch.setattr(attention_recall, "CACHED", 3 * 400)  # three at once
    facts = text.open[:5]
    expected = []
    for fact in facts:
        answer = guess(model, [*text.ids.tolist(), *fact.question])
        assert ask(model, text, [Fact(fact.question, answer, 0)]) == [True]
        expected.append(answer == fact.answer)
    assert ask(model, text, facts) == expected


def test_questions_inside_a_text_are_answered_by_what_is_before_them():
    model = scrambled("vanilla", 128, "mqar")
    text = TASKS["mqar"].write(np.random.default_rng(0), 128)
    ids = text.ids.tolist()
    right = {at: guess(model, ids[:at]) for at in text.answers}
    for at in list(text.answers)[::2]:
        ids[at] = right[at]  # half of the answers are what the model says
        right = {at: guess(model, ids[:at]) for at in text.answers}
    changed = Text(np.array(ids), text.answers)
    wanted = [(at - source, guess(model, ids[:at]) == ids[at]) for at, source in text.answers.items()]
    assert answer_inside(model, changed) == wanted
    assert any(hit for _, hit in wanted)


@pytest.mark.parametrize("task", [task for task in TASKS if not TASKS[task].in_one_pass])
def test_distances_at_the_end_are_to_where_the_answer_would_be(task):
    text = TASKS[task].write(np.random.default_rng(0), 128)
    found = answer_at_end(scrambled("vanilla", 128, task), text)
    for (distance, _), fact in zip(found, text.open, strict=True):
        whole = [*text.ids.tolist(), *fact.question, fact.answer]
        assert whole[len(whole) - 1 - distance] == fact.answer
        assert len(whole) - 1 - distance == fact.position


@pytest.mark.parametrize("task", TASKS)
def test_all_models_read_the_same_contexts_and_every_question_is_in_one_range(task, monkeypatch):
    read = []
    name = "answer_inside" if TASKS[task].in_one_pass else "answer_at_end"

    def listen(model, text):
        read.append(text)
        asked = text.answers if TASKS[task].in_one_pass else text.open
        return [(number + 1, True) for number, _ in enumerate(asked)]

    monkeypatch.setattr(attention_recall, name, listen)
    for seed in (0, 1):
        found = score(build_model("vanilla", 64, task, seed), task, 600, 2)
        assert found["recall"] == 1.0
        assert sum(part["questions"] for part in found["by_distance"]) == found["questions"]
        assert [part["above"] for part in found["by_distance"]] == [0, 64, 256]
    assert np.array_equal(read[0].ids, read[2].ids)
    assert not np.array_equal(read[0].ids, read[1].ids)
    assert read[0].open == read[2].open
    assert max(len(text.open) for text in read) <= MAX_ASKED


def test_the_share_of_right_answers():
    assert share([]) == {"questions": 0, "recall": None}
    assert share([True, True, True, False]) == {"questions": 4, "recall": 0.75}


def test_it_runs_and_writes_what_it_found(tmp_path):
    options = ["--subjects", "vanilla", "linformer below vanilla", "--tasks", "people", "mqar", "--seeds", "0", "1"]
    reads = ["--read-lengths", "64", "512", "--rope-scalings", "none", "yarn", "linear"]
    assert attention_recall.main([*TINY, *options, *reads, "--output", str(tmp_path / "recall.json")]) == 0
    points = json.loads((tmp_path / "recall.json").read_text())["points"]
    subjects = ("vanilla", "linformer below vanilla")
    trained = points[: -len(subjects)]
    assert [(point["seed"], point["task"], point["subject"]) for point in trained] == [
        (seed, task, subject) for seed in (0, 1) for task in ("people", "mqar") for subject in subjects
    ]
    timed = {point["subject"]: point["rounds"] for point in points[len(trained) :] if "task" not in point}
    assert sorted(timed) == sorted(subjects)
    for rounds in timed.values():
        assert len(rounds) == 3
        assert all(one["milliseconds"] > 0 for one in rounds)
    for (run,) in (point["rounds"] for point in trained):
        shape = [(read["length"], read["scaling"]) for read in run["reads"]]
        assert shape == [(64, "none"), (128, "none"), (512, "none"), (512, "yarn"), (512, "linear")]
        assert all(read["questions"] > 0 and 0.0 <= read["recall"] <= 1.0 for read in run["reads"])
    tables = (tmp_path / "recall.md").read_text(encoding="utf-8")
    for heading in ("people: a context of 512 tokens", "mqar: by the length of the context"):
        assert f"## {heading}" in tables
    assert "linformer below vanilla, yarn" in tables
    assert "linformer below vanilla, yarn" in (tmp_path / "recall.svg").read_text(encoding="utf-8")


def test_what_was_measured_is_not_trained_again(tmp_path, monkeypatch, capsys):
    trained = []
    real = recall_models.train

    def listen(model, what, *rest):
        trained.append(what)
        return real(model, what, *rest)

    monkeypatch.setattr(attention_recall, "train", listen)
    command = [*TINY, "--subjects", "vanilla", "--output", str(tmp_path / "recall.json"), "--seeds"]
    assert attention_recall.main([*command, "0"]) == 0
    assert attention_recall.main([*command, "0", "1"]) == 0
    assert trained == ["vanilla, people, seed 0", "vanilla, people, seed 1"]
    # Again, for a folder that does not have the model; not where it has.
    for _ in range(2):
        assert attention_recall.main([*command, "0", "--save", str(tmp_path / "models")]) == 0
    assert trained[2:] == ["vanilla, people, seed 0"]
    assert (tmp_path / "models" / "vanilla-people-seed_0" / "model.safetensors").is_file()
    assert attention_recall.main([*command, "0", "--read-lengths", "256"]) != 0
    assert "other settings" in capsys.readouterr().err
