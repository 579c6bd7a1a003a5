"""Tiny models of every attention variant, with segments and blocks of eight tokens, for the attention tests.

The variant that docs/adding_an_attention.md builds is one of them: its code is taken from that page.
"""

import re
import sys
from pathlib import Path
from types import ModuleType

import torch

from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, make_cache
from tests import reference_attention as reference

PAGE = Path(__file__).parents[1] / "docs" / "adding_an_attention.md"


def run_page(page: Path = PAGE) -> ModuleType:
    """Run the Python blocks of the page in order, as one module, which registers its variant; return that module."""
    module = ModuleType("variant_of_the_page")
    sys.modules[module.__name__] = module  # where torch's compiler looks up what a class's code refers to
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), vars(module))
    return module


page = run_page()

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
    "gated_deltanet_chunk": SIZE,
    "selected_block": SIZE,
    "selected_blocks": 2,
    "selected_window": 2,
}
VARIANTS = {
    "linformer": {"attention_type": "linformer"},
    "linformer-content": {"attention_type": "linformer", "linformer_slot_type": "content"},
    "bigbird": {"attention_type": "bigbird"},
    "bigbird-reservoir": {"attention_type": "bigbird", "bigbird_random_type": "reservoir"},
    "window": {"attention_type": "window"},
    "performer": {"attention_type": "performer"},
    "selected": {"attention_type": "selected"},
    "selected-summary": {"attention_type": "selected", "selected_by": "summary"},
    "selected-searched": {"attention_type": "selected", "selected_exact": 2},  # all boxes of these texts are opened
    "bigbird+selected": {"attention_type": ["bigbird", "selected"]},
    "hybrid": {"attention_type": ["vanilla", "linformer"]},
    "gated_deltanet": {"attention_type": "gated_deltanet"},
    "gated_deltanet-heads": {"attention_type": "gated_deltanet", "gated_deltanet_heads": 2},
    "hybrid-gated_deltanet": {"attention_type": ["vanilla", "gated_deltanet"]},
}
VARIANTS["running_mean"] = {"attention_type": "running_mean"}
# A layer's slow oracle, as a function of the layer and of what it projects.
ORACLES = {
    "VanillaAttention": lambda layer, q, k, v: reference.full_attention(q, k, v),
    "LinformerAttention": lambda layer, q, k, v, weights=None: reference.linformer_attention(
        q, k, v, layer.positional_weights(q.shape[2], None) if weights is None else weights, SIZE
    ),
    "BigBirdAttention": lambda layer, q, k, v: reference.masked_attention(
        q, k, v, reference.block_mask(layer.pattern, q.shape[2])
    ),
    "WindowAttention": lambda layer, q, k, v: reference.masked_attention(
        q, k, v, reference.block_mask(layer.pattern, q.shape[2])
    ),
    "PerformerAttention": lambda layer, q, k, v: reference.performer_attention(q, k, v, layer.features),
    "GatedDeltaNetAttention": lambda layer, streams, beta, log_decay: reference.gated_delta_attention(
        streams, beta, log_decay, layer.convolution, layer.config.gated_deltanet_heads
    ),
    "SelectedAttention": lambda layer, *inputs: reference.selected_attention(
        *inputs, block=layer.block, count=layer.count, window=layer.window
    ),
    "RunningMeanAttention": page.running_mean_oracle,
}
# What a layer does with its oracle's output before its last projection, as a function of its hidden states, too.
OUTPUTS = {
    "GatedDeltaNetAttention": lambda layer, mixed, hidden: reference.gated_norm(
        mixed, layer.gate_proj(hidden), layer.o_norm.weight
    ),
}


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


# Variants with the same attention in every layer, which need not have two.
UNIFORM = [name for name, fields in VARIANTS.items() if isinstance(fields["attention_type"], str)]
HYBRIDS = [name for name in VARIANTS if name not in UNIFORM]
# Of the uniform ones, those that decode in constant memory, and so cannot take tokens back.
CONSTANT = [name for name in UNIFORM if not make_cache(tiny_config(name)).is_croppable]
CROPPABLE = [name for name in VARIANTS if make_cache(tiny_config(name)).is_croppable]


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


def logits_of(model, ids, **settings):
    """Return the logits of a text read in one pass, without a cache."""
    with torch.no_grad():
        return model(ids, use_cache=False, **settings).logits
