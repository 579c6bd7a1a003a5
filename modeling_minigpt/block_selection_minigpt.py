"""Blocks chosen by content: what a block is chosen by, the choice, and attention to each query's own blocks.

Every head of every query chooses for itself, so no two queries need share a block, and a table of blocks per query
block (`block_sparse_minigpt`) does not do. Gathering k blocks of b keys for each of T queries would move k·b times as
much as there is. `TiledBlocks` turns the lists around instead: it sorts the (query, block) pairs by block and lets
each block meet its queries sixteen at a time, as one small matrix product.
"""

from typing import NamedTuple

import torch
from torch import nn

from .attention_base_minigpt import is_traced

TILE = 16  # queries that meet a block together
GROUP = 16  # neighbouring blocks, of which the best is looked at first
CHUNK = 1024  # queries of a head scored at once
SCORE_STEPS = 1024  # to one unit of a score


class Choice(NamedTuple):
    """Blocks chosen by each query, in no order.

    Attributes:
        ids: numbers of blocks, (B, H, R, l, k); 0 where there are fewer than k to choose from.
        valid: False for those, (B, H, R, l, k).
    """

    ids: torch.Tensor
    valid: torch.Tensor


@torch.no_grad()
def key_boxes(key: torch.Tensor) -> torch.Tensor:
    """Return the largest and the smallest value of each coordinate in each block of keys (B, H, N, b, D).

    The box (B, H, N, 2D) times `box_query` bounds q·k over the block's keys from above (Tang et al. 2024, Quest,
    arXiv 2406.10774, section 3.3).
    """
    return torch.cat((key.amax(3), key.amin(3)), dim=-1)


def box_query(query: torch.Tensor) -> torch.Tensor:
    """Return (..., 2D): positive coordinates meet a box's largest values, negative ones its smallest."""
    return torch.cat((query.clamp(min=0), query.clamp(max=0)), dim=-1)


