"""BigBird and sliding-window attention: two block tables of `block_sparse_minigpt`, one class of attention.

BigBird is Zaheer et al. 2020 (arXiv 2007.14062, section 2), made causal; the window with sinks is StreamingLLM's
pattern (Xiao et al. 2024, arXiv 2309.17453, section 3.2).
"""

from dataclasses import replace
from functools import cache

import torch
from torch.nn.attention.flex_attention import flex_attention

from .attention_base_minigpt import (
    LinearTimeAttention,
    blocks_touched,
    gather_tokens,
    into_open_blocks,
    positions_in_blocks,
    scatter_tokens,
    write_tokens,
)
from .block_sparse_minigpt import (
    BlockPattern,
    block_attention,
    block_table,
    flex_block_mask,
    gather_attention,
    row_mask,
)
from .cache_layers_minigpt import StateCacheLayer
from .configuration_minigpt import MiniGPTConfig


class BlockCache(StateCacheLayer):
    """Keys and values in blocks; `update` finds among them the blocks that the new tokens' rows list."""

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.pattern = BlockPattern.from_config(config, layer_idx)

    def rows(self, length: int) -> torch.Tensor:
        """Return the table rows (B, H, nq, c) of the blocks that the next `length` tokens can be in."""
        block = self.pattern.block
        counts = self.state["counts"]
        count = blocks_touched(length, block)
        numbers = (counts // block)[:, None] + torch.arange(count, device=counts.device)  # (B, nq)
        table = block_table(self.pattern, -(-self.cumulative_length // block) + count, counts.device)
        return table[:, numbers].transpose(0, 1)


class FullBlockCache(BlockCache):
    """Every key and value, for tables that may list any old block; a step still reads c blocks only.

    2TD numbers per head, in a buffer that doubles.
    """

    is_croppable = True

    def init_state(self, like):
        return {name: like.new_zeros(*like.shape[:2], 0, like.shape[3]) for name in ("keys", "values")}

    def update(self, key_states, value_states, lengths=None):
        """Append T tokens.

        Returns:
            Blocks of keys and of values (B, H, n, b, D), the rows of the new tokens' blocks and the slots of these
            rows' blocks among the n, each (B, H, nq, c).
        """
        length = key_states.shape[2]
        block = self.pattern.block
        ids = self.rows(length)
        needed = (-(-self.cumulative_length // block) + ids.shape[2]) * block
        for name, new in (("keys", key_states), ("values", value_states)):
            self.state[name] = write_tokens(self.state[name], new, self.counts, needed)
        self.advance(length, lengths)
        blocks = (self.state[name].unflatten(2, (-1, block)) for name in ("keys", "values"))
        return *blocks, ids, ids.clamp(min=0)

    def can_remove(self, removed):
        return True


class RecentBlockCache(BlockCache):
    """The c blocks of the next token's row: enough where each row's blocks are the last row's, or new.

    2cbD numbers per head. A block leaves once the next row does not list it, after which no row does. With blocks of 2
    tokens, 1 global block, a window of 2, and 5 tokens seen, the next token is in block 2, whose row lists blocks
    0 | 1 2. These three are stored, block 2 half full ("open"). After 6 tokens the next one starts block 3, whose row
    lists 0 | 2 3: block 1 has left, and block 3 is stored empty.
    """

    def init_state(self, like):
        batch, heads, _, dim = like.shape
        blocks = like.new_zeros(batch, heads, self.pattern.blocks_per_query, self.pattern.block, dim)
        none_yet = torch.full(blocks.shape[:3], -1, device=like.device)
        return {"keys": blocks, "values": blocks.clone(), "ids": none_yet}

    def update(self, key_states, value_states, lengths=None):
        """Append T tokens; return as `FullBlockCache.update`."""
        length = key_states.shape[2]
        block = self.pattern.block
        ids = self.rows(length)  # (B, H, nq, c)
        first = (self.counts // block)[:, None, None, None]  # (B, 1, 1, 1), the block of the next token
        slots = self.find_slots(ids, first)
        # The new tokens continue the open block, so that block is copied to the front of what is new.
        open_slot = self.find_slots(first.expand(-1, ids.shape[1], 1, 1), first, include_open_block=True)
        joined = []
        for name, new in (("keys", key_states), ("values", value_states)):
            stored = self.state[name]  # (B, H, c, b, D)
            open_block = stored.gather(2, open_slot[..., None].expand(-1, -1, 1, *stored.shape[3:])).flatten(2, 3)
            room = stored.new_zeros(*new.shape[:2], (ids.shape[2] - 1) * block, new.shape[3])
            fresh = scatter_tokens(torch.cat((open_block, room), dim=2), new, self.counts % block)  # (B, H, nq·b, D)
            joined.append(torch.cat((stored, fresh.unflatten(2, (-1, block))), dim=2))  # (B, H, c + nq, b, D)
        self.advance(length, lengths)
        next_row = self.rows(1)  # (B, H, 1, c), of the token after these
        last_slot = self.pattern.blocks_per_query + ids.shape[2] - 1
        kept = self.find_slots(next_row, first).clamp(max=last_slot)[:, :, 0, :, None, None]  # (B, H, c, 1, 1)
        for name, states in zip(("keys", "values"), joined, strict=True):
            self.state[name] = states.gather(2, kept.expand(-1, -1, -1, *states.shape[3:]))
        self.state["ids"] = next_row[:, :, 0]
        return *joined, ids, slots

    def find_slots(self, ids: torch.Tensor, first: torch.Tensor, include_open_block: bool = False) -> torch.Tensor:
        """Find blocks `ids` (B, H, ·, ·): among the c stored ones, or behind them from block `first` on.

        With `include_open_block`, block `first` is looked up among the stored ones, where its earlier tokens are.
        """
        stored = (ids[..., None] == self.state["ids"][:, :, None, None]).to(torch.uint8).argmax(-1)
        if include_open_block:
            return stored
        return torch.where(ids >= first, self.pattern.blocks_per_query + ids - first, stored)

    def can_remove(self, removed):
        block = self.pattern.block
        return torch.equal(self.counts // block, (self.counts - removed) // block)


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
        self._pattern = BlockPattern.from_config(config, layer_idx)

    @property
    def pattern(self) -> BlockPattern:
        """Which keys a query sees; with a new `layer_idx` the random blocks are that layer's, as once it is loaded."""
        if self._pattern.random_blocks and self._pattern.layer != self.layer_idx:
            self._pattern = replace(self._pattern, layer=self.layer_idx)
        return self._pattern

    @classmethod
    def make_cache_layer(cls, config, layer_idx):
        """Make a cache of the c blocks that can still be listed, or of all blocks where any old one can be."""
        bounded = BlockPattern.from_config(config, layer_idx).has_bounded_state
        return (RecentBlockCache if bounded else FullBlockCache)(config, layer_idx)

    def attend(self, query, key, value, *, state=None, lengths=None):
        """Mix the values: (B, H, T, D)."""
        if state is not None:
            return self.attend_cached(query, key, value, state, lengths)
        if self.uses_flex_attention(query):
            mask = flex_block_mask(self.pattern, query.shape[2], query.device)
            query = query.to(value.dtype)  # autocast leaves rotated ones in float32
            key = key.to(value.dtype)
            return compiled_flex_attention()(query, key, value, block_mask=mask, scale=self.scaling)
        return block_attention(query, key, value, self.pattern, self.scaling, self.dropout)

    def uses_flex_attention(self, query: torch.Tensor) -> bool:
        """Return whether FlexAttention computes this call: on CUDA, where asked for and nothing is to be dropped."""
        wanted = self.config._attn_implementation == "flex_attention"
        return wanted and query.is_cuda and not self.dropout

    def attend_cached(self, query, key, value, state, lengths) -> torch.Tensor:
        """Attend from new tokens (B, H, T, D) to the cached blocks and to each other, and advance the state."""
        length = query.shape[2]
        block = self.pattern.block
        state.lazy_initialization(key, value)
        counts = state.counts
        keys, values, ids, slots = state.update(key, value, lengths)  # (B, H, n, b, D) twice, (B, H, nq, c) twice
        if length == 1:
            positions = counts[:, None, None]  # (B, 1, 1)
            mask = row_mask(self.pattern, ids, positions[:, None])
            return gather_attention(query[:, :, None], keys, values, slots, mask, self.scaling, self.dropout)[:, :, 0]
        # The queries go where they are in whole blocks, as the table lists these: row b starts inside its open block.
        blocks = into_open_blocks(query, counts, block)  # (B, H, nq, b, D)
        positions = positions_in_blocks(counts, length, block)  # (B, nq, b)
        mask = row_mask(self.pattern, ids, positions[:, None])  # (B, H, nq, b, c·b)
        mixed = gather_attention(blocks, keys, values, slots, mask, self.scaling, self.dropout)
        return gather_tokens(mixed.flatten(2, 3), length, counts % block)  # (B, H, T, D)


class BigBirdAttention(BlockAttention):
    """Causal BigBird: global blocks, a window of blocks, and random blocks in between."""

    @classmethod
    def check_config(cls, config):
        """Refuse a pattern that lists more blocks than the context has."""
        blocks = -(-config.max_position_embeddings // config.bigbird_block)
        if config.bigbird_window + config.bigbird_random > blocks:
            raise ValueError(
                f"bigbird_window ({config.bigbird_window}) and bigbird_random ({config.bigbird_random}) must be at "
                f"most the {blocks} blocks of {config.bigbird_block} that max_position_embeddings "
                f"({config.max_position_embeddings}) holds"
            )


class WindowAttention(BlockAttention):
    """Causal sliding window with sinks: the last `window_size` tokens and the first `window_sinks`."""
