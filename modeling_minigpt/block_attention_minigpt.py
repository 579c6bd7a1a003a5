"""BigBird and sliding-window attention: two block tables of `block_sparse_minigpt`, one class of attention.

BigBird is Zaheer et al. 2020 (arXiv 2007.14062, section 2), made causal; the window with sinks is StreamingLLM's
pattern (Xiao et al. 2024, arXiv 2309.17453, section 3.2).
"""

from functools import cache

import torch
from torch.nn.attention.flex_attention import flex_attention

from .attention_base_minigpt import LinearTimeAttention, place, take
from .block_sparse_minigpt import (
    BlockPattern,
    block_attention,
    flex_block_mask,
    gather_attention,
    row_mask,
)
from .configuration_minigpt import MiniGPTConfig


@cache
def compiled_flex_attention():
    """Compile FlexAttention once; uncompiled it would build all T² scores."""
    return torch.compile(flex_attention)


class BlockAttention(LinearTimeAttention):
    """Attention through a block table, any T, O(T·c·b·D).

    The kernel follows `attn_implementation`: "flex_attention" is FlexAttention on CUDA, whose lists of tiles are
    O((T / 128)²); all else, and every step with a cache, gathers blocks. All are one function.
    """

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.pattern = BlockPattern.from_config(config, layer_idx)

    def attend(self, query, key, value, *, state=None, added=None):
        """Mix the values: (B, H, T, D)."""
        length, kernel = query.shape[2], self.config._attn_implementation
        if state is not None:
            return self.attend_cached(query, key, value, state, added)
        if kernel == "flex_attention" and query.is_cuda and not self.dropout:  # which FlexAttention cannot drop
            mask = flex_block_mask(self.pattern, length, query.device)
            query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves rotated ones in float32
            return compiled_flex_attention()(query, key, value, block_mask=mask, scale=self.scaling)
        return block_attention(query, key, value, self.pattern, self.scaling, self.dropout)

    def attend_cached(self, query, key, value, state, added) -> torch.Tensor:
        """Attend from new tokens (B, H, T, D) to the cached blocks and to each other, and advance the state."""
        length, block = query.shape[2], self.pattern.block
        state.lazy_initialization(key, value)
        counts = state.counts
        keys, values, ids, slots = state.update(key, value, added)  # (B, H, n, b, D) twice, (B, H, nq, c) twice
        if length == 1:
            positions = counts[:, None, None]  # (B, 1, 1)
            mask = row_mask(self.pattern, ids, positions[:, None])
            return gather_attention(query[:, :, None], keys, values, slots, mask, self.scaling, self.dropout)[:, :, 0]
        rows = ids.shape[2]
        laid = query.new_zeros(*query.shape[:2], rows * block, query.shape[3])
        laid = place(laid, query, counts % block)  # queries in whole blocks, as the table has them
        positions = torch.arange(rows * block, device=counts.device) + (counts // block * block)[:, None]
        mask = row_mask(self.pattern, ids, positions.unflatten(1, (rows, block))[:, None])  # (B, H, nq, b, c·b)
        laid = laid.unflatten(2, (rows, block))  # (B, H, nq, b, D)
        mixed = gather_attention(laid, keys, values, slots, mask, self.scaling, self.dropout)
        return take(mixed.flatten(2, 3), length, counts % block)  # (B, H, T, D)


class BigBirdAttention(BlockAttention):
    """Causal BigBird: global blocks, a window of blocks, and random blocks in between."""


class WindowAttention(BlockAttention):
    """Causal sliding window with sinks: the last `window_size` tokens and the first `window_sinks`."""
