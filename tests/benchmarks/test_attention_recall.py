"""The recall benchmark: its texts can be answered, its questions are asked alone, and it runs."""

import json

import numpy as np
import pytest
import torch

from benchmarks import attention_recall
from benchmarks.attention_recall import ASK, NAMES, PLACES, ask, batch_of, build_model, write_text


def test_every_question_is_about_somebody_met_before_and_has_one_answer():
    text = write_text(np.random.default_rng(0), 2000)
    ids = text.ids.tolist()
    assert len(ids) == 2000
    assert len(text.answers) > 50
    asked = []
    for position in text.answers:
        name, place = ids[position - 1], ids[position]
        first = ids.index(name)
        assert ids[position - 2] == ASK
        assert first < position - 2
        assert ids[first + 1] == place
        asked.append(name)
    assert len(set(asked)) == len(asked)
    for name, place, position in text.open:
        assert name not in asked
        assert ids[position] == place
        assert ids.count(name) == 1


def test_only_answers_have_labels():
    batch = batch_of(np.random.default_rng(0), 3, 200)
    labels = batch["labels"]
    told = labels != -100
    assert told.any(1).all()
    assert torch.equal(labels[told], batch["input_ids"][told])
    assert set(labels[told].tolist()) <= set(PLACES)


@pytest.mark.parametrize("subject", attention_recall.SUBJECTS)
def test_questions_asked_together_are_answered_as_if_alone(subject):
    model = build_model(subject, 512).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    text = write_text(np.random.default_rng(0), 400)
    people = text.open[:5]
    expected = []
    for name, place, _ in people:
        ids = torch.tensor([[*text.ids.tolist(), ASK, name]])
        with torch.no_grad():
            guess = model(ids).logits[0, -1].argmax().item()
        assert ask(model, text, [(name, guess, 0)]) == [True]
        expected.append(guess == place)
    assert ask(model, text, people) == expected


def test_it_runs_and_writes_what_it_found(tmp_path):
    sizes = ["--length", "1024", "--tokens", "1024", "--steps", "1", "1", "1", "1", "1", "--contexts", "1"]
    subjects = ["--subjects", "vanilla", "linformer below vanilla", "--threads", "1"]
    assert attention_recall.main([*sizes, *subjects, "--output", str(tmp_path / "recall.json")]) == 0
    points = json.loads((tmp_path / "recall.json").read_text())["points"]
    assert [point["subject"] for point in points] == ["vanilla", "linformer below vanilla"]
    for (row,) in (point["rounds"] for point in points):
        assert row["questions"] > 20
        assert 0.0 <= row["recall"] <= 1.0
    assert "linformer below vanilla" in (tmp_path / "recall.md").read_text()
    assert max(NAMES) < build_model("vanilla", 64).config.vocab_size
