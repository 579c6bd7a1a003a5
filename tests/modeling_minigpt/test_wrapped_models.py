"""MiniGPTs in what the libraries wrap around models: checkpointed and compiled parts, kernels, paged caches."""

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.attention.flex_attention import create_block_mask
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from tests.attention_variants import VARIANTS, assert_equal, draw_tokens, left_pad, tiny_config, tiny_model

EVERY = [*VARIANTS, "vanilla"]
NEW = 6  # tokens to generate


def gradients(model, ids):
    """Return the gradient of each weight after one step of a hand-written loop."""
    model.zero_grad()
    model.train()
    model(ids, labels=ids).loss.backward()
    return {name.replace("_checkpoint_wrapped_module.", ""): weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("variant", EVERY)
def test_blocks_that_are_computed_again_for_their_gradients_train_as_others(variant):
    ids = draw_tokens(2, 40)
    wanted = gradients(tiny_model(variant), ids)
    model = tiny_model(variant)
    for index, block in enumerate(model.model.layers):
        model.model.layers[index] = checkpoint_wrapper(block)
    for name, gradient in gradients(model, ids).items():
        assert_equal(gradient, wanted[name])


def test_a_cache_is_made_in_training_where_it_is_asked_for():
    model = tiny_model("vanilla").train()
    ids = draw_tokens(1, 9)
    assert model(ids).past_key_values is None
    assert model(ids, use_cache=True).past_key_values is not None
    with torch.no_grad():
        assert model(ids).past_key_values is not None
    assert model.eval()(ids).past_key_values is not None


def compiled(module):
    """Wrap a module as `torch.compile` does, without a compiler."""
    return torch.compile(module, backend="eager")


def sharded(module):
    """Change a module's class as FSDP's `fully_shard` does."""
    module.__class__ = type(f"FSDP{type(module).__name__}", (type(module),), {})
    return module


@pytest.mark.parametrize("wrap", [checkpoint_wrapper, compiled, sharded])
@pytest.mark.parametrize("variant", ["vanilla", "linformer", "gated_deltanet"])
def test_a_model_whose_attention_is_wrapped_generates_as_before(variant, wrap):
    rows = [draw_tokens(length, seed=length) for length in (5, 9)]
    ids, mask = left_pad(rows)
    model = tiny_model(variant)
    settings = {"attention_mask": mask, "max_new_tokens": NEW, "do_sample": False}
    wanted = model.generate(ids, **settings)
    for layer in model.model.layers:
        layer.self_attn = wrap(layer.self_attn)
    assert torch.equal(model.generate(ids, **settings), wanted)


def test_layers_of_another_variant_are_refused_in_a_wrapper_too():
    model = tiny_model("vanilla")
    config = tiny_config("linformer")
    model.model.layers[1].self_attn = checkpoint_wrapper(ATTENTION_CLASSES["linformer"](config, 1))
    with pytest.raises(ValueError, match="layer 1 is a LinformerAttention of layer_idx 1, the config wants 'vanilla'"):
        model(draw_tokens(1, 5), use_cache=True)


def test_kernels_get_the_positions_by_which_they_find_packed_examples(monkeypatch):
    seen = []

    def kernel(*arguments, position_ids=None, **settings):
        seen.append(position_ids)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](*arguments, **settings)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "listening", kernel)
    model = tiny_model("vanilla")
    model.set_attn_implementation("listening")
    position_ids = torch.tensor([[0, 1, 2, 0, 1]])
    model(draw_tokens(1, 5), position_ids=position_ids, use_cache=False)
    assert len(seen) == 2
    assert all(torch.equal(found, position_ids) for found in seen)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_block_mask_of_flex_attention_is_used():
    def near(batch, head, query, key):
        return (query >= key) & (query - key < 20)

    ids = draw_tokens(2, 128)
    model = tiny_model("vanilla")
    index = torch.arange(128)
    dense = near(0, 0, index[:, None], index)[None, None]
    wanted = model(ids, attention_mask=torch.zeros(1, 1, 128, 128).masked_fill(~dense, -1e9)).logits
    model.set_attn_implementation("flex_attention")
    mask = create_block_mask(near, None, None, 128, 128, device="cpu")
    assert_equal(model(ids, attention_mask=mask, use_cache=False).logits, wanted)


@pytest.mark.parametrize("variant", [name for name in EVERY if "selected" not in str(VARIANTS.get(name))])
def test_shapes_are_known_without_weights(variant):
    model = tiny_model(variant).to("meta")
    assert model(draw_tokens(2, 20).to("meta")).logits.shape == (2, 20, 64)


def answer_in_batches(model, prompts, **settings):
    """Return what continuous batching generates for each prompt."""
    generation = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = ContinuousBatchingConfig(num_blocks=32, max_batch_tokens=64, page_size=16)
    found = model.generate_batch(prompts, generation_config=generation, continuous_batching_config=batching)
    return [one.generated_tokens for one in found.values()]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_continuous_batching_generates_what_generate_does(implementation):
    model = tiny_model("vanilla")
    model.set_attn_implementation(implementation)
    prompts = [draw_tokens(length, seed=length).tolist() for length in (11, 5, 7)]
    wanted = [
        model.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False)[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    assert answer_in_batches(model, prompts) == wanted


@pytest.mark.parametrize("variant", ["linformer", "gated_deltanet"])
def test_continuous_batching_is_refused_where_no_layer_has_pages(variant):
    with pytest.raises(ValueError, match="continuous batching needs a paged cache"):
        answer_in_batches(tiny_model(variant), [[2, 3, 4]])
    with pytest.raises(ValueError, match="continuous batching needs a paged cache"):
        tiny_model(variant)(draw_tokens(1, 5), cache=object())


def test_what_follows_from_other_fields_may_be_stated_but_not_changed():
    config = tiny_config("vanilla").to_dict()
    assert type(tiny_config("vanilla")).from_dict({**config, "head_dim": 8}).head_dim == 8
    for name, value in (("head_dim", 16), ("is_vanilla", False), ("layer_attention_types", ["window"] * 2)):
        with pytest.raises(ValueError, match=f"{name} follows from"):
            type(tiny_config("vanilla")).from_dict({**config, name: value})
