"""Causal self-attention of MiniGPT: one class a variant, all with one signature, in `ATTENTION_CLASSES`.

A variant maps hidden states (B, T, C) to (B, T, C). Kernels of the vanilla variant (`eager`, `sdpa`,
`flex_attention`, …) are the Hub library's `attn_implementation`: equivalent functions, chosen at load time and never
stored, whereas `attention_type` changes the function itself and is part of the config.
"""

import torch
from torch import nn
from transformers import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_minigpt import MiniGPTConfig


class MiniGPTRotaryEmbedding(nn.Module):
    """Cosines and sines of the rotary position embedding (Su et al. 2021, section 3.2.2)."""

    def __init__(self, config: MiniGPTConfig):
        super().__init__()
        self.config = config
        self.register_buffer("inv_freq", self.compute_inv_freq(), persistent=False)  # (D/2,)

    def compute_inv_freq(self) -> torch.Tensor:
        """Return the inverse wavelengths (D/2,), in radians per token; also how `_init_weights` restores them."""
        steps = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32) / self.config.head_dim
        return 1.0 / self.config.rope_parameters["rope_theta"] ** steps

    @torch.no_grad()
    def forward(self, hidden_states: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin, each (B, 1, T, D), in the dtype of `hidden_states`; `position_ids` is (B or 1, T)."""
        angles = position_ids[:, None, :, None].float() * self.inv_freq.float()  # (B, 1, T, D/2)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(hidden_states.dtype), angles.sin().to(hidden_states.dtype)


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate `states` (B, H, T, D), whose halves hold the pairs' first and second coordinates."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


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
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights  # (B, T, H, D)


class VanillaAttention(nn.Module):
    """Full causal attention: every token sees all tokens before it, O(T²) time (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        width, bias = config.hidden_size, config.use_bias
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.k_proj = nn.Linear(width, width, bias=bias)
        self.v_proj = nn.Linear(width, width, bias=bias)
        self.o_proj = nn.Linear(width, width, bias=bias)
        self.o_proj.starts_at_zero = config.zero_init_residual
        norm = {"normalized_shape": self.head_dim, "eps": config.norm_eps}
        self.q_norm = nn.RMSNorm(**norm) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(**norm) if config.qk_norm else nn.Identity()

    def project(
        self, hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries, keys and values, each (B, H, T, D), normalised and rotated as the config says."""
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_norm(self.q_proj(hidden_states).view(heads)).transpose(1, 2)
        key = self.k_norm(self.k_proj(hidden_states).view(heads)).transpose(1, 2)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        if position_embeddings is not None:
            query, key = rotate(query, *position_embeddings), rotate(key, *position_embeddings)
        return query, key, value

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
        dropout = self.attention_dropout if self.training else 0.0
        mixed, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )  # (B, T, H, D)
        return self.o_proj(mixed.reshape(*hidden_states.shape[:-1], -1).contiguous()), weights


ATTENTION_CLASSES = {"vanilla": VanillaAttention}
