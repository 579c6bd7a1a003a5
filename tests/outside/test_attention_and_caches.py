"""Generation, layers, positions, caches and devices, where other people's models have failed."""

import copy

import pytest
import torch
from accelerate.utils import send_to_device
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_minigpt import MiniGPTForCausalLM, make_cache
from modeling_minigpt.attention_base_minigpt import PaddingInfo
from modeling_minigpt.cache_layers_minigpt import PreallocatedLayer
from tests.attention_variants import (
    CROPPABLE,
    VARIANTS,
    assert_equal,
    draw_tokens,
    left_pad,
    logits_of,
    tiny_model,
)

PLAIN = ["vanilla", "bigbird"]  # decoding states that can take any tokens back
GREEDY = {"do_sample": False, "max_new_tokens": 6}
SCALINGS = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0, 3.0, 2.0, 1.5],
    },
}


@pytest.fixture(params=SCALINGS)
def scaled(request):
    """Return a function that makes a model whose rotary frequencies change after 32 tokens."""

    def make(variant="vanilla"):
        scaling = dict(SCALINGS[request.param])
        return tiny_model(variant, max_position_embeddings=32, rope_parameters=scaling)

    return make


# --- Assisted generation and layers that do not run


@pytest.mark.row("M7")
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in CROPPABLE])
def test_an_assistant_that_cannot_take_tokens_back_is_refused_before_anything_is_generated(name, monkeypatch):
    model, assistant = tiny_model("vanilla"), tiny_model(name)
    before = [copy.deepcopy((each.config.to_dict(), each.generation_config.to_dict())) for each in (model, assistant)]
    for each in (model, assistant):
        monkeypatch.setattr(each.model.layers[0], "forward", None)  # nothing may be computed
    with pytest.raises(ValueError, match="not supported with stateful models: the assistant is"):
        model.generate(draw_tokens(1, 11), assistant_model=assistant, **GREEDY)
    assert before == [(each.config.to_dict(), each.generation_config.to_dict()) for each in (model, assistant)]


@pytest.mark.row("M7")
def test_another_librarys_model_is_not_assisted_by_one_that_cannot_take_tokens_back():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
    with pytest.raises(ValueError, match="attention_type 'performer' cannot be an assistant"):
        llama.generate(draw_tokens(1, 11), assistant_model=tiny_model("performer"), **GREEDY)


@pytest.mark.row("M7")
@pytest.mark.parametrize("name", PLAIN)
def test_a_draft_by_the_first_layers_changes_no_token(name):
    model, ids = tiny_model(name), draw_tokens(1, 11)
    wanted = model.generate(ids, **GREEDY)
    assert torch.equal(model.generate(ids, assistant_early_exit=1, **GREEDY), wanted)
    assert model.config.num_hidden_layers == 2
    mixed = tiny_model("vanilla", attention_type=["vanilla", "bigbird"])
    assert torch.equal(mixed.generate(ids, assistant_early_exit=1, **GREEDY), mixed.generate(ids, **GREEDY))


@pytest.mark.row("M7")
@pytest.mark.parametrize("layers", [0, -1, 3])
def test_a_draft_by_layers_that_are_not_there_is_refused(layers):
    with pytest.raises(ValueError, match=f"assistant_early_exit must be from 1 to the 2 layers, found {layers}"):
        tiny_model("vanilla").generate(draw_tokens(1, 11), assistant_early_exit=layers, **GREEDY)


@pytest.mark.row("M7")
def test_a_draft_that_fails_leaves_the_model_as_it_was():
    model, ids = tiny_model("vanilla"), draw_tokens(1, 11)
    wanted = logits_of(model, ids)

    def fail(*_, **__):
        if model.config.num_hidden_layers == 1:
            raise RuntimeError("out of memory")

    hook = model.model.layers[0].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.generate(ids, assistant_early_exit=1, **GREEDY)
    hook.remove()
    assert model.config.num_hidden_layers == 2
    assert torch.equal(logits_of(model, ids), wanted)


