"""Attention to a window of blocks and to each query's own choice of blocks, in one softmax.

Every head of every query chooses for itself, so a table of blocks per query block (`block_sparse_minigpt`) does not
do, and gathering k blocks of b keys for each of T queries would move k·b times as much as there is. `TiledBlocks`
turns the lists around: it sorts the (query, block) pairs by block and lets each block meet its queries 32 at a
time, as one small matrix product. A token that is decoded gathers (`GatheredBlocks`). Short texts, and graphs, whose
sizes may not depend on a choice, have a mask over all tokens (`dense_attention`). All are one function.
"""

from typing import NamedTuple

import torch
from torch import nn

from .block_selection_minigpt import Choice

TILE = 32  # queries that meet a block together


class MoveRows(torch.autograd.Function):
    """Move rows of a matrix (n, X) to other places, and gradients back: both gather, as adding by index is slow.

    Row i of the result is row `index[i]`, or the sum of rows `index[i]` where these are several; zero where `filled`
    (…, 1) is False. `back` and `back_filled` say the same of the gradient. In place of `filled`, None fills every row.
    """

    @staticmethod
    def forward(ctx, states, index, filled, back, back_filled):
        ctx.save_for_backward(back, back_filled)
        return MoveRows.gather(states, index, filled)

    @staticmethod
    def backward(ctx, gradient):
        return MoveRows.gather(gradient, *ctx.saved_tensors), None, None, None, None

    @staticmethod
    def gather(states: torch.Tensor, index: torch.Tensor, filled: torch.Tensor | None) -> torch.Tensor:
        """Gather the rows, or sums of rows, that `index` names."""
        if index.ndim == 2:
            return nn.functional.embedding_bag(index, states.contiguous(), mode="sum")
        rows = states.index_select(0, index)
        return rows if filled is None else rows.mul_(filled)


class TileProducts(torch.autograd.Function):
    """Products of all rows of (t, TILE, D) and (t, m, D), tile by tile: (t, TILE, m).

    The gradient of a transposed matrix would be transposed back by a copy, which takes longer than the products.
    """

    @staticmethod
    def forward(ctx, asked, blocks):
        ctx.save_for_backward(asked, blocks)
        return asked @ blocks.mT

    @staticmethod
    def backward(ctx, gradient):
        asked, blocks = ctx.saved_tensors
        return gradient @ blocks, gradient.mT @ asked


