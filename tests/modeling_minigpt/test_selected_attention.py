"""Blocks are chosen by the rule alone, whatever else is in the call, and attention to them is exact."""

import random

import pytest
import torch

from modeling_minigpt import MiniGPTForCausalLM, block_search_minigpt, selected_attention_minigpt
from modeling_minigpt.block_selection_minigpt import (
    GROUP,
    Choice,
    box_query,
    key_boxes,
    key_means,
    rank,
    select_blocks,
)
from modeling_minigpt.block_tiles_minigpt import TILE, GatheredBlocks, TiledBlocks, dense_attention, selected_attention
from modeling_minigpt.selected_attention_minigpt import SelectedAttention
from tests.attention_variants import SIZE, assert_equal, draw_states, draw_tokens, left_pad, tiny_config, tiny_model

NAMES = ["selected", "selected-summary"]


@pytest.fixture
def chosen(monkeypatch):
    """Record what every call chooses: the sets of blocks, by (layer, row, head, position)."""
    found = {}
    choose = SelectedAttention.choose

    def recording(layer, plain_query, levels, positions):
        choice = choose(layer, plain_query, levels, positions)
        for place in plain_query.abs().sum(-1).nonzero().tolist():  # a place without a token has a query of zeros
            row, head, number, column = place
            ids = choice.ids[*place][choice.valid[*place]].tolist()
            assert len(ids) == len(set(ids))
            found[layer.layer_idx, row, head, positions[row, number, column].item()] = set(ids)
        return choice

    monkeypatch.setattr(SelectedAttention, "choose", recording)
    return found


@pytest.fixture(params=["every-block", "searched"])
def make_model(request, monkeypatch):
    """Return a function that makes a model; "searched" opens two boxes for a choice and may miss some."""
    monkeypatch.setattr(block_search_minigpt, "OPENED", 1)
    for module in (block_search_minigpt, selected_attention_minigpt):
        monkeypatch.setattr(module, "FAN_OUT", 2)
    fields = {"selected_exact": 2} if request.param == "searched" else {}
    return lambda name: tiny_model(name, **fields)


@torch.no_grad()
def feed(model, ids, cuts, mask=None):
    """Return the logits of a text fed in pieces."""
    cache = None
    logits = []
    seen = 0
    for piece in ids.split(cuts, dim=1):
        seen += piece.shape[1]
        outputs = model(piece, attention_mask=None if mask is None else mask[:, :seen], past_key_values=cache)
        cache = outputs.past_key_values
        logits.append(outputs.logits)
    return torch.cat(logits, dim=1)


# --- The same function as full attention, where all blocks are seen.


@pytest.mark.parametrize(("count", "window"), [(16, 1), (9, 8), (1, 16), (2**20, 1), (1, 2**20)])
def test_a_vanilla_checkpoint_says_the_same_when_every_block_is_seen(tmp_path, count, window):
    vanilla = tiny_model("vanilla")
    vanilla.save_pretrained(tmp_path)
    fields = {"selected_blocks": count, "selected_window": window}
    model = MiniGPTForCausalLM.from_pretrained(tmp_path, config=tiny_config("selected", **fields)).eval()
    ids = draw_tokens(2, 17 * SIZE - 3)
    with torch.no_grad():
        assert_equal(model(ids).logits, vanilla(ids).logits)
    assert_equal(feed(model, ids, [100, 1, 1, 31]), feed(vanilla, ids, 133))


# --- The choice.


def test_a_box_bounds_every_product_and_the_bound_is_reached():
    query, key, _ = (states.detach() for states in draw_states(2, 3, 40, 6))
    blocks = key.unflatten(2, (5, 8))
    bounds = box_query(query) @ key_boxes(blocks).mT  # (B, H, T, N)
    products = (query[:, :, None] @ blocks.mT).amax(-1).transpose(2, 3)
    assert torch.all(bounds >= products - 1e-5)
    assert_equal((box_query(query) @ key_boxes(key[:, :, :, None]).mT), query @ key.mT)  # a box around one key


def slow_choice(scores, limit, count):
    """Return the best numbers below a limit, the smaller of two equals first."""
    return set(sorted(range(limit), key=lambda number: (-scores[number], number))[:count])