@pytest.mark.row("M7")
def test_only_the_configs_layers_run(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 20)
    first = copy.deepcopy(model)
    first.model.layers = first.model.layers[:1]
    model.config.num_hidden_layers = 1
    assert torch.equal(logits_of(model, ids), logits_of(first, ids))
    cache = make_cache(model.config)
    cached = torch.cat([model(piece, past_key_values=cache).logits for piece in ids.split(7, dim=1)], dim=1)
    assert_equal(cached, logits_of(model, ids))


@pytest.mark.row("M7")
def test_layers_taken_out_are_renumbered_or_refused(variant):
    model, ids = tiny_model(variant, num_hidden_layers=2), draw_tokens(1, 40)
    del model.model.layers[0]
    model.config.num_hidden_layers = 1
    if not isinstance(model.config.attention_type, str):
        model.config.attention_type = model.config.attention_type[1:]
    expected = logits_of(model, ids)
    with pytest.raises(ValueError, match=r"layer 0 is a .* of layer_idx 1.*set each self_attn.layer_idx"):
        model.generate(ids, **GREEDY)
    model.model.layers[0].self_attn.layer_idx = 0
    if not variant.startswith("bigbird"):  # whose random blocks are its number's
        assert torch.equal(logits_of(model, ids), expected)
    assert torch.equal(model.generate(ids, **GREEDY), model.generate(ids, use_cache=False, **GREEDY))


# --- Rotary positions


@pytest.mark.row("M8")
@pytest.mark.parametrize("kind", ["default", "yarn", *SCALINGS])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_model_that_is_cast_keeps_its_frequencies(kind, dtype):
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
    scaling = {"default": None, "yarn": yarn, **SCALINGS}[kind]
    model = tiny_model("vanilla", rope_parameters=dict(scaling) if scaling else None)
    exact = {name: buffer.clone() for name, buffer in model.model.rotary_emb.named_buffers()}
    assert len(exact) == 2
    for cast in (model.to(dtype), model.to(dtype).float()):
        for name, buffer in cast.model.rotary_emb.named_buffers():
            assert buffer.dtype == torch.float32
            assert torch.equal(buffer, exact[name])


@pytest.mark.row("M8")
@pytest.mark.parametrize("name", ["vanilla", "performer"])
def test_a_cast_model_is_as_exact_as_a_loaded_one(name, tmp_path):
    model, ids = tiny_model(name), draw_tokens(1, 1500)
    model.save_pretrained(tmp_path)
    loaded = MiniGPTForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert_equal(logits_of(model.bfloat16(), ids).float(), logits_of(loaded, ids).float())


@pytest.mark.row("M9")
@pytest.mark.parametrize("name", ["vanilla", "performer", "bigbird"])
def test_scaled_rotary_positions_generate_the_same_with_and_without_a_cache(scaled, name):
    model = scaled(name)
    ids, mask = left_pad([draw_tokens(26, seed=1), draw_tokens(28, seed=2)])
    settings = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 10}
    wanted = model.generate(ids, use_cache=False, **settings)
    assert torch.equal(model.generate(ids, **settings), wanted)
    for row, real, found in zip(ids, mask.bool(), wanted, strict=True):  # and as the row alone
        alone = model.generate(row[real][None], do_sample=False, max_new_tokens=10)
        assert torch.equal(found[-alone.shape[1] :], alone[0])


@pytest.mark.row("M9")
def test_a_text_has_its_own_frequencies_whatever_was_read_before_or_beside_it(scaled):
    model = scaled()
    short, long = draw_tokens(20, seed=1), draw_tokens(60, seed=2)
    wanted = [logits_of(scaled(), row[None])[0] for row in (short, long)]
    ids, mask = left_pad([short, long])
    for _ in range(2):  # the second time after a longer text
        together = logits_of(model, ids, attention_mask=mask)
        for row, alone in zip(together, wanted, strict=True):
            assert_equal(row[-len(alone) :], alone)
        assert_equal(logits_of(model, short[None])[0], wanted[0])
    packed = torch.cat((short, long))[None]
    positions = torch.cat((torch.arange(20), torch.arange(60)))[None]
    assert_equal(logits_of(model, packed, position_ids=positions)[0], torch.cat(wanted))


