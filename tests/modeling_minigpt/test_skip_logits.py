"""The loss without logits: the same value and gradients, from the positions that predict a target alone."""

import pytest
import torch

from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from modeling_minigpt.loss_minigpt import find_targets


def batch_of_titles_and_facts():
    """Return ids and labels (3, 12) whose rows have no target in the first tokens, none at all, or everywhere."""
    ids = torch.randint(2, 30, (3, 12), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, :7] = -100
    labels[1] = -100
    return ids, labels


def loss_and_gradients(model, **inputs):
    model.zero_grad()
    outputs = model(**inputs, use_cache=False)
    outputs.loss.backward()
    return outputs, [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_targets_are_found_row_by_row():
    labels = torch.tensor([[-100, 5, 6], [-100, -100, 7]])
    positions, targets = find_targets(labels, labels)
    assert positions.tolist() == [0, 1, 4]
    assert targets.tolist() == [5, 6, 7]


@pytest.mark.parametrize("attention", [*ATTENTION_CLASSES, ["vanilla", "linformer"]], ids=str)
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("count", [None, 17])
def test_the_loss_and_its_gradients_are_those_of_all_logits(tiny_model, attention, padding, count):
    model = tiny_model(attention_type=attention, bigbird_block=8)
    ids, labels = batch_of_titles_and_facts()
    inputs = {"input_ids": ids, "labels": labels}
    if padding != "none":
        inputs["attention_mask"] = torch.ones_like(ids)
        inputs["attention_mask"][2, slice(0, 3) if padding == "left" else slice(9, 12)] = 0
    if count is not None:
        inputs["num_items_in_batch"] = count
    whole, expected = loss_and_gradients(model, **inputs)
    short, found = loss_and_gradients(model, **inputs, skip_logits=True)
    assert whole.logits.shape == (3, 12, model.config.vocab_size)
    assert short.logits is None
    torch.testing.assert_close(short.loss, whole.loss)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_batch_without_targets_has_no_loss_and_no_gradient(tiny_model):
    model = tiny_model()
    ids = torch.arange(24).reshape(2, 12)
    labels = torch.full_like(ids, -100)
    outputs, gradients = loss_and_gradients(
        model, input_ids=ids, labels=labels, num_items_in_batch=1, skip_logits=True
    )
    assert outputs.loss.item() == 0.0
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("batch", ["all-masked-labels", "one-token-rows"])
def test_a_masked_batch_without_targets_adds_zero_to_the_loss(tiny_model, batch, skip):
    model = tiny_model()
    ids = torch.arange(24).reshape(2, 12)
    labels = torch.full_like(ids, -100)
    mask = torch.ones_like(ids)
    if batch == "one-token-rows":  # whose only token nothing predicts
        mask[:, :-1] = 0
        labels[:, -1] = ids[:, -1]
    outputs, gradients = loss_and_gradients(
        model, input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=torch.tensor(7), skip_logits=skip
    )
    assert outputs.loss.item() == 0.0
    assert all(not gradient.any() for gradient in gradients)


def test_the_last_mlp_reads_the_targets_positions_alone(tiny_model):
    model = tiny_model()
    ids, labels = batch_of_titles_and_facts()
    rows = []
    for block in model.model.layers:
        block.mlp.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[:-1].numel()))
    model(ids, labels=labels, skip_logits=True)
    targets = int((labels[:, 1:] != -100).sum())
    assert rows == [ids.numel()] * (len(rows) - 1) + [targets]


def test_without_labels_there_is_no_loss_to_return(tiny_model):
    with pytest.raises(ValueError, match="needs labels"):
        tiny_model()(torch.arange(6)[None], skip_logits=True)


def test_labels_of_another_length_are_refused(tiny_model):
    ids = torch.arange(10).reshape(2, 5)
    with pytest.raises(ValueError, match=r"labels must be \(2, 5\) as the inputs are, found \(2, 4\)"):
        tiny_model()(ids, labels=ids[:, :4], skip_logits=True)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("shape", [(2, 4), (3, 5)], ids=str)
def test_a_mask_of_another_shape_is_refused_with_what_is_wanted_beside_labels_too(tiny_model, shape, skip):
    ids = torch.arange(10).reshape(2, 5)
    with pytest.raises(ValueError, match="attention_mask must be"):
        tiny_model()(ids, attention_mask=torch.ones(shape, dtype=torch.long), labels=ids, skip_logits=skip)


def test_without_any_input_the_error_is_about_the_input(tiny_model):
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        tiny_model()(labels=torch.arange(6)[None], skip_logits=True)
