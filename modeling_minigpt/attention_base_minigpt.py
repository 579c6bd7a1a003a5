"""What every attention variant of MiniGPT shares: rotary positions, projections, and where a batch's real tokens are.

The linear-time variants have patterns (segments, blocks) that count from a row's first real token. They get there by
moving each row's real tokens to its front, after which padding stands on the right, where causality makes it harmless:
no variant ever looks at a padding mask, and a padded row equals the row alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Cache
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from .configuration_minigpt import MiniGPTConfig


class MiniGPTRotaryEmbedding(LlamaRotaryEmbedding):
    """Cosines and sines of the rotary position embedding (Su et al. 2021, section 3.2.2), the Hub library's own.

    Called with any tensor, for its dtype and device, and `position_ids` (B or 1, T), it returns cos and sin, each
    (B or 1, T, D). `config.rope_parameters` may name any scaling that the library knows ("linear", "yarn", …).
    """


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate `states` (B, H, T, D), whose halves hold the pairs' first and second coordinates, by (B or 1, T, D)."""
    cos, sin = cos[:, None], sin[:, None]
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


def call_in_fp32_on_cpu(
    kernel: Callable, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *mask, **settings
):
    """Return `kernel(query, key, value, …)`, attention in whatever form; under CPU autocast in float32.

    The gradient of torch's own CPU kernel takes some twenty times as long in bfloat16.
    """
    if not (query.is_cpu and torch.is_autocast_enabled("cpu")):
        return kernel(query, key, value, *mask, **settings)
    with torch.autocast("cpu", enabled=False):
        return kernel(query.float(), key.float(), value.float(), *mask, **settings)


class MiniGPTHeadRMSNorm(nn.RMSNorm):
    """RMSNorm of each head's queries or keys, in the format of its weight: autocast projects to a shorter one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.weight.dtype))


class SelfAttention(nn.Module):
    """The four projections and the norms of queries and keys: what a variant starts from."""

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
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
        self.q_norm = MiniGPTHeadRMSNorm(**norm) if config.qk_norm else nn.Identity()
        self.k_norm = MiniGPTHeadRMSNorm(**norm) if config.qk_norm else nn.Identity()

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

    @property
    def dropout(self) -> float:
        """The probability to drop an attention weight now: none in evaluation."""
        return self.attention_dropout if self.training else 0.0


def chunk(states: torch.Tensor, size: int) -> torch.Tensor:
    """Cut (B, H, T, X) into pieces of `size` tokens, (B, H, n, size, X), the last one filled up with zeros."""
    tail = -states.shape[2] % size
    if tail:  # the library's pad would copy even for none
        states = nn.functional.pad(states, (0, 0, 0, tail))
    return states.unflatten(2, (-1, size))


def unchunk(pieces: torch.Tensor, length: int) -> torch.Tensor:
    """Undo `chunk`: the first `length` tokens of (B, H, n, size, X) as (B, H, T, X)."""
    states = pieces.flatten(2, 3)
    return states if states.shape[2] == length else states[:, :, :length]  # even a whole slice's gradient is a copy


def place(states: torch.Tensor, new: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Write `new` (B, H, T, X) into `states` (B, H, S, X) from each row's place `start` (B,) on, in place."""
    index = start[:, None] + torch.arange(new.shape[2], device=new.device)  # (B, T)
    return states.scatter_(2, index[:, None, :, None].expand_as(new), new.to(states.dtype))


def take(states: torch.Tensor, length: int, start: torch.Tensor) -> torch.Tensor:
    """Read `length` tokens (B, H, T, X) of `states` (B, H, S, X) from each row's place `start` (B,) on."""
    index = start[:, None] + torch.arange(length, device=states.device)  # (B, T)
    return states.gather(2, index[:, None, :, None].expand(*states.shape[:2], -1, states.shape[3]))


@dataclass(frozen=True)
class PaddingInfo:
    """Where a padded batch's real tokens are.

    Attributes:
        added: real tokens of each row among the new ones, (B,).
        order: columns (B, T) that put each row's real tokens first, in their order; None where they stand so already.
    """

    added: torch.Tensor
    order: torch.Tensor | None

    @classmethod
    def from_mask(cls, real: torch.Tensor) -> "PaddingInfo":
        """Read a boolean mask (B, T), True for real tokens; holes between them are allowed."""
        order = real.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)  # (B, T)
        in_place = torch.equal(order, torch.arange(real.shape[1], device=real.device).expand_as(order))
        return cls(added=real.sum(-1), order=None if in_place else order)

    def to_front(self, states: torch.Tensor) -> torch.Tensor:
        """Reorder (B, H, T, X) so that every row starts with its real tokens."""
        if self.order is None:
            return states
        return states.gather(2, self.order[:, None, :, None].expand_as(states))

    def restore(self, states: torch.Tensor) -> torch.Tensor:
        """Undo `to_front`."""
        if self.order is None:
            return states
        return states.gather(2, self.order.argsort(dim=-1)[:, None, :, None].expand_as(states))


class LinearTimeAttention(SelfAttention):
    """The frame of a linear-time variant: project, bring real tokens to the front, `attend`, put them back.

    With `attn_implementation` "eager" a text read in one pass is attended to by its dense weights (B, H, T, T), for
    those who want to see them: O(T²), the same function.
    """

    def streams(
        self, hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, ...]:
        """Return what `attend` reads of each token, every tensor (B, H, T, ·): queries, keys, values, …"""
        return self.project(hidden_states, position_embeddings)

    def attend(self, *streams: torch.Tensor, state=None, added: torch.Tensor | None = None) -> torch.Tensor:
        """Mix the values, (B, H, T, D), or as wide as they are; the result is linear in them.

        `state` is this layer's decoding state, to be read and advanced; `added` (B,) counts each row's real tokens
        among the T columns, all of them when None.
        """
        raise NotImplementedError

    def dense_weights(self, query, key, value, *streams: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        """Return what of each token's value reaches each query, (B, H, T, T): unit vectors, mixed as values are."""
        units = torch.eye(value.shape[2], dtype=value.dtype, device=value.device).expand(*value.shape[:2], -1, -1)
        return self.attend(query, key, units, *streams, added=added)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: PaddingInfo | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Map (B, T, C) to (B, T, C), and with "eager" the weights (B, H, T, T) of a text's first pass.

        The mask is a `PaddingInfo`, or None where every token is real or nobody cares: right padding needs none, as
        causality keeps it from the tokens before it.
        """
        content, weights = attention_mask, None
        state = past_key_values.layers[self.layer_idx] if past_key_values is not None else None
        streams = self.streams(hidden_states, position_embeddings)
        if content is not None:
            streams = tuple(content.to_front(stream) for stream in streams)
        added = None if content is None else content.added
        if self.config._attn_implementation == "eager" and (state is None or not state.get_seq_length()):
            weights = self.dense_weights(*streams, added=added)
        if weights is None or state is not None:
            mixed = self.attend(*streams, state=state, added=added)
        if weights is not None:
            mixed = weights @ streams[2]
        if content is not None:
            mixed = content.restore(mixed)
            weights = None if weights is None else content.restore(content.restore(weights).mT).mT
        return self.o_proj(mixed.transpose(1, 2).reshape(hidden_states.shape)), weights  # (B, T, C)
