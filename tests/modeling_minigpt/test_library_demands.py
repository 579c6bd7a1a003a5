"""What the Hub library asks of every model of its own, asked of every attention variant: initialisation, recorded
outputs, training with checkpointed activations, embeddings, ties, rotary scalings, and every way to generate."""

import pytest
import torch
from transformers import CompileConfig

from modeling_minigpt import MiniGPTForCausalLM
from modeling_minigpt.gated_deltanet_attention_minigpt import GatedDeltaNetAttention
from tests.attention_variants import CROPPABLE, VARIANTS, assert_equal, draw_tokens, left_pad, tiny_config, tiny_model

LEARNED = {"position_embedding_type": "learned", "norm_type": "layernorm", "qk_norm": False, "use_bias": True}
MODELS = {**{name: {} for name in (*VARIANTS, "vanilla")}, "learned": LEARNED, "tied": {"tie_word_embeddings": True}}
NEW = 6  # tokens to generate


@pytest.fixture(params=MODELS)
def variant(request):
    """Name each model."""
    return request.param


@pytest.fixture
def model(variant):
    """A tiny disturbed model of each variant."""
    return tiny_model(variant, **MODELS[variant])


def greedy(model, ids, **settings):
    """Generate `NEW` tokens, with no end and no padding among them."""
    return model.generate(ids, max_new_tokens=NEW, do_sample=False, **settings)


def test_every_weight_and_buffer_is_initialised_from_nothing(variant):
    config = tiny_config(variant, **MODELS[variant])
    constructed = MiniGPTForCausalLM(config)
    with torch.device("meta"):
        model = MiniGPTForCausalLM(config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict(keep_vars=True).values():
            tensor.fill_(torch.nan)
    model.init_weights()
    assert [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()] == []
    wanted = dict(constructed.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, wanted[name]), name


def test_attention_weights_explain_the_output(model):
    ids = draw_tokens(2, 45)
    expected = model(ids).logits
    model.set_attn_implementation("eager")
    outputs = model(ids, output_attentions=True)
    assert_equal(outputs.logits, expected)
    assert [weights.shape for weights in outputs.attentions] == [(2, 4, 45, 45)] * 2
    for weights, attention in zip(outputs.attentions, model.model.attentions, strict=True):
        if not isinstance(attention, GatedDeltaNetAttention):  # whose weights are signed: a token corrects others
            assert_equal(weights.sum(-1), torch.ones(2, 4, 45))
        assert weights.triu(1).abs().max() == 0
    step = draw_tokens(2, 1, seed=1)
    assert_equal(
        model(step, past_key_values=outputs.past_key_values).logits, model(torch.cat((ids, step), 1)).logits[:, 45:]
    )


def test_attention_weights_stand_at_their_tokens_under_padding(model):
    model.set_attn_implementation("eager")
    rows = [draw_tokens(length, seed=length) for length in (9, 30)]
    ids, mask = left_pad(rows)
    for found in model(ids, attention_mask=mask, output_attentions=True).attentions:
        assert found[0, :, 21:, :21].abs().max() == 0
    alone = model(rows[0][None], output_attentions=True).attentions
    for found, wanted in zip(model(ids, attention_mask=mask, output_attentions=True).attentions, alone, strict=True):
        assert_equal(found[0, :, 21:, 21:], wanted[0])


def test_hidden_states_and_attentions_keep_their_gradients(model):
    model.set_attn_implementation("eager")
    outputs = model(draw_tokens(1, 20), output_attentions=True, output_hidden_states=True)
    kept = [*outputs.hidden_states[:-1], *outputs.attentions]
    for tensor in kept:
        tensor.retain_grad()
    outputs.logits.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in kept)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "saved-hooks"])
def test_checkpointed_training_reaches_every_weight(model, reentrant):
    ids, found = draw_tokens(2, 20), []
    for checkpointed in (False, True):
        model.zero_grad()
        model.train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(ids, labels=ids).loss.backward()
        found.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in found[0].items():
        assert_equal(found[1][name], gradient)


def test_a_row_does_not_depend_on_its_batch(model):
    ids = draw_tokens(3, 20)
    outputs = model(ids, output_hidden_states=True)
    for row in range(3):
        alone = model(ids[row : row + 1], output_hidden_states=True)
        assert_equal(outputs.logits[row], alone.logits[0])
        for together, one in zip(outputs.hidden_states, alone.hidden_states, strict=True):
            assert_equal(together[row], one[0])


