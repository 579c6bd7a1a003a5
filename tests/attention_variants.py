"""Tiny models of every attention variant, with segments and blocks of eight tokens, for the attention tests."""

import torch

from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM

SIZE = 8  # tokens of a segment and of a block
LENGTHS = [1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 2 * SIZE + 1, 63, 130]
FIELDS = {
    "linformer_segment": SIZE,
    "linformer_slots": 4,
    "bigbird_block": SIZE,
    "bigbird_window": 2,
    "bigbird_random": 2,
    "window_size": 13,
    "window_sinks": 3,
    "window_block": SIZE,
    "performer_features": 24,
    "performer_chunk": SIZE,
}
VARIANTS = {
    "linformer": {"attention_type": "linformer"},
    "linformer-content": {"attention_type": "linformer", "linformer_slot_type": "content"},
    "bigbird": {"attention_type": "bigbird"},
    "bigbird-reservoir": {"attention_type": "bigbird", "bigbird_random_type": "reservoir"},
    "window": {"attention_type": "window"},
    "performer": {"attention_type": "performer"},
    "hybrid": {"attention_type": ["vanilla", "linformer"]},
}
CONSTANT = ["linformer", "linformer-content", "bigbird-reservoir", "window", "performer"]  # in decoding memory


def disturbed_model(config):
    """Return a model in evaluation mode, every parameter disturbed, so that none is zero or one."""
    torch.manual_seed(0)
    model = MiniGPTForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def tiny_config(variant, **overrides):
    """Return the config of a two-layer model of a variant."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    fields = {"max_position_embeddings": 160, "pad_token_id": 0, **FIELDS, **VARIANTS.get(variant, {})}
    return MiniGPTConfig(**{**sizes, **fields, **overrides})


def tiny_model(variant, **overrides):
    """Return a two-layer model of a variant, as `disturbed_model` makes them."""
    return disturbed_model(tiny_config(variant, **overrides))


def draw_tokens(*shape, seed=0):
    """Return token ids, none of them padding."""
    return torch.randint(2, 64, shape, generator=torch.Generator().manual_seed(seed))


def draw_states(*shape, count=3, seed=0):
    """Return normal tensors that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(count)]


def assert_equal(actual, expected, atol=1e-5):
    """Compare in float32 to 1e-5, absolutely or relatively."""
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-5)


def left_pad(rows):
    """Return ids and mask (B, T) of rows of different lengths, padded on the left."""
    width = max(len(row) for row in rows)
    ids = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in rows])
    mask = torch.stack([torch.nn.functional.pad(torch.ones_like(row), (width - len(row), 0)) for row in rows])
    return ids, mask