def key_means(key: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Return the mean key of each block (B, H, N, b, D), in float32, weighted by exp(gate) of (B, H, N, b, 1)."""
    dtype = torch.promote_types(key.dtype, torch.float32)
    return (gate.to(dtype).softmax(3) * key.to(dtype)).sum(3)  # (B, H, N, D)


def rank(scores: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return integers that order blocks by score, and equal scores by the smaller number of `ids`.

    Scores are equal that round to the same 1/1,024. A block that repeats another, as in a text that repeats itself,
    has its score up to float32's rounding, which differs between a text read at once and one read token by token.
    """
    steps = (scores * SCORE_STEPS).round().clamp(-(2.0**40), 2.0**40).long()
    return steps * 2**20 - ids


def best_blocks(query: torch.Tensor, blocks: torch.Tensor, limit: torch.Tensor, count: int) -> torch.Tensor:
    """Return the `count` best of blocks (B, H, N, F) for queries (B, H, q, F), each below its `limit` (B, q).

    Where there are fewer, the others are numbers from `limit` on. The result is (B, H, q, count).
    """
    blocks = nn.functional.pad(blocks, (0, 0, 0, count))  # so that there are always enough
    ids = torch.arange(blocks.shape[2], device=query.device)
    scores = query @ blocks.mT  # (B, H, q, N + count)
    scores = scores.masked_fill(ids >= limit[:, None, :, None], float("-inf"))
    return rank(scores, ids).topk(count, dim=-1, sorted=False).indices


def best_blocks_by_groups(query: torch.Tensor, groups: torch.Tensor, limit: torch.Tensor, count: int) -> torch.Tensor:
    """Return what `best_blocks` does, of blocks in groups (B, H, G, GROUP, F), `count` groups or more.

    The best blocks are in the groups that are best by their best block: if a block's group comes after `count` others,
    each of these has a block that comes before it. This needs groups of neighbours, as ties go to the smaller number.
    """
    total = groups.shape[2]
    numbers = torch.arange(total, device=query.device)
    ids = numbers * GROUP + torch.arange(GROUP, device=query.device)[:, None]  # (GROUP, G)
    # Groups go last: a maximum over the dimension before the last is several times as fast.
    scores = (query @ groups.transpose(2, 3).flatten(2, 3).mT).unflatten(-1, (GROUP, total))  # (B, H, q, GROUP, G)
    free = int(limit.min()) // GROUP  # groups that every query may choose from
    scores[..., free:].masked_fill_(ids[:, free:] >= limit[:, None, :, None, None], float("-inf"))
    best = rank(scores.amax(-2), numbers).topk(count, dim=-1, sorted=False).indices  # (B, H, q, count)
    best = best[..., None, :].expand(*best.shape[:-1], GROUP, count)
    inside = ids[:, 0, None] + best * GROUP  # (B, H, q, GROUP, count)
    ranks = rank(scores.gather(-1, best), inside).flatten(-2)
    return inside.flatten(-2).gather(-1, ranks.topk(count, dim=-1, sorted=False).indices)


@torch.no_grad()
def select_blocks(query: torch.Tensor, blocks: torch.Tensor, limits: torch.Tensor, count: int) -> Choice:
    """Choose for each query the `count` blocks of the highest score, in float32.

    Args:
        query: (B, H, R, l, F).
        blocks: what blocks are chosen by, (B, H, N, F); the score is the product with the query.
        limits: the queries of a row choose from the blocks [0, limit), (B, R).
        count: k.
    """
    batch, heads, rows, width = query.shape[:4]
    limit = limits.repeat_interleave(width, dim=1)  # (B, R·l)
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        query = query.to(dtype).flatten(2, 3)  # (B, H, R·l, F)
        blocks = blocks.to(dtype)
        if is_traced():  # one graph: nothing may depend on how many blocks there are
            ids = best_blocks(query, blocks, limit, count)
        else:
            count = min(count, blocks.shape[2])  # of a short text
            ids = torch.cat(_select_by_chunks(query, blocks, limit, count), dim=2)
    valid = ids < limit[:, None, :, None]
    ids = ids.masked_fill(~valid, 0).view(batch, heads, rows, width, count)
    return Choice(ids, valid.view(ids.shape))


def _select_by_chunks(query, blocks, limit, count) -> list[torch.Tensor]:
    """Choose for some queries at a time, each time from no more blocks than one of them may choose from."""
    enough = 2 * count * GROUP  # blocks; with fewer the groups would not pay
    grouped = None
    if blocks.shape[2] >= enough:
        grouped = nn.functional.pad(blocks, (0, 0, 0, -blocks.shape[2] % GROUP)).unflatten(2, (-1, GROUP))
    chosen = []
    for part, below in zip(query.split(CHUNK, dim=2), limit.split(CHUNK, dim=1), strict=True):
        most = int(below.max())
        if grouped is None or most < enough:
            chosen.append(best_blocks(part, blocks[:, :, :most], below, count))
        else:
            chosen.append(best_blocks_by_groups(part, grouped[:, :, : -(-most // GROUP)], below, count))
    return chosen


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
        found = (asked @ self.to_tiles(blocks).mT).flatten(0, 1)  # (t·TILE, m)
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
    """Queries and the blocks they chose, one product a query: for a token that is decoded, and for graphs.

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
    if not is_traced():
        window = min(window, total)  # of a short text
    near = Window.from_positions(positions, key.shape, window)
    dtype = torch.promote_types(query.dtype, torch.float32)
    scores = ((query * scaling) @ near.gather(key, rows).mT).to(dtype)  # (B, H, R, l, w·b)
    scores = scores.masked_fill(~near.seen, float("-inf")).flatten(0, 3)  # (q, w·b)
    near_value = near.gather(value, rows)
    if not is_traced() and not bool(choice.valid.any()):  # the start of a text
        weights = nn.functional.dropout(scores.softmax(-1), dropout).to(value.dtype)
        return weights.view(batch, heads, rows, width, -1) @ near_value

    first = torch.arange(batch * heads, device=key.device).view(batch, heads, 1, 1, 1) * total
    kind = GatheredBlocks if width == 1 or is_traced() else TiledBlocks
    chosen = kind((first + choice.ids).flatten(0, 3), choice.valid.flatten(0, 3), batch * heads * total)
    found = chosen.multiply((query * scaling).flatten(0, 3), key.flatten(0, 2)).to(dtype)  # (q, k, b)
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
