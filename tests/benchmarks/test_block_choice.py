"""What a choice of blocks finds, by the command: which questions count, how texts are averaged, what is written."""

import json

import numpy as np
import pytest
import torch

from attention_lab.toy_model import train_toy_model
from benchmarks import block_choice
from benchmarks.block_choice import average, questions_inside
from benchmarks.block_choice_report import report
from benchmarks.recall_models import build_model
from benchmarks.recall_texts import TASKS
from data_scripts.bios_folder import FILES

TINY = ["--length", "128", "--tokens", "128", "--steps", "0", "0", "1", "1", "1", "--contexts", "2", "--threads", "1"]
BLOCKS = ["--block", "4", "--window", "2", "--counts", "0", "1", "4"]
RULES = ("best", "box", "mean", "random")


def by_key(path):
    """Return the one point of a results file, and its rows by layer, head, rule and blocks."""
    ((found,),) = (point["rounds"] for point in json.loads(path.read_text())["points"])
    return found, {(row["layer"], row["head"], row["rule"], row["blocks"]): row for row in found["rows"]}


def test_it_trains_a_model_once_and_writes_what_it_found(tmp_path, monkeypatch):
    words = [*TINY, *BLOCKS, "--model", str(tmp_path / "model"), "--output"]
    assert block_choice.main([*words, str(tmp_path / "one.json")]) == 0
    monkeypatch.setattr(block_choice, "train", None)  # what is in the folder need not be trained
    assert block_choice.main([*words, str(tmp_path / "two.json")]) == 0
    found, rows = by_key(tmp_path / "one.json")
    assert by_key(tmp_path / "two.json") == (found, rows)
    assert len(rows) == 2 * 2 * 4 * 3
    assert found["texts"] == 2 <= found["questions"]
    for layer, head, rule, blocks in rows:
        row = rows[layer, head, rule, blocks]
        best = rows[layer, head, "best", blocks]
        assert 0 < row["mass"] <= best["mass"] + 1e-6 <= 1 + 2e-6
        if blocks == 0:  # the window alone
            assert row["mass"] == best["mass"]
            assert row["found"] == 0
    tables = (tmp_path / "one.md").read_text(encoding="utf-8")
    for heading in ("the window and 0 blocks", "the window and 1 block", "the window and 4 blocks"):
        assert f"## vanilla, people, seed 0: {heading}\n" in tables
    figure = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert figure == (tmp_path / "two.svg").read_text(encoding="utf-8")
    for label in ("layer 2", "boxes of keys", "random (BigBird's)"):
        assert f"<!-- {label} -->" in figure


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_is_read_from_the_token_before_it_and_the_fact_is_the_same_token(task):
    text = TASKS[task].write(np.random.default_rng(0), 300)
    ids, asked = questions_inside(text)
    rows, readers, facts = asked.unbind(-1)
    assert len(asked) > 0
    assert not rows.any()
    assert torch.equal(ids[0, readers + 1], ids[0, facts])
    assert (facts < readers).all()


def test_questions_about_the_window_are_left_out_and_each_question_counts_alike(monkeypatch):
    read = []

    def listen(model, ids, asked, counts, block, window):
        read.append(asked.tolist())
        share = 1.0 if len(read) == 1 else 0.0
        return [{"layer": 1, "head": 1, "rule": "best", "blocks": 1, "mass": share, "found": share}]

    monkeypatch.setattr(block_choice, "what_is_found", listen)
    ids = torch.zeros(1, 20, dtype=torch.long)
    texts = [
        (ids, torch.tensor([[0, 19, 3], [0, 18, 0], [0, 16, 11], [0, 19, 12]])),  # 12 is in the window
        (ids, torch.tensor([[0, 17, 13], [0, 19, 5]])),
        (ids, torch.tensor([[0, 19, 18]])),  # nothing before the window
        (ids[:, :12], torch.tensor([[0, 11, 0]])),  # too short for a choice
    ]
    found = average(None, texts, 4, 2, [1])
    assert read == [[[0, 19, 3], [0, 18, 0], [0, 16, 11]], [[0, 19, 5]]]
    assert (found["texts"], found["questions"]) == (2, 4)
    (row,) = found["rows"]
    assert (row["mass"], row["found"]) == (0.5, 0.75)


def test_a_run_answers_from_its_weights_and_its_facts_are_names(tmp_path):
    toy = train_toy_model()
    for part in (toy.model, toy.tokenizer):
        part.save_pretrained(tmp_path / "run" / "finetune")
    lines = {"documents": toy.documents, "train": [f"{asked.text}\t{asked.answer}" for asked in toy.questions]}
    (tmp_path / "data").mkdir()
    for key, name in FILES.items():
        text = "".join(f"{line}\n" for line in lines.get(key, ()))
        (tmp_path / "data" / name).write_text(text, encoding="utf-8")
    words = [
        "--run",
        str(tmp_path / "run"),
        "--data",
        str(tmp_path / "data"),
        "--output",
        str(tmp_path / "found.json"),
    ]
    assert block_choice.main([*words, "--threads", "1"]) == 0
    found, rows = by_key(tmp_path / "found.json")
    assert found["questions"] == found["texts"] > 5
    config = toy.model.config
    assert len(rows) == config.num_hidden_layers * config.num_attention_heads * 4 * 3
    assert any(row["found"] > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("subject", "task", "found"),
    [("window", "people", "found window and 322"), ("vanilla", "several", "found vanilla and 389")],
    ids=["attention", "vocabulary"],
)
def test_a_model_of_another_kind_is_refused(tmp_path, capsys, subject, task, found):
    build_model(subject, 128, task).save_pretrained(tmp_path / "model")
    words = [*TINY, *BLOCKS, "--model", str(tmp_path / "model"), "--output", str(tmp_path / "found.json")]
    assert block_choice.main(words) != 0
    assert f"wanted a model with vanilla attention and 322 tokens, {found}" in capsys.readouterr().err


def test_texts_without_a_choice_are_refused(tmp_path, capsys):
    assert block_choice.main([*TINY, "--output", str(tmp_path / "found.json")]) != 0
    assert "no text of more than 320 tokens" in capsys.readouterr().err


def test_the_report_has_mass_and_facts_by_rule():
    rows = [
        {"layer": 1, "head": 2, "rule": rule, "blocks": 8, "mass": 0.1 * number, "found": 0.01 * number}
        for number, rule in enumerate(RULES, start=1)
    ]
    found = {"questions": 40, "texts": 2, "right": 0.875, "rows": rows}
    machine = {"device": "x", "threads": 2, "torch": "2"}
    points = [{"subject": "vanilla", "task": "people", "seed": 0, "rounds": [found]}]
    text = report({"machine": machine, "block": 16, "window": 4, "counts": [8], "points": points})
    assert "| 1.2 | 10.0 % | 20.0 % | 30.0 % | 40.0 % | 1.0 % | 2.0 % | 3.0 % | 4.0 % |" in text
    assert "40 questions in 2 texts, 87.5 % of all answers in them right" in text