@pytest.mark.parametrize("blocks", [1, 5, 2 * 3 * GROUP - 1, 2 * 3 * GROUP, 100, 250])
@pytest.mark.parametrize("values", [2, 1000], ids=["ties", "no-ties"])
def test_the_choice_is_exact_however_many_blocks_there_are(blocks, values):
    generator = torch.Generator().manual_seed(blocks)
    query = torch.randint(-values, values, (2, 2, blocks, SIZE, 3), generator=generator)
    features = torch.randint(-values, values, (2, 2, blocks, 3), generator=generator)
    limits = torch.arange(blocks).clamp(min=0)
    limits = torch.stack((limits, limits.flip(0)))  # rows may start at different blocks
    ids, valid = select_blocks(query.float(), features.float(), limits, 3)
    scores = query.flatten(2, 3) @ features.mT  # whole numbers, (B, H, T, N)
    for row, head, t in ((row, head, t) for row in (0, 1) for head in (0, 1) for t in range(0, blocks * SIZE, 7)):
        number, column = divmod(t, SIZE)
        found = ids[row, head, number, column][valid[row, head, number, column]].tolist()
        wanted = slow_choice(scores[row, head, t].tolist(), limits[row, number].item(), 3)
        assert set(found) == wanted
        assert len(found) == len(wanted)


def test_scores_that_differ_by_rounding_are_equal():
    scores = torch.tensor([1.0, 1.0 + 2e-7, 1.002, -1e30, float("-inf"), 7.0])
    order = rank(scores, torch.arange(6)).argsort(descending=True)
    assert order.tolist() == [5, 2, 0, 1, 3, 4]


