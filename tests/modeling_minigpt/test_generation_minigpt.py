"""Decoding: the cache changes nothing, padding changes nothing, and the usual strategies run."""

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache, logging

STRATEGIES = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 20},
    "beams": {"do_sample": False, "num_beams": 3},
}


def generate(model, ids: torch.Tensor, **settings) -> torch.Tensor:
    """Generate eight tokens under a fixed seed."""
    torch.manual_seed(7)
    return model.generate(ids, max_new_tokens=8, **settings)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_cache_changes_no_token(model, tokens, strategy):
    ids = tokens(2, 5)
    cached = generate(model, ids, use_cache=True, **strategy)
    assert cached.shape == (2, 13)
    assert torch.equal(cached, generate(model, ids, use_cache=False, **strategy))


def test_greedy_takes_the_likeliest_token(model, tokens):
    ids = tokens(1, 5)
    wanted = ids
    for _ in range(8):
        wanted = torch.cat((wanted, model(wanted).logits[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(generate(model, ids, do_sample=False), wanted)


def test_cached_chunks_give_the_logits_of_one_pass(model, tokens):
    ids = tokens(2, 9)
    cache = DynamicCache(config=model.config)
    chunks = [model(chunk, past_key_values=cache).logits for chunk in ids.split([4, 1, 4], dim=1)]
    assert cache.get_seq_length() == 9
    assert_close(torch.cat(chunks, dim=1), model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_left_padded_batch_generates_as_each_row_alone(model, tokens, kernel, use_cache):
    model.set_attn_implementation(kernel)
    rows = [tokens(length, seed=length) for length in (2, 5, 9)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
    batch = generate(model, ids, attention_mask=(ids != 0).long(), do_sample=False, use_cache=use_cache)
    for row, generated in zip(rows, batch, strict=True):
        assert torch.equal(generated[9 - len(row) :], generate(model, row[None], do_sample=False)[0])


def test_generation_stops_at_the_end_token(model, tokens):
    ids = tokens(1, 5)
    full = generate(model, ids, do_sample=False)[0].tolist()
    stopped = generate(model, ids, do_sample=False, eos_token_id=full[7])[0].tolist()
    assert stopped == full[: full.index(full[7], 5) + 1]


def test_learned_positions_refuse_to_generate_past_their_limit(tiny_model, tokens):
    with pytest.raises(ValueError, match=r"end at 32 tokens, found position 32"):
        generate(tiny_model("learned"), tokens(1, 26), do_sample=False)


def test_rotary_positions_generate_past_the_training_context(tiny_model, tokens):
    assert generate(tiny_model("rotary"), tokens(1, 30), do_sample=False).shape == (1, 38)


def test_the_pipelines_default_length_is_cut_to_learned_positions_with_a_warning(tiny_model, tokens, monkeypatch):
    found = []
    monkeypatch.setattr(logging.get_logger("modeling_minigpt.generation_minigpt"), "warning", found.append)
    model = tiny_model("learned")
    assert model.generate(tokens(1, 9), max_new_tokens=256, do_sample=False).shape == (1, 32)
    assert found == [
        "max_new_tokens=256, the default of the text-generation pipeline, reaches past the 32 learned positions: "
        "generation ends there"
    ]
    model.generate(tokens(1, 9), max_new_tokens=3)
    with pytest.raises(ValueError, match="learned positions end at 32 tokens"):
        model.generate(tokens(1, 9), max_new_tokens=255, do_sample=False)
    assert len(found) == 1
