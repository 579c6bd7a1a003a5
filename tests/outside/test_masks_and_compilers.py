"""Masks, packed examples, compilers and exporters, where other people's models have failed."""

import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import StaticCache, pipeline

from modeling_minigpt import build_character_tokenizer
from modeling_minigpt.performer_attention_minigpt import chunk_initial_states, scan_by_doubling
from tests.attention_variants import HYBRIDS, VARIANTS, assert_equal, draw_tokens, left_pad, logits_of, tiny_model

GREEDY = {"do_sample": False, "max_new_tokens": 6}


# --- Packed examples and masks


@pytest.mark.row("M13")
@pytest.mark.parametrize("mark", ["cu_seq_lens_q", "cu_seq_lens_k", "seq_idx"])
def test_marks_of_packed_examples_are_refused_where_they_would_mix(variant, mark):
    model, ids = tiny_model(variant), draw_tokens(1, 6)
    several = torch.tensor([0, 3, 6]) if mark != "seq_idx" else torch.tensor([[0, 0, 0, 1, 1, 1]])
    one = torch.tensor([0, 6]) if mark != "seq_idx" else torch.zeros(1, 6, dtype=torch.long)
    with pytest.raises(ValueError, match=f"packed examples need .* found {mark}"):
        model(ids, **{mark: several})
    assert torch.equal(logits_of(model, ids, **{mark: one}), logits_of(model, ids))
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    if variant == "vanilla":
        found = logits_of(model, ids, position_ids=positions, **{mark: several})
        assert_equal(found, torch.cat([logits_of(model, part) for part in ids.split(3, dim=1)], dim=1))
    else:
        with pytest.raises(ValueError, match="packed examples need attention_type 'vanilla'"):
            model(ids, position_ids=positions, **{mark: several})


@pytest.mark.row("M13")
def test_positions_that_start_again_are_refused_beside_a_mask_or_a_cache(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 6)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    for mask in (torch.ones(2, 6), torch.tensor([[0, 1, 1, 1, 1, 1]] * 2)):
        with pytest.raises(ValueError, match="packed examples need"):
            model(ids, attention_mask=mask, position_ids=positions)
    cache = model(ids).past_key_values
    with pytest.raises(ValueError, match="packed examples need"):
        model(ids, past_key_values=cache, position_ids=positions + 6)
    assert cache.get_seq_length() == 6


@pytest.mark.row("M13")
def test_positions_of_padded_rows_are_not_taken_for_packed_ones(variant):
    model = tiny_model(variant)
    ids, mask = left_pad([draw_tokens(3), draw_tokens(6)])
    wanted = logits_of(model, ids, attention_mask=mask)
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)  # as `generate` gives them
    found = logits_of(model, ids, attention_mask=mask, position_ids=positions)
    assert_equal(found[mask.bool()], wanted[mask.bool()])


BAD_MASKS = {
    "of new tokens only": (2, 2),
    "too short": (2, 7),
    "too long": (2, 9),
    "of one row": (1, 8),
    "of three rows": (3, 8),
    "one-dimensional": (8,),
    "three-dimensional": (2, 2, 8),
    "of other queries": (2, 1, 3, 8),
    "of other keys": (2, 1, 2, 9),
    "of other heads": (2, 3, 2, 8),
}


@pytest.mark.row("M19")
@pytest.mark.parametrize("shape", BAD_MASKS.values(), ids=BAD_MASKS)
def test_masks_that_do_not_fit_are_refused_with_both_shapes(variant, shape):
    model = tiny_model(variant)
    cache = model(draw_tokens(2, 6)).past_key_values
    with pytest.raises(ValueError, match="attention_mask must be") as error:
        model(draw_tokens(2, 2), attention_mask=torch.ones(shape), past_key_values=cache)
    message = str(error.value)
    assert "attention_mask must be (2, 6 + 2)" in message
    assert f"found {shape}" in message
    assert "\n" not in message
    assert cache.get_seq_length() == 6


@pytest.mark.row("M19")
def test_masks_of_four_dimensions_and_of_a_static_cache_are_taken():
    model, ids = tiny_model("vanilla"), draw_tokens(2, 8)
    wanted = logits_of(model, ids)
    causal = torch.ones(8, 8).tril().log()
    for shape in ((1, 1), (2, 1), (2, 4)):
        assert_equal(logits_of(model, ids, attention_mask=causal.expand(*shape, 8, 8)), wanted)
    cache = StaticCache(model.config, max_cache_len=12)
    for end in (6, 8):
        start = cache.get_seq_length()
        found = model(ids[:, int(start) : end], attention_mask=torch.ones(2, end), past_key_values=cache).logits
    assert_equal(found, wanted[:, 6:])
    with pytest.raises(ValueError, match=r"attention_mask must be \(2, 8 \+ 1\)"):
        model(ids[:, :1], attention_mask=torch.ones(2, 1), past_key_values=cache)


