"""Causal self-attention of MiniGPT: one class a variant, all with one signature, in `ATTENTION_CLASSES`.

A variant maps hidden states (B, T, C) to (B, T, C). Kernels of the vanilla variant (`eager`, `sdpa`,
`flex_attention`, …) are the Hub library's `attn_implementation`: equivalent functions, chosen at load time and never
stored, whereas `attention_type` changes the function itself and is part of the config. How to write a variant is in
docs/adding_an_attention.md.
"""

from functools import partial

import torch
from torch import nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention_base_minigpt import SelfAttention, call_in_fp32_on_cpu
from .block_attention_minigpt import BigBirdAttention, WindowAttention
from .configuration_minigpt import MiniGPTConfig
from .gated_deltanet_attention_minigpt import GatedDeltaNetAttention
from .linformer_attention_minigpt import LinformerAttention
from .performer_attention_minigpt import PerformerAttention
from .selected_attention_minigpt import SelectedAttention


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend by plain matrix products: the readable form, and the one that returns weights (B, H, T, S).

    `query` is (B, H, T, D), `key` and `value` (B, H, S, D), `attention_mask` additive and broadcast to (B, H, T, S).
    """
    scores = query @ key.mT * scaling  # (B, H, T, S)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    if attention_mask is not None:
        # A query that may see nothing would see everything alike: a softmax of equal scores is their mean.
        weights = weights.masked_fill(attention_mask <= torch.finfo(attention_mask.dtype).min, 0.0)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights  # (B, T, H, D)


class VanillaAttention(SelfAttention):
    """Full causal attention: every token sees all tokens before it, O(T²) time (Vaswani et al. 2017, section 3.2)."""

    @classmethod
    def make_cache_layer(cls, config: MiniGPTConfig, layer_idx: int) -> DynamicLayer:
        """Make the library's layer, which keeps all keys and values."""
        return DynamicLayer()

    @classmethod
    def cache_signature(cls, config: MiniGPTConfig, layer_idx: int) -> None:
        """Take any of the library's layers."""
        return None

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Map (B, T, C) to (B, T, C); the second result is the weights (B, H, T, S) where the kernel yields them."""
        query, key, value = self.project(hidden_states, position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (B, H, S, D)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        settings = {"dropout": self.dropout, "scaling": self.scaling, **kwargs}
        mixed, weights = call_in_fp32_on_cpu(
            partial(attend, self), query, key, value, attention_mask, **settings
        )  # (B, T, H, D)
        return self.o_proj(mixed.reshape(*hidden_states.shape[:-1], -1).contiguous()), weights


# The only list of the variants: a config's `attention_type` is one of these names.
ATTENTION_CLASSES: dict[str, type[SelfAttention]] = {
    "vanilla": VanillaAttention,
    "linformer": LinformerAttention,
    "bigbird": BigBirdAttention,
    "window": WindowAttention,
    "performer": PerformerAttention,
    "gated_deltanet": GatedDeltaNetAttention,
    "selected": SelectedAttention,
}
