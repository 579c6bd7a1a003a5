"""What holds for a model of every attention variant: no leak, padding that changes nothing, reloads, refusals."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from modeling_minigpt import MiniGPTForCausalLM, block_attention_minigpt
from modeling_minigpt.attention_base_minigpt import PaddingInfo
from modeling_minigpt.block_attention_minigpt import BlockAttention
from modeling_minigpt.block_sparse_minigpt import BlockPattern, block_table, dense_mask
from tests.attention_variants import (
    LENGTHS,
    ORACLES,
    OUTPUTS,
    SIZE,
    UNIFORM,
    VARIANTS,
    assert_equal,
    draw_tokens,
    left_pad,
    logits_of,
    tiny_config,
    tiny_model,
)

POSITIONS = {"rotary": {}, "learned": {"position_embedding_type": "learned", "norm_type": "layernorm"}}


@pytest.fixture(params=VARIANTS)
def variant(request):
    """Name each attention variant."""
    return request.param


# --- A layer equals its oracle, weights of the projections included.


@pytest.mark.parametrize("length", LENGTHS, ids="T{}".format)
def test_layer_and_its_gradients_equal_the_oracle(variant, length):
    model = tiny_model(variant)
    layer = model.model.layers[1].self_attn
    hidden = torch.randn(2, length, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rotation = model.model.rotary_emb(hidden, torch.arange(length)[None])
    direction = torch.randn(2, length, 32, generator=torch.Generator().manual_seed(1))

    def slow():
        project = getattr(layer, "project_inputs", layer.project)
        mixed = ORACLES[type(layer).__name__](layer, *project(hidden, rotation))
        if type(layer).__name__ in OUTPUTS:
            mixed = OUTPUTS[type(layer).__name__](layer, mixed, hidden)
        return layer.o_proj(mixed.transpose(1, 2).flatten(2))

    wanted = [hidden, *(p for p in layer.parameters() if p.requires_grad)]
    results = []
    for mixed in (layer(hidden, position_embeddings=rotation)[0], slow()):
        gradients = torch.autograd.grad((mixed * direction).sum(), wanted, materialize_grads=True)
        results.append((mixed, *gradients))
    for actual, expected in zip(*results, strict=True):
        scale = max(1.0, expected.abs().max().item())  # a matrix's gradient sums over all tokens
        assert_equal(actual / scale, expected / scale)


# --- No leak, in three forms.


def test_later_tokens_change_nothing_before_them(variant):
    model, length = tiny_model(variant), 61
    ids = draw_tokens(1, length)
    changed = draw_tokens(length, length, seed=1)
    later = torch.arange(length) >= torch.arange(length)[:, None]  # row t: tokens t and after are changed
    before = logits_of(model, ids)
    after = logits_of(model, torch.where(later, changed, ids))
    assert_equal(torch.where(later[..., None], 0.0, after), torch.where(later[..., None], 0.0, before))


def test_no_gradient_reaches_back_from_the_past(variant):
    model, length = tiny_model(variant), 29
    embeddings = model.get_input_embeddings()(draw_tokens(1, length)).detach().requires_grad_()
    hidden = model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    for t in range(length):
        reached = torch.autograd.grad(hidden[0, t].sum(), embeddings, retain_graph=True)[0][0].abs().sum(-1)
        assert torch.all(reached[t + 1 :] == 0)
        assert reached[t] > 0


def test_a_shorter_text_gives_the_same_start(variant):
    model, length = tiny_model(variant), 37
    ids = draw_tokens(2, length)
    whole = logits_of(model, ids)
    for t in range(1, length):
        assert_equal(logits_of(model, ids[:, :t]), whole[:, :t])


# --- Padding.


@pytest.mark.parametrize("positions", POSITIONS)
def test_left_padded_rows_equal_the_rows_alone(variant, positions):
    model = tiny_model(variant, **POSITIONS[positions])
    rows = [draw_tokens(length, seed=length) for length in (1, SIZE - 1, 2 * SIZE + 1, 63)]
    ids, mask = left_pad(rows)
    padded = logits_of(model, ids, attention_mask=mask)
    for row, logits in zip(rows, padded, strict=True):
        assert_equal(logits[-len(row) :], logits_of(model, row[None])[0])


def test_right_padding_needs_no_mask_and_does_no_harm(variant):
    model, row = tiny_model(variant), draw_tokens(1, 21)
    ids = torch.nn.functional.pad(row, (0, 20))
    mask = torch.nn.functional.pad(torch.ones_like(row), (0, 20))
    alone = logits_of(model, row)
    assert_equal(logits_of(model, ids)[:, :21], alone)
    assert_equal(logits_of(model, ids, attention_mask=mask)[:, :21], alone)


def test_a_row_with_holes_equals_the_row_without_them(variant):
    model, row = tiny_model(variant), draw_tokens(40)
    mask = torch.ones(1, 60, dtype=torch.long)
    mask[0, torch.randperm(60, generator=torch.Generator().manual_seed(0))[:20]] = 0
    ids = torch.zeros(1, 60, dtype=torch.long)
    ids[mask.bool()] = row
    assert_equal(logits_of(model, ids, attention_mask=mask)[mask.bool()], logits_of(model, row[None])[0])


@pytest.mark.parametrize("use_cache", [False, True], ids=["parallel", "cached"])
def test_a_row_of_padding_stays_finite(variant, use_cache):
    model = tiny_model(variant)
    ids, mask = left_pad([draw_tokens(20), draw_tokens(0)])
    with torch.no_grad():
        outputs = model(ids, attention_mask=mask, use_cache=use_cache)
        assert outputs.logits.isfinite().all()
        assert_equal(outputs.logits[:1], logits_of(model, ids[:1]))
        if use_cache:  # and when it gets its first token
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            outputs = model(draw_tokens(2, 1), attention_mask=mask, past_key_values=outputs.past_key_values)
            assert_equal(outputs.logits[1:], logits_of(model, draw_tokens(2, 1)[1:]))


def test_without_a_mask_nothing_is_moved(monkeypatch):
    def refuse(*_):
        raise AssertionError("mask work on the fast path")

    monkeypatch.setattr(PaddingInfo, "from_mask", refuse)
    for variant in VARIANTS:
        model = tiny_model(variant)
        logits_of(model, draw_tokens(2, 20))
        logits_of(model, draw_tokens(2, 20), attention_mask=torch.ones(2, 20))


# --- Training and saving.


def test_checkpointed_gradients_are_the_same(variant):
    gradients = []
    for checkpointed in (False, True):
        model = tiny_model(variant).train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        ids = draw_tokens(2, 30)
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradient) for name, gradient in gradients[1].items())


def test_every_parameter_gets_a_gradient_and_dropout_drops(variant):
    model = tiny_model(variant, attention_dropout=0.5).train()
    ids = draw_tokens(2, 40)
    torch.manual_seed(0)
    loss = model(ids, labels=ids).loss  # with the default cache, as a user might
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert loss != model(ids, labels=ids).loss


def test_a_reloaded_model_is_bitwise_equal(variant, tmp_path):
    model, ids = tiny_model(variant), draw_tokens(2, 50)
    model.save_pretrained(tmp_path)
    torch.manual_seed(99)
    loaded = MiniGPTForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.attention_type == model.config.attention_type
    assert torch.equal(logits_of(loaded, ids), logits_of(model, ids))


def test_initialisation_covers_every_tensor(variant):
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(MiniGPTForCausalLM(tiny_config(variant, zero_init_residual=True)))
        _ = torch.full((10_000,), float("nan"))  # garbage for uninitialised memory to pick up
    for (name, one), two in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert one.isfinite().all(), name
        assert torch.equal(one, two), name
    assert all(not layer.self_attn.o_proj.weight.any() for layer in models[0].model.layers)


def test_performer_features_follow_the_config_seed_and_the_layer():
    first, second = (tiny_model("performer", performer_seed=seed) for seed in (0, 1))
    layers = [model.model.layers[index].self_attn.features for model in (first, second) for index in (0, 1)]
    assert all(not torch.equal(layers[0], other) for other in layers[1:])


def test_dense_weights_are_the_same_function(variant):
    model, ids = tiny_model(variant), draw_tokens(2, 45)
    expected = logits_of(model, ids)
    model.set_attn_implementation("eager")
    assert_equal(logits_of(model, ids), expected)


@pytest.mark.parametrize("name", ["bigbird", "window"])
def test_flex_attention_is_the_same_function(name, monkeypatch):
    calls = []

    def uncompiled(*inputs, **settings):
        calls.append(settings["block_mask"])
        return flex_attention(*inputs, **settings)

    model, ids = tiny_model(name), draw_tokens(2, 45)
    expected = logits_of(model, ids)
    monkeypatch.setattr(block_attention_minigpt, "compiled_flex_attention", lambda: uncompiled)
    monkeypatch.setattr(BlockAttention, "uses_flex_attention", lambda layer, query: True)  # without a GPU, too
    assert_equal(logits_of(model, ids), expected)
    assert len(calls) == model.config.num_hidden_layers


@pytest.mark.parametrize("name", UNIFORM)
def test_models_compile_as_one_graph(name):
    model, ids = tiny_model(name, num_hidden_layers=1), draw_tokens(2, 20)
    torch.compiler.reset()  # the variants share functions, of which the compiler takes eight versions at most
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_equal(logits_of(compiled, ids), logits_of(model, ids))


def test_tables_made_in_inference_mode_serve_training():
    model, ids = tiny_model("bigbird", bigbird_seed=77), draw_tokens(1, 50)
    with torch.inference_mode():
        model(ids)
    model.train()(ids, labels=ids).loss.backward()


@pytest.mark.parametrize("half", ["bfloat16", "autocast"])
def test_half_precision_stays_close(variant, half):
    model, ids = tiny_model(variant), draw_tokens(2, 40)
    expected = logits_of(model, ids)
    if half == "bfloat16":
        model = model.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half == "autocast"):
        outputs = model(ids, labels=ids)
        outputs.loss.backward()
        step = model(ids[:, :1], past_key_values=outputs.past_key_values)
    assert (outputs.logits.float() - expected).square().mean().sqrt() < 0.1 * expected.square().mean().sqrt()
    assert step.logits.isfinite().all()


# --- Cost, in counts.


@pytest.mark.parametrize("name", ["bigbird", "bigbird-reservoir", "window"])
def test_keys_per_query_do_not_grow(name):
    pattern = BlockPattern.from_config(tiny_config(name), 0)
    keys = dense_mask(pattern, 400).sum(-1)
    assert keys.max() <= pattern.blocks_per_query * pattern.block
    assert keys[:, 320:].sum() == keys[:, 160:240].sum()
    assert block_table(pattern, 400).shape == (4, 400, pattern.blocks_per_query)


@pytest.mark.parametrize("name", UNIFORM)
def test_memory_to_train_grows_as_the_text(name):
    layer, kept = tiny_model(name).model.layers[0].self_attn, []
    for length in (512, 1024):
        storages = {}

        def keep(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layer(torch.randn(1, length, 32, requires_grad=True))
        kept.append(sum(storage.nbytes() for storage in storages.values()))
    assert kept[1] < 2.1 * kept[0]
