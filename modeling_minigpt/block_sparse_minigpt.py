"""Block-sparse causal attention behind one table: `block_table` (H, nb, c) says which key blocks a query block sees.

From the table and `BlockPattern.token_mask`, the rule for single tokens, come three equivalent kernels: a dense mask
(`dense_mask`, for inspection and tests), a gather that trains in O(T) on any device (`gather_attention`), and a
FlexAttention `BlockMask` (`flex_block_mask`, for CUDA). BigBird and sliding windows with sinks are such tables.

A table of one head, with 1 global block, 1 random block and a window of 2 (columns in this order, -1 for none):

    query block   global  random  window
    0               -1      -1    -1  0     the window's own block is all there is
    1               -1      -1     0  1     block 0 is in the window, so it is not listed again as global
    2                0      -1     1  2     nothing is between the global block and the window yet
    3                0       1     2  3     one candidate, block 1
    4                0       2     3  4     one of blocks 1 and 2, by a hash of (seed, layer, head, 4)
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask

from .attention_base_minigpt import call_in_fp32_on_cpu, chunk, unchunk
from .configuration_minigpt import MiniGPTConfig

UINT32_MASK = 0xFFFFFFFF
FLEX_TILE = 128  # tokens; the largest tile of FlexAttention's kernels, forward and backward, on today's GPUs


def counter_hash(*counters: int | torch.Tensor) -> torch.Tensor:
    """Hash integers, broadcast together, to 32 bits (int64 tensor): the same on every machine and for every length.

    Each counter is folded in by Wellons' `lowbias32` finaliser.
    """
    # Products overflow int64, which leaves their low 32 bits right, and no other bits are used.
    state = torch.zeros((), dtype=torch.int64)
    for counter in counters:
        state = (state * 0x9E3779B1 + counter + 0x7F4A7C15) & UINT32_MASK
        state = ((state ^ (state >> 16)) * 0x7FEB352D) & UINT32_MASK
        state = ((state ^ (state >> 15)) * 0x846CA68B) & UINT32_MASK
        state = state ^ (state >> 16)
    return state


@dataclass(frozen=True)
class BlockPattern:
    """Which keys a query sees: global blocks, a window of blocks up to its own, and random blocks between them.

    Query block i, of `block` tokens, sees blocks [0, global_blocks), (i - window_blocks, i] and `random_blocks`
    different ones of [global_blocks, i - window_blocks], or all of these where they are fewer.

    Attributes:
        block: tokens of a block, b.
        random_type: "rows" samples each row's random blocks independently; "reservoir" keeps the last row's and lets
            the block that leaves the window replace one, as in reservoir sampling: each row alone is as uniform, but
            a block that a head has dropped never returns, so that decoding needs c blocks and no more.
        seed, layer, heads: counters of the random numbers; every head samples its own blocks.
        span, sinks: where `span` is set, only the last `span` tokens and the first `sinks` tokens are seen.
    """

    block: int
    global_blocks: int
    window_blocks: int
    random_blocks: int = 0
    random_type: str = "rows"
    seed: int = 0
    layer: int = 0
    heads: int = 1
    span: int | None = None
    sinks: int = 0

    @classmethod
    def from_config(cls, config: MiniGPTConfig, layer_idx: int) -> "BlockPattern":
        """Read the pattern of layer `layer_idx`, which is bigbird or window attention."""
        if config.layer_attention_types[layer_idx] == "bigbird":
            return cls(
                block=config.bigbird_block,
                global_blocks=config.bigbird_global,
                window_blocks=config.bigbird_window,
                random_blocks=config.bigbird_random,
                random_type=config.bigbird_random_type,
                seed=config.bigbird_seed,
                layer=layer_idx,
                heads=config.num_attention_heads,
            )
        block = config.window_block
        return cls(
            block=block,
            global_blocks=-(-config.window_sinks // block),
            window_blocks=-(-(config.window_size - 1) // block)
            + 1,  # what the first token of a block sees, and its own block
            heads=config.num_attention_heads,
            span=config.window_size,
            sinks=config.window_sinks,
        )

    @property
    def blocks_per_query(self) -> int:
        """Key blocks of a row of the table, c."""
        return self.global_blocks + self.random_blocks + self.window_blocks

    @property
    def has_bounded_state(self) -> bool:
        """Whether each row's blocks are among the last row's, or new: then all others can be forgotten."""
        return self.random_blocks == 0 or self.random_type == "reservoir"

    def token_mask(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return whether a query sees a key of a block it sees; positions in tokens, broadcast together."""
        seen = key <= query
        if self.span is not None:
            seen = seen & ((key > query - self.span) | (key < self.sinks))
        return seen


