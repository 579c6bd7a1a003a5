"""What a head reads: disjoint masks that are where its attention weights are."""

import pytest
import torch

from attention_lab.patterns import tokens_read, with_attention
from attention_lab.structure import attention_matrices, text_rows
from modeling_minigpt import MiniGPTConfig

LENGTH = 30
SIZES = {
    "vanilla": {},
    "linformer": {"linformer_segment": 4, "linformer_slots": 2},
    "bigbird": {"bigbird_block": 4, "bigbird_window": 2},
    "selected": {"selected_block": 4, "selected_blocks": 2, "selected_window": 2},
}
NAMES = {
    "vanilla": ["exact"],
    "linformer": ["exact", "slots"],
    "bigbird": ["window", "global", "random"],
    "selected": ["window", "selected"],
}


def read_by(toy, kind, **sizes):
    """Return the toy model with another attention, and a text of its people, (1, T)."""
    fields = toy.model.config.to_dict() | {"attention_type": kind} | sizes
    return with_attention(toy.model, MiniGPTConfig(**fields)), text_rows(toy.tokenizer, toy.documents, LENGTH, 1)


@pytest.mark.parametrize("kind", SIZES)
def test_a_head_has_weight_where_it_reads_and_nowhere_else(toy, kind):
    model, ids = read_by(toy, kind, **SIZES[kind])
    weights = attention_matrices(model, ids)  # (L, 1, H, T, T)
    for layer, head in ((0, 1), (1, 2)):
        masks = tokens_read(model, ids, layer, head)
        assert list(masks) == NAMES[kind]
        assert torch.equal(sum(mask.int() for mask in masks.values()), (weights[layer, 0, head] > 0).int())


def test_two_blocks_are_selected_where_there_are_more(toy):
    model, ids = read_by(toy, "selected", **SIZES["selected"])
    selected = tokens_read(model, ids, 1, 0)["selected"].unflatten(-1, (-1, 2))[..., 0]  # even tokens, two a block
    assert selected[16:].sum(-1).tolist() == [4] * (LENGTH - 16)
    assert not selected[:8].any()


def test_the_copy_has_the_weights_of_the_model(toy):
    model, ids = read_by(toy, "vanilla")
    torch.testing.assert_close(attention_matrices(model, ids), attention_matrices(toy.model, ids))


def test_another_attention_is_refused_by_name(toy):
    model, ids = read_by(toy, "performer")
    with pytest.raises(ValueError, match="layer 0 has performer attention"):
        tokens_read(model, ids, 0, 0)
