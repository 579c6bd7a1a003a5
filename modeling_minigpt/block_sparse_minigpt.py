"""Block-sparse causal attention behind one table: `block_table` (H, nb, c) says which key blocks a query block sees.

From the table and `BlockPattern.allows`, the rule for single tokens, come three equivalent kernels: a dense mask
(`dense_mask`, for eyes and tests), a gather that trains in O(T) on any device (`gather_attention`), and a
FlexAttention `BlockMask` (`flex_block_mask`, for CUDA). BigBird and sliding windows with sinks are such tables.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask

from .attention_base_minigpt import call_in_fp32_on_cpu, chunk, unchunk
from .configuration_minigpt import MiniGPTConfig

WORD = 0xFFFFFFFF
FLEX_TILE = 128  # tokens; the largest tile of FlexAttention's kernels, forward and backward, on today's GPUs


def counter_hash(*counters: int | torch.Tensor) -> torch.Tensor:
    """Hash integers, broadcast together, to 32 bits (int64 tensor): the same on every machine and for every length.

    Each counter is folded in by Wellons' `lowbias32` finaliser. Products wrap in int64, their low 32 bits do not.
    """
    state = torch.zeros((), dtype=torch.int64)
    for counter in counters:
        state = (state * 0x9E3779B1 + counter + 0x7F4A7C15) & WORD
        state = ((state ^ (state >> 16)) * 0x7FEB352D) & WORD
        state = ((state ^ (state >> 15)) * 0x846CA68B) & WORD
        state = state ^ (state >> 16)
    return state


@dataclass(frozen=True)
class BlockPattern:
    """Which keys a query sees: global blocks, a window of blocks up to its own, and random blocks between them.

    Query block i, of `block` tokens, sees blocks [0, global_blocks), (i - window_blocks, i] and `random_blocks`
    different ones of [global_blocks, i - window_blocks], or all of these where they are fewer.

    Attributes:
        block: tokens of a block, b.
        random_type: "rows" draws each row's random blocks on its own; "reservoir" keeps the last row's and lets the
            block that leaves the window replace one, as in reservoir sampling: each row alone is as uniform, but a
            block once dropped by a head is dropped for good, so that decoding needs c blocks and no more.
        seed, layer, heads: counters of the draw; every head draws on its own.
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
        """Read the pattern of layer `layer_idx`, a bigbird or a window one."""
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
            window_blocks=-(-(config.window_size - 1) // block) + 1,  # the span of a block's first token, and its own
            heads=config.num_attention_heads,
            span=config.window_size,
            sinks=config.window_sinks,
        )

    @property
    def columns(self) -> int:
        """Key blocks of a row of the table, c."""
        return self.global_blocks + self.random_blocks + self.window_blocks

    @property
    def closed(self) -> bool:
        """Whether each row's blocks are among the last row's, or new: then all others can be forgotten."""
        return self.random_blocks == 0 or self.random_type == "reservoir"

    def allows(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Say whether a query sees a key of a block it sees; positions in tokens, broadcast together."""
        seen = key <= query
        if self.span is not None:
            seen = seen & ((key > query - self.span) | (key < self.sinks))
        return seen


def sample_blocks_per_row(pattern: BlockPattern, candidates: torch.Tensor) -> torch.Tensor:
    """Draw (H, nb, r) different numbers below `candidates` (nb,), row by row, by Floyd's algorithm; -1 where none."""
    wanted = pattern.random_blocks
    heads, rows = torch.arange(pattern.heads)[:, None], torch.arange(len(candidates))
    drawn = torch.full((pattern.heads, len(candidates), wanted), -1)
    for index in range(wanted):
        top = (candidates - wanted + index).clamp(min=0)
        draw = counter_hash(pattern.seed, pattern.layer, heads, rows, index) % (top + 1)  # (H, nb)
        taken = (drawn == draw[..., None]).any(-1)
        draw = torch.where(taken, top, draw)
        few = torch.where(candidates > index, index, -1)  # too few to choose from: take them all
        drawn[..., index] = torch.where(candidates >= wanted, draw, few)
    return drawn


def sample_blocks_reservoir(pattern: BlockPattern, candidates: torch.Tensor) -> torch.Tensor:
    """Sample as `sample_blocks_per_row`, each row one step of reservoir sampling after the last (Vitter 1985, R)."""
    items = torch.arange(len(candidates))
    place = counter_hash(pattern.seed, pattern.layer, torch.arange(pattern.heads)[:, None], items) % (items + 1)
    place = torch.where(items < pattern.random_blocks, items, place)  # (H, items): the first r fill the reservoir
    held = torch.where(place[..., None] == torch.arange(pattern.random_blocks), items[:, None], -1)
    held = held.cummax(dim=1).values  # (H, items, r): who holds each place after this item
    return torch.where(candidates[:, None] > 0, held[:, (candidates - 1).clamp(min=0)], -1)  # (H, nb, r)


@lru_cache(maxsize=128)
def _build_table(pattern: BlockPattern, blocks: int, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False), torch.device("cpu"):  # kept, so it must serve a later training step too
        rows = torch.arange(blocks)
        first = rows - pattern.window_blocks + 1  # of the window
        window = (first[:, None] + torch.arange(pattern.window_blocks)).clamp(min=-1)  # (nb, w)
        fixed = torch.arange(pattern.global_blocks).expand(blocks, -1)
        fixed = torch.where(fixed < first[:, None], fixed, -1)  # (nb, g): what the window holds is not listed twice
        draw = sample_blocks_reservoir if pattern.random_type == "reservoir" else sample_blocks_per_row
        drawn = draw(pattern, (first - pattern.global_blocks).clamp(min=0))  # (H, nb, r)
        drawn = torch.where(drawn >= 0, drawn + pattern.global_blocks, -1)
        heads = (pattern.heads, -1, -1)
        return torch.cat((fixed.expand(heads), drawn, window.expand(heads)), dim=-1).to(device)


@torch.compiler.assume_constant_result  # so that a compiler need not trace its making
def _kept_table(pattern: BlockPattern, blocks: int, device: torch.device) -> torch.Tensor:
    build = _build_table.__wrapped__ if torch.compiler.is_exporting() else _build_table  # no stand-in is to be kept
    return build(pattern, blocks, device)


def block_table(pattern: BlockPattern, blocks: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the key blocks of each query block, (H, nb, c) int64: global, random, window; -1 for none.

    A row depends on its number only: the table of a longer text starts with a shorter one's.
    """
    size = max(16, 1 << (blocks - 1).bit_length())  # few sizes, so that a growing text finds its table made
    return _kept_table(pattern, size, torch.device(device))[:, :blocks]


def block_map(pattern: BlockPattern, blocks: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the table as booleans (H, nb, nb): does query block i see key block j?"""
    table = block_table(pattern, blocks, device)
    seen = torch.zeros(pattern.heads, blocks, blocks + 1, dtype=torch.bool, device=device)
    return seen.scatter_(2, table % (blocks + 1), True)[..., :blocks]  # -1 lands in the extra column


def dense_mask(pattern: BlockPattern, length: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the mask (H, T, T) of booleans, True where a query sees a key: O(T²), for eyes and tests."""
    positions = torch.arange(length, device=device)
    places = positions // pattern.block
    seen = block_map(pattern, -(-length // pattern.block), device)[:, places][:, :, places]
    return seen & pattern.allows(positions[:, None], positions)


def row_mask(pattern: BlockPattern, ids: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Return what queries at positions (..., l) see of the key blocks (..., c): booleans (..., l, c·b)."""
    keys = ids[..., None] * pattern.block + torch.arange(pattern.block, device=ids.device)  # (..., c, b)
    keys = torch.where(ids[..., None] >= 0, keys, torch.iinfo(torch.int64).max).flatten(-2)  # none: never reached
    return pattern.allows(queries[..., :, None], keys[..., None, :])


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
    kernel, settings = nn.functional.scaled_dot_product_attention, {"dropout_p": dropout, "scale": scaling}
    mixed = call_in_fp32_on_cpu(kernel, query.flatten(1, 2), key, value, attn_mask=mask, **settings)  # (B, H·nq, l, D)
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
    block, blocks = pattern.block, -(-length // pattern.block)
    query, key, value = (chunk(states, block) for states in (query, key, value))  # (B, H, nb, b, D)
    table = block_table(pattern, blocks, query.device)
    positions = torch.arange(blocks * block, device=query.device).view(blocks, block)
    # From row c - 1 on all c blocks are there and stand in the same relation to the query: one mask serves them all.
    first, mixed = min(pattern.columns - 1, blocks), []
    parts = [states.split((first, blocks - first), dim) for states, dim in ((query, 2), (table, 1), (positions, 0))]
    for queries, ids, places, masked in zip(*parts, (None, 1), strict=True):
        if ids.shape[1]:
            mask = row_mask(pattern, ids[:masked, :masked], places[:masked])[None]  # (1, H|1, rows|1, b, c·b)
            slots = ids.clamp(min=0)[None]
            mixed.append(gather_attention(queries, key, value, slots, mask, scaling, dropout))
    return unchunk(torch.cat(mixed, dim=2), length)


@lru_cache(maxsize=16)
def flex_block_mask(pattern: BlockPattern, length: int, device: torch.device | str = "cpu") -> BlockMask:
    """Return the table as a FlexAttention `BlockMask`, without evaluating T² entries.

    Its tiles are `FLEX_TILE` tokens or a multiple, which the GPU kernels ask for; within them the table's own blocks
    rule. It is kept, since every layer of every step asks for it: (T / tile)² small integers a head.
    """
    tile = math.lcm(pattern.block, FLEX_TILE)
    ratio, tiles = tile // pattern.block, -(-length // tile)
    with torch.inference_mode(False):
        table = block_table(pattern, tiles * ratio, device)  # (H, rows of whole tiles, c)
        listed = table[:, : -(-length // pattern.block)]
        rows = torch.arange(listed.shape[1], device=device)[:, None] // ratio
        index = rows * (tiles + 1) + torch.where(listed >= 0, listed // ratio, tiles)  # none: an extra column
        pairs = torch.zeros(pattern.heads, tiles * (tiles + 1), dtype=torch.int32, device=device)
        pairs.scatter_add_(1, index.flatten(1), torch.ones_like(index, dtype=torch.int32).flatten(1))
        pairs = pairs.view(pattern.heads, tiles, tiles + 1)[..., :tiles]  # (row, block) pairs of each pair of tiles
        # A tile wholly before the queries', all of whose pairs are listed, needs no token rule, unless a span cuts it.
        numbers = torch.arange(tiles, device=device)
        whole = (pairs == ratio**2) & (numbers < numbers[:, None]) & (pattern.span is None)
        lists = []
        for wanted in ((pairs > 0) & ~whole, whole):
            ids = wanted.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)  # the wanted first
            lists += [wanted.sum(-1, dtype=torch.int32)[None], ids.to(torch.int32)[None].contiguous()]

    def mask_mod(batch, head, query, key):
        row, wanted = query // pattern.block, key // pattern.block
        seen = table[head, row, 0] == wanted
        for column in range(1, pattern.columns):
            seen = seen | (table[head, row, column] == wanted)
        return seen & pattern.allows(query, key)

    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=tile, mask_mod=mask_mod, seq_lengths=(length, length))