@pytest.mark.row("M9")
@pytest.mark.parametrize("name", ["vanilla", "performer"])
def test_a_cache_is_not_continued_where_its_keys_are_rotated_otherwise(scaled, name):
    model, ids = scaled(name), draw_tokens(1, 40)
    cache = model(ids[:, :30]).past_key_values
    assert_equal(model(ids[:, 30:32], past_key_values=cache).logits, logits_of(model, ids[:, :32])[:, 30:])
    with pytest.raises(ValueError, match=r"more than 32 tokens.*use_cache=False"):
        model(ids[:, 32:], past_key_values=cache)
    assert cache.get_seq_length() == 32
    outputs = model(ids)  # one pass is right at any length
    assert_equal(outputs.logits, logits_of(model, ids))
    if name == "vanilla":
        outputs.past_key_values.crop(-20)
    with pytest.raises(ValueError, match="more than 32 tokens"):
        model(ids[:, 20:22], past_key_values=outputs.past_key_values)


# --- Caches


@pytest.mark.row("M10")
@pytest.mark.parametrize("second", ["performer", "gated_deltanet", "linformer", "running_mean", "window"])
@pytest.mark.parametrize("tokens", [-20, -39, 3])
def test_a_refused_crop_changes_no_layer(second, tokens):
    model, ids = tiny_model("vanilla", attention_type=["vanilla", second]), draw_tokens(1, 38)
    cache = model(ids).past_key_values
    with pytest.raises(ValueError, match=r"cannot remove|negated|positive value"):
        cache.crop(tokens)
    assert [layer.get_seq_length() for layer in cache.layers] == [38, 38]
    step = draw_tokens(1, 1, seed=3)
    assert_equal(model(step, past_key_values=cache).logits, logits_of(model, torch.cat((ids, step), 1))[:, 38:])


@pytest.mark.row("M14")
def test_a_cache_that_was_offloaded_comes_back(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 21)
    cache = model(ids[:, :20]).past_key_values
    for layer in cache.layers:
        layer.offload()
        layer.prefetch()
    assert_equal(model(ids[:, 20:], past_key_values=cache).logits, logits_of(model, ids)[:, 20:])
    for layer in make_cache(model.config).layers:  # one that has seen nothing
        layer.offload()
        layer.prefetch()


@pytest.mark.row("M14")
def test_offloading_keys_that_grow_in_place_frees_their_buffer():
    layer, reference = PreallocatedLayer(), DynamicCache()
    for length in (7, 1):
        new = torch.randn(2, 1, 2, length, 4)
        layer.update(*new), reference.update(*new, 0)
    layer.offload()
    assert layer.buffers == {}
    layer.prefetch()
    new = torch.randn(2, 1, 2, 3, 4)
    assert all(map(torch.equal, layer.update(*new), reference.update(*new, 0)))


# --- Devices and dtypes


@pytest.mark.row("M11")
def test_hooks_that_move_a_layers_inputs_move_its_padding():
    padding = PaddingInfo.from_mask(torch.tensor([[0, 1, 1], [1, 1, 0]]).bool())
    moved = send_to_device({"attention_mask": padding}, "meta", non_blocking=True)["attention_mask"]
    assert moved.lengths.device.type == moved.order.device.type == "meta"
    in_place = PaddingInfo.from_mask(torch.tensor([[1, 1, 0]]).bool())
    assert send_to_device(in_place, torch.device("meta")).order is None
    assert torch.equal(send_to_device(padding, "cpu").order, padding.order)


@pytest.mark.row("M12")
@pytest.mark.parametrize("kernel", ["eager", "sdpa", "recorded"])
def test_norms_left_in_float32_leave_one_dtype_to_the_kernel(variant, kernel, monkeypatch):
    found = set()

    def attend(module, query, key, value, mask, **_):
        found.update((query.dtype, key.dtype, value.dtype))
        return value.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "recorded", attend)
    model = tiny_model(variant).bfloat16()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.RMSNorm)]
    assert len(norms) >= 9  # two of each block and two of its attention, and the last one
    for norm in norms:
        norm.float()
    model.config._attn_implementation = kernel
    for use_cache in (False, True):
        outputs = model(draw_tokens(1, 9), use_cache=use_cache)
        assert outputs.logits.dtype == torch.bfloat16
    assert found <= {torch.bfloat16}