class TiledBlocks:
    """Queries and the blocks they chose, as tiles: one block and `TILE` slots, each for a query that chose it.

    The q queries and N blocks are those of all heads of all rows. With tiles of 2, and queries 0, 1, 2 that chose the
    blocks 7; 5 and 7; 7, there are three tiles and an empty one: block 5 with queries 1 _, block 7 with 0 1, block 7
    with 2 _.

    Attributes:
        block: the block (t,) of each tile.
        query, pair: the query, and the (query, choice) pair, in each slot, (t·TILE,); 0 in an empty one.
        filled: False for empty slots, (t·TILE, 1). All of the last tile's are.
        slot: the slot of each pair, (q, k); the last one for a pair that does not exist.
        valid: which pairs exist, (q, k).
    """

    @torch.no_grad()
    def __init__(self, ids: torch.Tensor, valid: torch.Tensor, total: int):
        """Arrange the pairs of `ids` and `valid`, (q, k), in tiles; block numbers are below `total`."""
        device = ids.device
        order = ids.masked_fill(~valid, total).flatten().to(torch.int32).sort(stable=True)
        count = int(valid.sum())
        blocks = order.values[:count].long()
        pairs = order.indices[:count]
        met = torch.bincount(blocks, minlength=total)  # pairs of each block
        tiles = (met + TILE - 1) // TILE
        # A block's pairs are neighbours in this order; its first goes to the first slot of its first tile.
        shift = (tiles.cumsum(0) - tiles) * TILE - (met.cumsum(0) - met)
        slots = shift.index_select(0, blocks) + torch.arange(count, device=device)
        block = torch.repeat_interleave(torch.arange(total, device=device), tiles)
        self.block = nn.functional.pad(block, (0, 1))
        size = len(self.block) * TILE
        self.pair = torch.zeros(size, dtype=torch.int64, device=device).index_copy_(0, slots, pairs)
        self.query = self.pair // ids.shape[1]
        self.filled = torch.zeros(size, 1, dtype=torch.bool, device=device).index_fill_(0, slots, True)
        last = torch.full((ids.numel(),), size - 1, device=device)
        self.slot = last.index_copy_(0, pairs, slots).view(ids.shape)
        self.valid = valid

    def multiply(self, query: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """Return the product of each query (q, D) with each of its chosen blocks (N, m, D), (q, k, m)."""
        asked = MoveRows.apply(query, self.query, None, self.slot, None).unflatten(0, (-1, TILE))  # (t, TILE, D)
        found = TileProducts.apply(asked, self.to_tiles(blocks)).flatten(0, 1)  # (t·TILE, m)
        found = MoveRows.apply(found, self.slot.flatten(), None, self.pair, self.filled)  # (q·k, m)
        return found.unflatten(0, self.slot.shape)

    def mix(self, weights: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """Return each query's sum of its blocks' values (N, b, E) by weights (q, k, b), (q, E)."""
        shares = MoveRows.apply(weights.flatten(0, 1), self.pair, self.filled, self.slot.flatten(), None)
        brought = (shares.unflatten(0, (-1, TILE)) @ self.to_tiles(blocks)).flatten(0, 1)  # (t·TILE, E)
        return MoveRows.apply(brought, self.slot, None, self.query, self.filled)

    def to_tiles(self, blocks: torch.Tensor) -> torch.Tensor:
        """Return the block (t, m, ·) of each tile."""
        return blocks.flatten(1).index_select(0, self.block).unflatten(1, blocks.shape[1:])


class GatheredBlocks:
    """Queries and the blocks they chose, one product a query: for a token that is decoded.

    As tiles are, it is made of ids and valid, (q, k), and of the number of blocks. It reads k·b keys for each query.
    """

    def __init__(self, ids: torch.Tensor, valid: torch.Tensor, total: int):
        self.ids = ids
        self.valid = valid

    def multiply(self, query: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """Return what `TiledBlocks.multiply` does."""
        return (self.gather(blocks).flatten(1, 2) @ query[..., None]).view(*self.ids.shape, blocks.shape[1])

    def mix(self, weights: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """Return what `TiledBlocks.mix` does."""
        return (weights.flatten(1)[:, None] @ self.gather(blocks).flatten(1, 2))[:, 0]

    def gather(self, blocks: torch.Tensor) -> torch.Tensor:
        """Return the blocks (q, k, m, ·) of each query."""
        return blocks.index_select(0, self.ids.flatten()).unflatten(0, self.ids.shape)


class Window(NamedTuple):
    """The last blocks of each row of queries, its own among them.

    Attributes:
        blocks: numbers among the blocks of all heads of all rows, (B·H·R·w,); any for one before the text.
        seen: what queries see of their tokens, (B, 1, R, l, w·b).
    """

    blocks: torch.Tensor
    seen: torch.Tensor

    @classmethod
    def from_positions(cls, positions: torch.Tensor, shape: torch.Size, window: int) -> "Window":
        """Make it for queries at `positions` (B, R, l) and keys of `shape` (B, H, N, b, D)."""
        batch, heads, total, block = shape[:4]
        ids = positions[:, :, :1] // block + torch.arange(1 - window, 1, device=positions.device)  # (B, R, w)
        keys = (ids[..., None] * block + torch.arange(block, device=ids.device)).flatten(2)  # (B, R, w·b)
        seen = (keys[:, :, None] >= 0) & (keys[:, :, None] <= positions[..., None])  # (B, R, l, w·b)
        first = torch.arange(batch * heads, device=ids.device).view(batch, heads, 1, 1) * total
        return cls((first + ids.clamp(min=0)[:, None]).flatten(), seen[:, None])

    def gather(self, states: torch.Tensor, rows: int) -> torch.Tensor:
        """Return the tokens (B, H, R, w·b, ·) of blocks (B, H, N, b, ·) that each row has in its window."""
        found = states.flatten(0, 2).flatten(1).index_select(0, self.blocks)
        return found.view(*states.shape[:2], rows, -1, states.shape[4])


def dense_attention(query, key, value, positions, choice, window, scaling, prior=None, dropout=0.0) -> torch.Tensor:
    """Attend as `selected_attention` does, by one fused kernel with a mask over all tokens, O(T²).

    Its backward reads keys and values themselves, where the other ways read copies: a cache may not write to them.
    """
    numbers = torch.arange(key.shape[2], device=key.device)
    chosen = ((choice.ids[..., None] == numbers) & choice.valid[..., None]).any(-2)  # (B, H, R, l, N)
    own = positions[..., None] // key.shape[3]  # (B, R, l, 1)
    near = ((numbers <= own) & (numbers > own - window))[:, None]  # (B, 1, R, l, N)
    places = torch.arange(key.shape[2] * key.shape[3], device=key.device)
    causal = (places <= positions[..., None])[:, None]  # (B, 1, R, l, N·b)
    mask = (chosen | near).repeat_interleave(key.shape[3], dim=-1) & causal  # (B, H, R, l, N·b)
    if prior is not None:
        asked, summaries = prior
        scores = (asked * scaling).to(summaries.dtype) @ summaries[:, :, None].mT  # (B, H, R, l, N)
        bias = scores.masked_fill(~chosen, 0.0).repeat_interleave(key.shape[3], dim=-1)
        mask = bias.masked_fill(~mask, float("-inf")).to(query.dtype)
    query, key, value, mask = (states.flatten(2, 3) for states in (query, key, value, mask))  # (B, H, T, ·)
    kernel = nn.functional.scaled_dot_product_attention
    mixed = kernel(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return mixed.unflatten(2, positions.shape[1:])


def selected_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    positions: torch.Tensor,
    choice: Choice,
    window: int,
    scaling: float,
    prior: tuple[torch.Tensor, torch.Tensor] | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attend in one softmax to a window of blocks, and to the blocks that each query chose.

    Args:
        query: rows of queries, each row within a block, (B, H, R, l, D).
        key, value: blocks (B, H, N, b, D); values may have another width.
        positions: of the queries, (B, R, l).
        choice: of each query, none of them in its window.
        window: blocks, w.
        scaling: factor of q·k.
        prior: queries (B, H, R, l, D) and summaries of blocks (B, H, N, D) whose product is added to the scores of a
            chosen block's tokens.

    Returns:
        Mixed values (B, H, R, l, D).
    """
    batch, heads, rows, width = query.shape[:4]
    total = key.shape[2]
    window = min(window, total)  # of a short text
    near = Window.from_positions(positions, key.shape, window)
    dtype = torch.promote_types(query.dtype, torch.float32)
    query = query * scaling
    scores = (query @ near.gather(key, rows).mT).to(dtype)  # (B, H, R, l, w·b)
    scores = scores.masked_fill(~near.seen, float("-inf")).flatten(0, 3)  # (q, w·b)
    near_value = near.gather(value, rows)
    first = torch.arange(batch * heads, device=key.device).view(batch, heads, 1, 1, 1) * total
    kind = GatheredBlocks if width == 1 else TiledBlocks
    chosen = kind((first + choice.ids).flatten(0, 3), choice.valid.flatten(0, 3), batch * heads * total)
    found = chosen.multiply(query.flatten(0, 3), key.flatten(0, 2)).to(dtype)  # (q, k, b)
    if prior is not None:
        asked, summaries = (states.to(dtype) for states in prior)
        found = found + chosen.multiply((asked * scaling).flatten(0, 3), summaries.flatten(0, 2)[:, None])
    found = found.masked_fill(~chosen.valid[..., None], float("-inf"))
    weights = torch.cat((scores, found.flatten(1)), dim=-1).softmax(-1)
    weights = nn.functional.dropout(weights, dropout).to(value.dtype)  # (q, (w + k)·b)
    split = scores.shape[1]
    mixed = weights[:, :split].view(batch, heads, rows, width, split) @ near_value
    far = chosen.mix(weights[:, split:].unflatten(1, found.shape[1:]), value.flatten(0, 2))  # (q, D)
    return mixed + far.view(mixed.shape)