@pytest.mark.parametrize("size", [50, 80], ids=["shrunk", "grown"])
def test_embeddings_resize_with_the_head(model, variant, size, tmp_path):
    ids = draw_tokens(2, 12) % 50
    before = model(ids).logits
    model.resize_token_embeddings(size)
    assert model.config.vocab_size == size
    shared = min(size, 64)
    assert_equal(model(ids).logits[..., :shared], before[..., :shared])
    model.save_pretrained(tmp_path)
    reloaded = MiniGPTForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(reloaded(ids).logits, model(ids).logits)
    assert (reloaded.lm_head.weight is reloaded.model.embed_tokens.weight) == (variant == "tied")


def test_heads_are_saved_with_and_without_ties(tmp_path):
    ids = draw_tokens(1, 9)
    for tied in (False, True):
        model = tiny_model("vanilla", tie_word_embeddings=tied)
        model.save_pretrained(tmp_path / str(tied))
        loaded, info = MiniGPTForCausalLM.from_pretrained(tmp_path / str(tied), output_loading_info=True)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_rotary_scalings_stretch_the_positions(kind):
    torch.manual_seed(0)
    plain = MiniGPTForCausalLM(tiny_config("vanilla", max_position_embeddings=32)).eval()
    scaling = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    scaled = MiniGPTForCausalLM(tiny_config("vanilla", max_position_embeddings=32, rope_parameters=scaling)).eval()
    scaled.load_state_dict(plain.state_dict())
    short, long = draw_tokens(1, 10), draw_tokens(1, 48)
    assert torch.allclose(plain(short).logits, scaled(short).logits, atol=1e-6) == (kind == "dynamic")
    assert not torch.allclose(plain(long).logits, scaled(long).logits, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_returns_all_it_is_asked_for(model, variant, beams):
    model.set_attn_implementation("eager")
    ids = draw_tokens(2, 11)
    wanted = greedy(model, ids, num_beams=beams)
    asked = dict.fromkeys(("attentions", "hidden_states", "scores", "logits"), True)
    flags = {f"output_{name}": True for name in asked}
    outputs = greedy(model, ids, num_beams=beams, return_dict_in_generate=True, **flags)
    assert torch.equal(outputs.sequences, wanted)
    assert [len(getattr(outputs, name)) for name in asked] == [NEW] * 4
    vanilla = variant in ("vanilla", "learned", "tied")  # which decode by a cache of keys; the others without one
    for step, (weights, states) in enumerate(zip(outputs.attentions, outputs.hidden_states, strict=True)):
        queries = 1 if vanilla and step else 11 + step
        assert [tensor.shape for tensor in weights] == [(2 * beams, 4, queries, 11 + step)] * 2
        assert [tensor.shape for tensor in states] == [(2 * beams, queries, 32)] * 3


def test_generate_from_embeddings_and_from_a_cache(model):
    ids = draw_tokens(2, 11)
    wanted = greedy(model, ids)
    assert torch.equal(greedy(model, None, inputs_embeds=model.get_input_embeddings()(ids)), wanted[:, 11:])
    first = model.generate(ids, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    rest = model.generate(
        first.sequences,
        attention_mask=torch.ones_like(first.sequences),
        max_new_tokens=NEW - 2,
        do_sample=False,
        past_key_values=first.past_key_values,
    )
    assert torch.equal(rest, wanted)
    assert torch.equal(greedy(model, ids, prefill_chunk_size=4), wanted)


def test_assistants_change_no_token_or_are_refused_at_once(model, variant):
    ids = draw_tokens(1, 11)
    wanted = greedy(model, ids)
    assistant = tiny_model("vanilla", num_hidden_layers=1)
    for how in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": assistant}):
        if variant in ("vanilla", "learned", "tied", *CROPPABLE):
            assert torch.equal(greedy(model, ids, **how), wanted)
        else:
            with pytest.raises(ValueError, match="not supported with stateful models"):
                greedy(model, ids, **how)


@pytest.mark.parametrize("variant", ["vanilla", "learned"], indirect=True)
def test_static_cache_and_compiled_steps_change_no_token(model):
    ids = draw_tokens(2, 11)
    torch.compiler.reset()
    compiled = CompileConfig(backend="aot_eager", fullgraph=True)
    compiled._compile_all_devices = True
    found = greedy(model, ids, cache_implementation="static", compile_config=compiled)
    assert hasattr(model, "_compiled_call")
    assert torch.equal(found, greedy(model, ids))
