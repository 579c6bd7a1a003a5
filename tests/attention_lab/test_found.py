"""The command of (h): all blocks find all, what is reported is the model's, and a folder without texts is refused."""

import json

import pytest
import torch

from attention_lab import found
from attention_lab.trained import load_minigpt
from benchmarks import attention_recall
from tests.attention_variants import tiny_model

TOKENS = 64


@pytest.fixture
def folder(tmp_path):
    """A folder as `attention_recall --save` leaves it: a model with random weights, and two texts with questions."""
    model = tiny_model("vanilla", max_position_embeddings=TOKENS)
    model.save_pretrained(tmp_path / "model")
    generator = torch.Generator().manual_seed(0)
    texts = []
    for asked in ([[50, 3], [58, 20]], [[57, 41]]):
        ids = torch.randint(2, model.config.vocab_size, (TOKENS,), generator=generator).tolist()
        texts.append({"ids": ids, "asked": asked})
    (tmp_path / "model" / "texts.json").write_text(json.dumps({"texts": texts}))
    return tmp_path / "model"


def test_with_all_blocks_chosen_every_fact_is_found_and_recall_is_that_of_full_attention(folder):
    every = found.measure(folder, [13], block=4, window=2)  # the questions have 13 blocks at most to choose from
    assert every["questions"] == 3
    assert every["recall_by_blocks"] == {13: every["recall"]}
    for row in every["rows"]:
        if row["rule"] != "random":
            assert row["mass"] > 0.9  # the last queries have one block more
            assert row["found"] == row["found_by_a_head"] == 1.0
    few = found.measure(folder, [1, 2], block=4, window=2)
    by_rule = {(row["layer"], row["rule"], row["blocks"]): row for row in few["rows"]}
    assert len(by_rule) == 2 * 4 * 2
    for (layer, rule, blocks), row in by_rule.items():
        assert 0.0 < row["mass"] <= by_rule[layer, "best", blocks]["mass"] + 1e-6 <= 1.0 + 2e-6, rule
        assert row["found"] <= row["found_by_a_head"]


def test_recall_is_of_the_answers_that_the_texts_ask_for(folder):
    model = load_minigpt(folder)
    texts = found.load_texts(folder)
    guesses = [model(ids).logits[0, asked[:, 1]].argmax(-1) for ids, asked in texts]
    wanted = []
    for (ids, asked), guess in zip(texts, guesses, strict=True):
        ids[0, asked[0, 1] + 1] = guess[0]  # the first of each text is now right, if nothing before it changes
        wanted += (ids[0, asked[:, 1] + 1] == model(ids).logits[0, asked[:, 1]].argmax(-1)).tolist()
    assert found.recall_of(model, texts) == pytest.approx(sum(wanted) / 3)
    assert sum(wanted) >= 1


def test_the_command_writes_numbers_a_table_and_a_figure(folder, tmp_path, capsys):
    command = [str(folder), "--blocks", "2", "1", "--block", "4", "--window", "2", "--output", str(tmp_path)]
    assert found.main(command) == 0
    written = json.loads((tmp_path / "results" / "recall.json").read_text())
    assert list(written["recall_by_blocks"]) == ["1", "2"]
    table = (tmp_path / "results" / "recall.md").read_text(encoding="utf-8")
    assert table == capsys.readouterr().out
    assert "3 questions in texts of 64 tokens" in table
    assert "<svg" in (tmp_path / "figures" / "recall_found.svg").read_text(encoding="utf-8")


def test_what_cannot_be_looked_into_is_one_line(folder, tmp_path, capsys):
    def refused(*options):
        assert found.main([*options, "--output", str(tmp_path)]) == 2
        return capsys.readouterr().err

    assert "are a choice from 65 tokens on, found 64" in refused(str(folder), "--block", "4", "--window", "8")
    texts = (folder / "texts.json").read_text()
    (folder / "texts.json").write_text(
        texts.replace("[50, 3]", "[50, 49]").replace("20]", "57]").replace("41]", "56]")
    )
    assert "no question is about a fact before the window of 1 blocks" in refused(
        str(folder), "--block", "4", "--window", "1"
    )
    (folder / "texts.json").write_text(texts.replace("[50, 3]", "[50, 70]"))
    assert "a question is read before its fact" in refused(str(folder))
    (folder / "texts.json").unlink()
    assert "texts.json: cannot be read" in refused(str(folder))
    (folder / "texts.json").write_text(texts)
    tiny_model("window", max_position_embeddings=TOKENS).save_pretrained(folder)
    assert "wanted full attention in every layer, found window" in refused(str(folder), "--block", "4")
    (folder / "config.json").unlink()
    assert "no model that can be loaded" in refused(str(folder))


@pytest.mark.parametrize("option", ["--blocks", "--block", "--window"])
def test_fewer_than_one_block_or_token_is_refused(option, folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        found.main([str(folder), option, "0", "--output", str(tmp_path)])
    assert f"argument {option}: must be at least 1, found 0" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_ends_the_command_at_once(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(found, "measure", None)
    (tmp_path / "file").write_text("a file")
    assert found.main([str(folder), "--output", str(tmp_path / "file")]) == 2
    assert "file/results: cannot be written to: " in capsys.readouterr().err


def test_the_benchmark_saves_what_the_command_reads(tmp_path):
    options = ["--length", "128", "--tokens", "128", "--steps", "0", "0", "1", "1", "1", "--contexts", "1"]
    output = ["--threads", "1", "--output", str(tmp_path / "recall.json"), "--save", str(tmp_path / "saved")]
    assert attention_recall.main([*options, "--subjects", "vanilla", *output]) == 0
    seen = found.measure(tmp_path / "saved" / "vanilla-people-seed_0", [1, 2], block=8, window=2)
    assert seen["tokens"] == 128
    assert seen["questions"] > 0