def sample_blocks_per_row(pattern: BlockPattern, candidates: torch.Tensor) -> torch.Tensor:
    """Sample (H, nb, r) different numbers below `candidates` (nb,), row by row; -1 where there are too few.

    Floyd's algorithm: for 2 of 5, draw one of 0…3, then one of 0…4; a repeated draw is replaced by the largest number
    that was possible (3, then 4), which no earlier draw can have been.
    """
    wanted = pattern.random_blocks
    device = candidates.device
    heads = torch.arange(pattern.heads, device=device)[:, None]
    rows = torch.arange(len(candidates), device=device)
    sampled = torch.full((pattern.heads, len(candidates), wanted), -1, device=device)
    for index in range(wanted):
        top = (candidates - wanted + index).clamp(min=0)
        draw = counter_hash(pattern.seed, pattern.layer, heads, rows, index) % (top + 1)  # (H, nb)
        repeated = (sampled == draw[..., None]).any(-1)
        draw = torch.where(repeated, top, draw)
        all_of_them = torch.where(candidates > index, index, -1)  # no choice where there are at most r candidates
        sampled[..., index] = torch.where(candidates >= wanted, draw, all_of_them)
    return sampled


def sample_blocks_reservoir(pattern: BlockPattern, candidates: torch.Tensor) -> torch.Tensor:
    """Sample as `sample_blocks_per_row`, each row one step of reservoir sampling after the last (Vitter 1985, R).

    With r = 2, items 0 and 1 fill places 0 and 1. Item 2 draws a place below 3: place 0 or 1 is overwritten, place 2
    means that the item is dropped. What is in a place is the largest item so far that drew it, hence the `cummax`.
    """
    device = candidates.device
    items = torch.arange(len(candidates), device=device)
    heads = torch.arange(pattern.heads, device=device)[:, None]
    place = counter_hash(pattern.seed, pattern.layer, heads, items) % (items + 1)
    place = torch.where(items < pattern.random_blocks, items, place)  # (H, items): the first r fill the reservoir
    is_here = place[..., None] == torch.arange(pattern.random_blocks, device=device)
    reservoir = torch.where(is_here, items[:, None], -1).cummax(dim=1).values  # (H, items, r), after each item
    return torch.where(candidates[:, None] > 0, reservoir[:, (candidates - 1).clamp(min=0)], -1)  # (H, nb, r)


def make_table(pattern: BlockPattern, blocks: int, device: torch.device) -> torch.Tensor:
    """Make what `block_table` returns."""
    rows = torch.arange(blocks, device=device)
    first = rows - pattern.window_blocks + 1  # of the window
    window = (first[:, None] + torch.arange(pattern.window_blocks, device=device)).clamp(min=-1)  # (nb, w)
    fixed = torch.arange(pattern.global_blocks, device=device).expand(blocks, -1)
    fixed = torch.where(fixed < first[:, None], fixed, -1)  # (nb, g): no block of the window is listed twice
    sample = sample_blocks_reservoir if pattern.random_type == "reservoir" else sample_blocks_per_row
    sampled = sample(pattern, (first - pattern.global_blocks).clamp(min=0))  # (H, nb, r)
    sampled = torch.where(sampled >= 0, sampled + pattern.global_blocks, -1)
    heads = (pattern.heads, -1, -1)
    return torch.cat((fixed.expand(heads), sampled, window.expand(heads)), dim=-1)


