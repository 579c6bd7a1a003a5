"""The models of the recall benchmark: subjects by their configs, seeds, rotations scaled after training."""

import numpy as np
import pytest
import torch

from benchmarks import recall_models
from benchmarks.recall_models import SCALINGS, build_model, rescaled, train
from benchmarks.recall_texts import NAMES, TASKS


def test_a_subject_has_the_fields_of_its_config():
    config = build_model("linformer, content slots", 64).config
    assert config.linformer_slot_type == "content"
    assert build_model("linformer", 64).config.linformer_slot_type == "positional"
    assert build_model("linformer below vanilla", 64).config.attention_type == ["linformer", "vanilla"]
    assert build_model("gated_deltanet", 64).config.gated_deltanet_heads == 1
    assert build_model("gated_deltanet, two heads", 64).config.gated_deltanet_heads == 2


@pytest.mark.parametrize("task", TASKS)
def test_a_model_has_the_vocabulary_of_its_task(task):
    assert build_model("vanilla", 64, task).config.vocab_size == TASKS[task].vocabulary > max(NAMES)


def test_seeds_differ_in_weights_and_texts(monkeypatch):
    texts = []
    batch_of = recall_models.batch_of

    def listen(task, rng, rows, length):
        batch = batch_of(task, rng, rows, length)
        texts.append(batch["input_ids"])
        return batch

    monkeypatch.setattr(recall_models, "batch_of", listen)
    results = []
    for seed in (0, 0, 1):
        model = build_model("vanilla", 64, seed=seed)
        train(model, "x", "people", 64, [0, 0, 0, 0, 2], 64, seed)
        results.append(model.lm_head.weight.detach().clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(texts[0], texts[2])
    assert not torch.equal(texts[0], texts[4])
    first = TASKS["people"].write(np.random.default_rng(1), 64)  # as before there were other seeds
    assert texts[0][0].tolist() == first.ids.tolist()


def test_training_reads_short_texts_first(monkeypatch):
    shapes = []
    batch_of = recall_models.batch_of

    def listen(task, rng, rows, length):
        shapes.append((rows, length))
        return batch_of(task, rng, rows, length)

    monkeypatch.setattr(recall_models, "batch_of", listen)
    found = train(build_model("vanilla", 256), "x", "mqar", 256, [0, 0, 2, 1, 1], 256)
    assert shapes == [(16, 16), (16, 16), (4, 64), (1, 256)]
    assert found["minutes"] > 0
    assert 0 < found["loss"] < 8


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("subject", ["vanilla", "linformer below vanilla", "bigbird"])
def test_a_scaled_copy_has_the_weights_and_another_rotation(subject, scaling):
    model = build_model(subject, 256).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    scaled = rescaled(model, 512, scaling)
    assert not scaled.training
    for name, value in model.state_dict().items():
        assert torch.equal(scaled.state_dict()[name], value)
    ids = torch.randint(NAMES.stop, (1, 512), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        same = torch.equal(model(ids).logits, scaled(ids).logits)
    assert same == (scaling == "none")
    assert model.config.max_position_embeddings == 256
    assert model.config.rope_parameters["rope_type"] == "default"


def test_a_linear_scaling_rotates_the_last_position_as_the_training_length_did():
    model = build_model("vanilla", 32)
    scaled = rescaled(model, 128, "linear")
    like = torch.zeros(1, 1, 1)
    wanted = model.model.rotary_emb(like, torch.tensor([[31]]))
    found = scaled.model.rotary_emb(like, torch.tensor([[4 * 31]]))
    torch.testing.assert_close(found, wanted)