@pytest.mark.row("M19")
@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("padded", [False, True], ids=["even", "left-padded"])
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_a_mask_as_long_as_a_static_cache_changes_nothing(positions, padded, compiled):
    model = tiny_model("vanilla", position_embedding_type=positions, max_position_embeddings=32)
    ids, mask = left_pad([draw_tokens(5 if padded else 8), draw_tokens(8)])
    wanted = model(ids, attention_mask=mask, labels=ids)
    torch.compiler.reset()
    # Learned positions are checked on the CPU, which a compiler does not do.
    function = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
    cache = StaticCache(model.config, max_cache_len=12)
    whole = torch.nn.functional.pad(mask, (0, 4))  # the room behind the text is no part of it
    found = model(ids[:, :6], attention_mask=whole, past_key_values=cache)
    rest = function(ids[:, 6:], attention_mask=whole, past_key_values=cache)
    real = mask.bool()
    assert_equal(torch.cat((found.logits, rest.logits), dim=1)[real], wanted.logits[real])
    cache = StaticCache(model.config, max_cache_len=12)
    for skip in (False, True):
        cache.reset()
        found = function(
            ids, attention_mask=whole, labels=ids, past_key_values=cache, skip_logits=skip and not compiled
        )
        assert_equal(found.loss, wanted.loss)
    torch.compiler.reset()


@pytest.mark.row("M19")
def test_packed_examples_are_seen_under_a_mask_as_long_as_a_static_cache():
    model = tiny_model("vanilla")
    mask = torch.nn.functional.pad(torch.ones(1, 6), (0, 6))
    with pytest.raises(ValueError, match="packed examples need"):
        model(
            draw_tokens(1, 6),
            attention_mask=mask,
            position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]),
            past_key_values=StaticCache(model.config, max_cache_len=12),
        )


# --- Compilers and exporters


@pytest.mark.row("M15")
@pytest.mark.parametrize("name", ["bigbird", "window", "performer", "selected"])
def test_a_compiler_has_few_graphs_for_all_lengths(name):  # compiling takes seconds
    model = tiny_model(name, num_hidden_layers=1)
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for length in (34, 65, 90, 96, 119):
        ids, mask = left_pad([draw_tokens(11), draw_tokens(length)])
        found = logits_of(compiled, ids, attention_mask=mask)
        assert_equal(found[mask.bool()], logits_of(model, ids, attention_mask=mask)[mask.bool()])
    torch.compiler.reset()
    assert counter.frame_count <= 2


@pytest.mark.row("M15")
@pytest.mark.parametrize("use_cache", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_padding_mask_does_not_break_the_graph(name, use_cache):
    model = tiny_model(name, num_hidden_layers=2 if name in HYBRIDS else 1)
    ids, mask = left_pad([draw_tokens(4), draw_tokens(9)])
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(ids, attention_mask=mask, use_cache=use_cache).logits
    torch.compiler.reset()
    assert_equal(found[mask.bool()], logits_of(model, ids, attention_mask=mask)[mask.bool()])


@pytest.mark.row("M15")
def test_sums_by_doubling_are_the_loops():
    generator = torch.Generator().manual_seed(0)
    for chunks in (1, 2, 3, 7, 8):
        key, value = (torch.rand(2, 3, chunks, 4, 5, generator=generator) for _ in range(2))
        maxima = torch.randn(2, 3, chunks * 4 + 1, generator=generator).mul(9).cummax(-1).values
        now, ends = maxima[:, :, 1:].unflatten(2, (chunks, 4)), maxima[:, :, ::4]
        sums = torch.rand(2, 3, 5, 5, generator=generator)
        starts, last = chunk_initial_states(key, value, now, ends, sums)
        writes = (key * (now - ends[:, :, 1:, None]).exp()[..., None]).mT @ value
        found, end = scan_by_doubling(writes, ends, sums)
        assert_equal(found, starts)
        assert_equal(end, last)


class Logits(torch.nn.Module):
    """A model as a function of ids and mask alone, as exporters want it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        return self.model(ids, attention_mask=mask, use_cache=False).logits


@pytest.mark.row("M16")
@pytest.mark.parametrize("how", ["export", "trace"])
def test_an_exported_model_reads_other_masks_than_the_one_it_was_exported_with(variant, how):
    function = Logits(tiny_model(variant, num_hidden_layers=2)).eval()
    ids, mask = left_pad([draw_tokens(9), draw_tokens(30)])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examples = (ids, torch.ones_like(mask))
        exported = torch.export.export(function, examples).module() if how == "export" else None
        exported = exported or torch.jit.trace(function, examples)
        for other in (mask, mask.flip(-1), torch.ones_like(mask)):
            assert_equal(exported(ids, other)[other.bool()], function(ids, other)[other.bool()])


# --- The library's pipeline


@pytest.mark.row("M18")
def test_the_text_generation_pipeline_stops_at_a_learned_context():
    tokenizer = build_character_tokenizer(["Ada Vell was born in Nork."], max_length=32)
    model = tiny_model("vanilla", position_embedding_type="learned", max_position_embeddings=32, eos_token_id=None)
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer, do_sample=False)
    for batch in (1, 2):
        for result in generator(["Ada Vell", "Ada Vell was"], batch_size=batch, return_tensors=True):
            assert len(result[0]["generated_token_ids"]) == 32
    asked = generator("Ada Vell", max_new_tokens=3, return_tensors=True)
    assert len(asked[0]["generated_token_ids"]) == len(tokenizer("Ada Vell").input_ids) + 3
    with pytest.raises(ValueError, match="learned positions end at 32 tokens"):
        generator("Ada Vell", max_new_tokens=200)  # which somebody asked for
    rotary = pipeline("text-generation", model=tiny_model("vanilla", max_position_embeddings=32), tokenizer=tokenizer)
    assert len(rotary("Ada Vell", max_new_tokens=40, return_tensors=True)[0]["generated_token_ids"]) > 32