@lru_cache(maxsize=128)
def _build_table(pattern: BlockPattern, blocks: int, device: torch.device) -> torch.Tensor:
    # One made in inference mode must serve a later training step too.
    with torch.inference_mode(False), torch.device("cpu"):
        return make_table(pattern, blocks, torch.device("cpu")).to(device)


def block_table(pattern: BlockPattern, blocks: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the key blocks of each query block, (H, nb, c) int64: global, random, window; -1 for none.

    A row depends on its number only: the table of a longer text starts with a shorter one's.
    """
    device = torch.device(device)
    if torch.compiler.is_compiling():  # a graph makes its own, for every length: a stored one would have one length
        return make_table(pattern, blocks, device)
    size = 16
    while size < blocks:  # powers of two, so that a growing text finds its table cached
        size *= 2
    return _build_table(pattern, size, device)[:, :blocks]


def block_map(pattern: BlockPattern, blocks: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the table as booleans (H, nb, nb): does query block i see key block j?"""
    table = block_table(pattern, blocks, device)
    seen = torch.zeros(pattern.heads, blocks, blocks + 1, dtype=torch.bool, device=device)
    return seen.scatter_(2, table % (blocks + 1), True)[..., :blocks]  # -1 lands in the extra column


def dense_mask(pattern: BlockPattern, length: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the mask (H, T, T) of booleans, True where a query sees a key: O(T²), for inspection and tests."""
    positions = torch.arange(length, device=device)
    blocks = positions // pattern.block
    seen = block_map(pattern, -(-length // pattern.block), device)[:, blocks][:, :, blocks]
    return seen & pattern.token_mask(positions[:, None], positions)


def row_mask(pattern: BlockPattern, ids: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Return what queries at positions (..., l) see of the key blocks (..., c): booleans (..., l, c·b)."""
    keys = ids[..., None] * pattern.block + torch.arange(pattern.block, device=ids.device)  # (..., c, b)
    # A missing block gets positions that no query ever reaches.
    keys = torch.where(ids[..., None] >= 0, keys, torch.iinfo(torch.int64).max).flatten(-2)
    return pattern.token_mask(queries[..., :, None], keys[..., None, :])


def gather_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    slots: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attend from query blocks to gathered key blocks by one fused kernel: O(nq·l·c·b·D).

    Args:
        query: (B, H, nq, l, D).
        key, value: blocks to choose from, (B, H, n, b, D); values may have another width.
        slots: blocks to gather for each query block, (B or 1, H, nq, c), in [0, n).
        mask: True where a query sees a key, (B or 1, H or 1, nq or 1, l, c·b).

    Returns:
        Mixed values (B, H, nq, l, D).
    """
    batch, heads, blocks, width = key.shape[:4]
    rows, columns = slots.shape[-2:]
    first = torch.arange(batch * heads, device=key.device).view(batch, heads, 1, 1) * blocks
    index = (first + slots).flatten()  # into the blocks of all heads of all rows
    key, value = (
        states.flatten(0, 2).index_select(0, index).view(batch, heads * rows, columns * width, -1)
        for states in (key, value)
    )
    shared = mask.shape[1] == mask.shape[2] == 1
    mask = mask.flatten(1, 2) if shared else mask.expand(-1, heads, rows, -1, -1).flatten(1, 2)
    kernel = nn.functional.scaled_dot_product_attention
    settings = {"attn_mask": mask, "dropout_p": dropout, "scale": scaling}
    mixed = call_in_fp32_on_cpu(kernel, query.flatten(1, 2), key, value, **settings)  # (B, H·nq, l, D)
    return mixed.unflatten(1, (heads, rows))


def block_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pattern: BlockPattern,
    scaling: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attend over a whole text (B, H, T, D), any T, through its table: the path that trains, O(T·c·b·D)."""
    length = query.shape[2]
    block = pattern.block
    blocks = -(-length // block)
    query, key, value = (chunk(states, block) for states in (query, key, value))  # (B, H, nb, b, D)
    table = block_table(pattern, blocks, query.device)
    positions = torch.arange(blocks * block, device=query.device).view(blocks, block)
    # From row c - 1 on all c blocks exist and lie at the same distances from the query: one mask serves them all, so
    # the second part's mask is made of its first row alone.
    first = min(pattern.blocks_per_query - 1, blocks)
    parts = [states.split((first, blocks - first), dim) for states, dim in ((query, 2), (table, 1), (positions, 0))]
    mixed = []
    for queries, ids, tokens, masked_rows in zip(*parts, (None, 1), strict=True):
        if ids.shape[1]:
            mask = row_mask(pattern, ids[:masked_rows, :masked_rows], tokens[:masked_rows])[None]
            slots = ids.clamp(min=0)[None]
            mixed.append(gather_attention(queries, key, value, slots, mask, scaling, dropout))
    return unchunk(torch.cat(mixed, dim=2), length)


def count_block_pairs(pattern: BlockPattern, table: torch.Tensor, tiles: int, ratio: int) -> torch.Tensor:
    """Count the (query block, key block) pairs of a table (H, nb, c) in each pair of tiles, (H, tiles, tiles).

    A tile is `ratio` blocks wide.
    """
    rows = torch.arange(table.shape[1], device=table.device)[:, None] // ratio
    columns = torch.where(table >= 0, table // ratio, tiles)  # a missing block is counted in an extra column
    index = (rows * (tiles + 1) + columns).flatten(1)
    pairs = torch.zeros(pattern.heads, tiles * (tiles + 1), dtype=torch.int32, device=table.device)
    pairs.scatter_add_(1, index, torch.ones_like(index, dtype=torch.int32))
    return pairs.view(pattern.heads, tiles, tiles + 1)[..., :tiles]


def count_and_list(wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for each query tile, how many key tiles are wanted, and their numbers, the others after them.

    The row [no, yes, no, yes] of (H, tiles, tiles) becomes the count 2 and the list [1, 3, 0, 2]. Both have a batch
    dimension of one in front, as FlexAttention reads them.
    """
    numbers = wanted.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)
    return wanted.sum(-1, dtype=torch.int32)[None], numbers.to(torch.int32)[None].contiguous()


@lru_cache(maxsize=16)
def flex_block_mask(pattern: BlockPattern, length: int, device: torch.device | str = "cpu") -> BlockMask:
    """Return the table as a FlexAttention `BlockMask`, without evaluating T² entries.

    Its tiles are `FLEX_TILE` tokens or a multiple, as the GPU kernels need them; within a tile the table's own blocks
    decide. It is cached, since every layer of every step asks for it: (T / tile)² small integers a head.
    """
    tile = math.lcm(pattern.block, FLEX_TILE)
    ratio = tile // pattern.block
    tiles = -(-length // tile)
    with torch.inference_mode(False):
        table = block_table(pattern, tiles * ratio, device)  # (H, rows of whole tiles, c)
        pairs = count_block_pairs(pattern, table[:, : -(-length // pattern.block)], tiles, ratio)
        # A tile wholly before the queries', all of whose pairs are listed, needs no token rule, unless a span cuts it.
        numbers = torch.arange(tiles, device=device)
        whole = (pairs == ratio**2) & (numbers < numbers[:, None]) & (pattern.span is None)
        partial = (pairs > 0) & ~whole

    def mask_mod(batch, head, query, key):
        row = query // pattern.block
        key_block = key // pattern.block
        seen = table[head, row, 0] == key_block
        for column in range(1, pattern.blocks_per_query):
            seen = seen | (table[head, row, column] == key_block)
        return seen & pattern.token_mask(query, key)

    return BlockMask.from_kv_blocks(
        *count_and_list(partial),
        *count_and_list(whole),
        BLOCK_SIZE=tile,
        mask_mod=mask_mod,
        seq_lengths=(length, length),
    )