@pytest.mark.parametrize("name", NAMES)
def test_only_complete_blocks_before_the_window_are_chosen_and_as_many_as_there_are(name, make_model, chosen):
    ids, mask = left_pad([draw_tokens(75), draw_tokens(41, seed=1)])
    feed(make_model(name), ids, [30, 1, 1, 1, 33, 9], mask)
    assert len(chosen) == 2 * 4 * (75 + 41)
    for (_, _, _, position), blocks in chosen.items():
        limit = max(0, position // SIZE - 1)  # a window of two blocks
        assert len(blocks) == min(2, limit)
        assert all(block < limit for block in blocks)


@pytest.mark.parametrize("name", NAMES)
def test_the_choice_does_not_depend_on_later_tokens_the_batch_or_the_cuts(name, make_model, chosen):
    model = make_model(name)
    ids = draw_tokens(1, 90)
    feed(model, ids, 90)
    alone = dict(chosen)
    others, mask = left_pad([ids[0], draw_tokens(110, seed=1)])
    longer = torch.cat((ids, draw_tokens(1, 50, seed=2)), dim=1)
    calls = {
        "later tokens": (longer, [140], None, 0),
        "a shorter text": (ids[:, :57], [57], None, 0),
        "the batch": (others, [110], mask, 0),
        "single tokens": (ids, [1] * 90, None, 0),
        "pieces of a padded batch": (others, [7, 40, 1, 1, 61], mask, 0),
    }
    for what, (text, cuts, real, row) in calls.items():
        chosen.clear()
        feed(model, text, cuts, real)
        common = {place: blocks for place, blocks in chosen.items() if place in alone and place[1] == row}
        assert len(common) >= 2 * 4 * 57, what
        assert all(alone[place] == blocks for place, blocks in common.items()), what


@pytest.mark.parametrize("name", NAMES)
def test_of_blocks_with_equal_keys_the_first_are_chosen_also_token_by_token(name, make_model, chosen):
    model = make_model(name)
    ids = draw_tokens(1, SIZE).repeat(1, 18)  # in the first layer every block has the keys of the first
    whole = feed(model, ids, 18 * SIZE)
    assert chosen[0, 0, 0, 18 * SIZE - 1] == {0, 1}
    parallel = dict(chosen)
    for cuts in ([1] * (18 * SIZE), [37, 1, 1, 100, 5]):
        chosen.clear()
        assert_equal(feed(model, ids, cuts), whole)
        assert chosen == parallel


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_and_autocast_choose_as_float32_does(name):
    layer = tiny_model(name).to(torch.bfloat16).model.layers[0].self_attn
    hidden = torch.randn(2, 100 * SIZE, 32, generator=torch.Generator().manual_seed(0))
    inputs = layer.project_inputs(hidden.bfloat16(), None)
    query = inputs[3].unflatten(2, (100, SIZE))
    positions = torch.arange(100 * SIZE).view(1, 100, SIZE).expand(2, -1, -1)
    summaries = inputs[4].unflatten(2, (100, SIZE)).mean(3)
    summaries = summaries if name == "selected-summary" else torch.cat((summaries, summaries - 1), dim=-1)
    wanted = layer.choose(query.float(), [summaries.float()], positions)
    found = layer.choose(query, [summaries], positions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        also = layer.choose(query.float(), [summaries.float()], positions)
    assert torch.equal(also.ids.sort().values, wanted.ids.sort().values)
    assert torch.equal(found.ids.sort().values, wanted.ids.sort().values)


@pytest.mark.parametrize("name", NAMES)
def test_tiles_weigh_in_float32_under_autocast(name, monkeypatch):
    softmax = torch.Tensor.softmax
    seen = []

    def recording(scores, *arguments, **settings):
        if scores.ndim == 2:  # (q, (w + k)·b)
            seen.append((scores.dtype, scores.shape[1]))
        return softmax(scores, *arguments, **settings)

    monkeypatch.setattr(torch.Tensor, "softmax", recording)
    ids = draw_tokens(2, 6 * SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        tiny_model(name)(ids, labels=ids, use_cache=False).loss.backward()
    assert seen == [(torch.float32, 4 * SIZE)] * 2


# --- Attention to the chosen blocks.


def draw_choice(kind, blocks, count):
    """Return a choice for each query of whole blocks, (2, 2, blocks, SIZE, count).

    Of the blocks before its own, "spread" draws some, "popular" lets all choose the first ones, "none" chooses none.
    """
    drawn = random.Random(0)
    ids = torch.zeros(2, 2, blocks, SIZE, count, dtype=torch.long)
    valid = torch.zeros(ids.shape, dtype=torch.bool)
    for place in torch.ones(ids.shape[:-1]).nonzero().tolist():
        row = place[2]
        fewer = min(row, count)
        numbers = {"spread": drawn.sample(range(row), fewer), "popular": list(range(fewer)), "none": []}[kind]
        ids[*place, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        valid[*place, : len(numbers)] = True
    return Choice(ids, valid)


def outputs_and_gradients(function, inputs):
    """Return a function's output and all gradients of a fixed sum of it."""
    mixed = function()
    direction = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(9))
    return mixed, *torch.autograd.grad((mixed * direction).sum(), inputs, materialize_grads=True)


@pytest.mark.parametrize("kind", ["spread", "popular", "none"])
@pytest.mark.parametrize("blocks", [5, 2 * TILE + 1])
@pytest.mark.parametrize("with_prior", [False, True], ids=["box", "prior"])
def test_tiles_equal_a_mask_over_all_tokens(kind, blocks, with_prior):
    inputs = draw_states(2, 2, blocks, SIZE, 16, count=4)
    inputs += draw_states(2, 2, blocks, 16, count=1, seed=1)
    positions = torch.arange(blocks * SIZE).view(1, blocks, SIZE).expand(2, -1, -1)
    prior = tuple(inputs[3:]) if with_prior else None
    settings = {"choice": draw_choice(kind, blocks, 3), "window": 1, "scaling": 0.25, "prior": prior, "dropout": 0.0}
    results = [
        outputs_and_gradients(lambda kernel=kernel: kernel(*inputs[:3], positions, **settings), inputs)
        for kernel in (selected_attention, dense_attention)
    ]
    for actual, expected in zip(*results, strict=True):
        assert_equal(actual, expected)
    assert (results[0][-1].abs().sum() > 0) == (with_prior and kind != "none")


@pytest.mark.parametrize("kind", ["spread", "popular"])
def test_tiles_equal_gathering_in_outputs_and_gradients(kind):
    blocks = 2 * TILE + 1
    ids, valid = (states[0, 0].flatten(0, 1) for states in draw_choice(kind, blocks, 3))  # (q, 3)
    (query,) = draw_states(blocks * SIZE, 16, count=1)
    (keys,) = draw_states(blocks, SIZE, 16, count=1, seed=1)
    (weights,) = draw_states(*ids.shape, SIZE, count=1, seed=2)
    results = []
    for cls in (TiledBlocks, GatheredBlocks):
        chosen = cls(ids, valid, blocks)
        products = chosen.multiply(query, keys).masked_fill(~valid[..., None], 0.0)
        shares = weights.masked_fill(~valid[..., None], 0.0)
        results.append((products, chosen.mix(shares, keys)))
        for result in results[-1][:]:
            results[-1] += torch.autograd.grad(
                result.square().sum(), (query, keys, weights), retain_graph=True, materialize_grads=True
            )
    for actual, expected in zip(*results, strict=True):
        assert_equal(actual, expected, atol=1e-4)


def test_a_plain_mean_is_what_a_new_gate_gives():
    torch.manual_seed(0)
    layer = MiniGPTForCausalLM(tiny_config("selected-summary")).model.layers[0].self_attn
    hidden = torch.randn(1, 5 * SIZE, 32)
    *_, plain_key, gate = layer.project_inputs(hidden, None)
    means = key_means(plain_key.unflatten(2, (5, SIZE)), gate.unflatten(2, (5, SIZE)))
    assert_equal(means, plain_key.unflatten(2, (5, SIZE)).mean(3))


def test_a_cache_has_three_numbers_a_coordinate_of_a_token_and_two_a_block():
    with torch.no_grad():
        cache = tiny_model("selected")(draw_tokens(1, 20 * SIZE), use_cache=True).past_key_values
    numbers = {name: tensor.numel() for name, tensor in cache.layers[0].state.items()}
    tokens = 21 * SIZE * 32  # a block more, as a piece may begin inside one
    assert numbers == {"counts": 1, **dict.fromkeys(("keys", "values", "plain_keys"), tokens), "summaries": 21 * 64}
