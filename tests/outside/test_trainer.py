"""A MiniGPT in the hands of the library's own `Trainer`, collators and `from_pretrained`."""

import json
import math
import shutil

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from modeling_minigpt import MiniGPTForCausalLM, build_bpe_tokenizer
from tests.attention_variants import VARIANTS, draw_tokens, left_pad, tiny_model
from tests.running import call

ALL = ["vanilla", *VARIANTS]
LINES = ["Ada Stone was born in Rome .", "Bo .", "Cyd Quint, a poet from Oslo, was born there .", "Born in Rome ."]


def pad(rows, side):
    """Return rows as one batch with labels, as the standard collator makes it."""
    ids, mask = left_pad(rows)
    if side == "right":
        ids = torch.stack([torch.cat((row, row.new_zeros(ids.shape[1] - len(row)))) for row in rows])
        mask = (ids != 0).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def mean_loss_alone(model, rows):
    """Return the mean loss over all targets of rows that are read one by one."""
    losses = [model(row[None], labels=row[None]).loss * (len(row) - 1) for row in rows if len(row) > 1]
    return sum(losses) / sum(len(row) - 1 for row in rows)


@pytest.mark.row("M2")
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("variant", ALL)
def test_padding_changes_neither_loss_nor_gradients(variant, side, kernel):
    model = tiny_model(variant, attn_implementation=kernel).train()
    rows = [draw_tokens(length, seed=length) for length in (3, 19, 1, 40)]
    expected = mean_loss_alone(model, rows)
    loss = model(**pad(rows, side)).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    parameters = [one for one in model.parameters() if one.requires_grad]
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.row("M2")
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("variant", ALL)
def test_columns_of_padding_see_nothing(variant, side, kernel):
    model = tiny_model(variant, attn_implementation=kernel)
    hidden = []
    for seed in (1, 2):
        batch = pad([draw_tokens(4, seed=seed), draw_tokens(20, seed=seed)], side)
        states = model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        hidden.append(states[0, batch["attention_mask"][0] == 0])
    assert torch.equal(*hidden)


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer, which pads on the left."""
    return build_bpe_tokenizer(LINES, 300, 64)


def train(model, tokenizer, tmp_path, **settings):
    """Let the library train on the lines for one step; return the trainer and the step's loss."""
    rows = [{"input_ids": tokenizer(line)["input_ids"]} for line in LINES]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=len(LINES), learning_rate=0.0,
        logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, **settings,
    )  # fmt: skip
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collator)
    trainer.train()
    return trainer, trainer.state.log_history[0]["loss"]


@pytest.mark.row("M2")
@pytest.mark.parametrize("variant", ALL)
def test_the_library_s_trainer_has_the_loss_of_the_rows_alone(variant, tokenizer, tmp_path):
    model = tiny_model(variant, vocab_size=len(tokenizer))
    with torch.no_grad():
        rows = [torch.tensor(tokenizer(line)["input_ids"]) for line in LINES]
        expected = mean_loss_alone(model.train(), rows).item()
    assert math.isclose(train(model, tokenizer, tmp_path)[1], expected, rel_tol=1e-4)


@pytest.mark.row("M3")
@pytest.mark.parametrize("variant", ["vanilla", "window"])
def test_smoothed_labels_are_shifted_too(variant, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "padding_side", "right")  # the library smooths what padding predicts on the left
    model = tiny_model(variant, vocab_size=len(tokenizer))
    _, plain = train(model, tokenizer, tmp_path)
    _, smoothed = train(model, tokenizer, tmp_path, label_smoothing_factor=1e-9)
    assert math.isclose(plain, smoothed, rel_tol=1e-4)


@pytest.mark.row("M3")
def test_the_library_knows_the_model_as_a_causal_language_model(caplog, tokenizer):
    from transformers import pipeline

    model = tiny_model("vanilla", vocab_size=len(tokenizer))
    write = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=2)
    assert write("Ada")
    assert "is not supported for" not in caplog.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a window model of two layers."""
    path = tmp_path_factory.mktemp("saved")
    tiny_model("window").save_pretrained(path)
    return path


@pytest.mark.row("M4")
@pytest.mark.parametrize("load", [AutoModelForCausalLM, MiniGPTForCausalLM], ids=["auto", "own"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"bigbird_random_type": "reservior"}, "bigbird_random_type must be one of rows, reservoir"),
        ({"window_size": 0}, "window_size must be at least 1"),
        ({"attention_dropout": 1.5}, r"attention_dropout must be in \[0, 1\)"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1"),
        ({"attention_type": ["vanilla"] * 3}, "attention_type names 3 layers, but num_hidden_layers is 2"),
        ({"attention_type": "windows"}, "attention_type must be one of"),
        ({"num_attention_heads": 5}, "must be a multiple of"),
        ({"hidden_act": "rleu"}, "hidden_act must be one of"),
        ({"rope_parameters": {"rope_type": "linaer"}}, "rope_type must be one of"),
        ({"norm_eps": "small"}, "norm_eps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_override_that_no_config_takes_is_refused_at_loading(folder, load, override, message):
    with pytest.raises(StrictDataclassError, match=message):
        load.from_pretrained(folder, **override)


@pytest.mark.row("M4")
def test_an_override_that_takes_several_fields_is_accepted(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, attention_type=["window"] * 3, num_hidden_layers=3)
    assert model.config.layer_attention_types == ["window"] * 3


@pytest.mark.row("M4")
@pytest.mark.parametrize(
    ("field", "value"),
    [("window_size", 0), ("attention_dropout", 1.5), ("norm_type", "rms"), ("num_hidden_layers", 7)],
)
def test_a_config_broken_after_construction_is_refused_before_anything_is_written(folder, tmp_path, field, value):
    model = AutoModelForCausalLM.from_pretrained(folder, attention_type=["window", "window"])

    def change_and_save():
        setattr(model.config, field, value)  # two fields that contradict are seen when saved
        model.save_pretrained(tmp_path / "again")

    with pytest.raises(StrictDataclassError, match=field):
        change_and_save()
    assert not (tmp_path / "again").exists()


@pytest.mark.row("M2")
@pytest.mark.parametrize("place", ["elsewhere", "in the run"])
def test_a_model_that_the_trainer_has_saved_is_finetuned_and_keeps_a_cache_again(run, recipe, data, tmp_path, place):
    output = tmp_path / "run"
    folder = output / "pretrain" if place == "in the run" else tmp_path / "trained"
    start = [] if place == "in the run" else [f"finetune.start_from={folder}"]
    if place == "in the run":
        assert call("pretrain", recipe, data, output) == 0
    else:
        shutil.copytree(run / "pretrain", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)  # which the trainer saves with the model
    trainer, _ = train(MiniGPTForCausalLM.from_pretrained(folder), tokenizer, tmp_path / "trainer")
    trainer.model.config.pad_token_id = 3  # as a tokenizer with another padding would set it
    trainer.save_model(folder)
    saved = json.loads((folder / "config.json").read_text())
    assert (saved["use_cache"], saved["pad_token_id"]) == (False, 3)
    assert call("finetune", recipe, data, output, *start) == 0
    finetuned = json.loads((output / "finetune" / "config.json").read_text())
    assert (finetuned["use_cache"], finetuned["pad_token_id"]) == (True, 0)
    settings = json.loads((output / "finetune" / "generation_config.json").read_text())
    assert settings["use_cache"]
    assert settings["pad_token_id"] == 0
