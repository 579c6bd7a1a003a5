"""The choice of blocks in a long text: boxes around boxes, the best opened level by level, O(log T) for each query.

Up to `exact` blocks every block is scored (`block_selection_minigpt`). Of more blocks, `FAN_OUT` neighbours have a box
around them, as many of these a larger one, and so on: a query scores the smallest boxes of which there are at most
`exact`, opens the best ones, then the best of the boxes inside. What boxes there are depends on the blocks before it
alone, so a text that is read at once, in pieces or token by token is searched alike. A graph scores every block.

The search is approximate: a box may promise little and contain the best block. To skip boxes by their bounds would be
exact, but skips hardly any. In two layers trained on the people of `benchmarks.attention_recall`, at 16,384 tokens, 96
to 100 % of the boxes around 16 blocks have a bound above the eighth best score, as with random keys; of those around 4
blocks 72 to 100 % in the first layer, 22 to 34 % in the second. To open the best 16 of 128 boxes around 8 blocks costs
0.3 points of recall there (98.4 and 98.0 % of 917 questions inside texts: 7 answers lost, 4 gained), and 0.9 points of
the 351 that are more than 1,024 tokens back.
"""

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast

from .attention_base_minigpt import is_traced
from .block_selection_minigpt import Choice, rank, select_blocks, select_by_chunks
from .block_tiles_minigpt import TILE, GatheredBlocks, TiledBlocks

FAN_OUT = 8  # neighbours with a box around them
OPENED = 2  # boxes of a level that are opened for each block wanted
SEARCHED = 8192  # queries of a head searched at once: enough to fill tiles
TILES = 64  # multiplied at once, so that they fit in a processor's cache


@torch.no_grad()
def surround(rows: torch.Tensor, are_boxes: bool) -> torch.Tensor:
    """Return the boxes (B, H, n, 2D) around every `FAN_OUT` neighbours of (B, H, N, F); a last few are left out.

    Args:
        are_boxes: whether the rows are boxes themselves (as `key_boxes`), or points.
    """
    whole = rows.shape[2] // FAN_OUT * FAN_OUT
    groups = rows[:, :, :whole].unflatten(2, (-1, FAN_OUT))  # (B, H, n, FAN_OUT, F)
    high, low = groups.chunk(2, dim=-1) if are_boxes else (groups, groups)
    return torch.cat((high.amax(3), low.amin(3)), dim=-1)


def grow_levels(blocks: torch.Tensor, exact: int, are_boxes: bool) -> list[torch.Tensor]:
    """Return blocks (B, H, N, F) and, while a level has more than `exact` rows, the boxes around it."""
    levels = [blocks]
    while levels[-1].shape[2] > exact and not is_traced():
        levels.append(surround(levels[-1], are_boxes or len(levels) > 1))
    return levels


@torch.no_grad()
def search_blocks(
    query: torch.Tensor,
    box_query: torch.Tensor,
    levels: list[torch.Tensor],
    limits: torch.Tensor,
    count: int,
    exact: int,
) -> Choice:
    """Choose for each query `count` blocks: the best of at most `exact`, and of more what the search finds.

    Args:
        query, box_query: of blocks, (B, H, R, l, F), and of the boxes around them, (B, H, R, l, 2D).
        levels: as `grow_levels` returns them; rows that do not belong to a complete box are not read.
        limits, count: as for `select_blocks`.
        exact: blocks.
    """
    if len(levels) == 1 or is_traced():
        return select_blocks(query, levels[0], limits, count)
    count = min(count, levels[0].shape[2])
    depths = sum((limits // FAN_OUT**level > exact).long() for level in range(len(levels) - 1))  # (B, R)
    rows = max(1, SEARCHED // query.shape[3])
    found = []
    for asked, of_boxes, below, depth in zip(
        query.split(rows, dim=2), box_query.split(rows, dim=2), limits.split(rows, dim=1), depths.split(rows, dim=1),
        strict=True,
    ):  # fmt: skip
        choice = None
        for level in depth.unique().tolist():
            other = search_from(level, asked, of_boxes, levels, below, count)
            if choice is None:
                choice = other
            else:  # rows of queries on either side of a border, or of a batch of texts of different lengths
                here = (depth == level)[:, None, :, None, None]
                choice = Choice(*(torch.where(here, new, old) for new, old in zip(other, choice, strict=True)))
        found.append(choice)
    return Choice(*(torch.cat(parts, dim=2) for parts in zip(*found, strict=True)))


def search_from(level: int, query, box_query, levels, limits, count) -> Choice:
    """Choose blocks for the queries of a few rows, from the boxes of a level down; those of level 0 are the blocks."""
    if not level:
        return select_blocks(query, levels[0], limits, count)
    shape = (*query.shape[:4], count)
    limit = limits.repeat_interleave(query.shape[3], dim=1)  # (B, R·l)
    dtype = torch.promote_types(query.dtype, torch.float32)
    with maybe_autocast(query.device.type, enabled=False):
        query, box_query = (states.to(dtype).flatten(2, 3) for states in (query, box_query))  # (B, H, R·l, ·)
        below = limit // FAN_OUT**level
        boxes = levels[level][:, :, : int(below.max())].to(dtype)
        opened = OPENED * count
        ids = select_by_chunks(box_query, boxes, below, min(opened, boxes.shape[2]), group=FAN_OUT)
        for inner in reversed(range(level)):
            asked = box_query if inner else query
            rows = levels[inner].to(dtype)
            ids = open_boxes(asked, rows, ids, limit // FAN_OUT**inner, opened if inner else count)
    ids = nn.functional.pad(ids, (0, count - ids.shape[3]), value=levels[0].shape[2])  # of very few blocks
    valid = ids < limit[:, None, :, None]
    return Choice(ids.masked_fill(~valid, 0).view(shape), valid.view(shape))


def open_boxes(query: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor, limit: torch.Tensor, count: int):
    """Return the numbers of the `count` best rows in the boxes `ids`, and in the one that is not complete yet.

    Args:
        query: (B, H, q, F).
        rows: (B, H, N, F).
        ids: boxes of `FAN_OUT` rows, (B, H, q, n); one that is not below a query's last box is none.
        limit: a query chooses from the rows [0, limit), (B, q).

    Returns:
        (B, H, q, count), or fewer where the boxes have no more; numbers from `limit` on where a query has fewer.
    """
    last = (limit // FAN_OUT)[:, None, :, None]  # box of the rows that no complete one has
    valid = nn.functional.pad(ids < last, (0, 1), value=True)
    ids = torch.cat((ids, last.expand(*ids.shape[:3], 1)), dim=-1)  # (B, H, q, n + 1)
    total = int(last.max()) + 1
    boxes = rows[:, :, : total * FAN_OUT]
    boxes = nn.functional.pad(boxes, (0, 0, 0, total * FAN_OUT - boxes.shape[2])).unflatten(2, (total, FAN_OUT))
    scores = multiply_boxes(query, boxes, ids, valid)  # (B, H, q, n + 1, FAN_OUT)
    numbers = ids[..., None] * FAN_OUT + torch.arange(FAN_OUT, device=ids.device)
    none = ~valid[..., None] | (numbers >= limit[:, None, :, None, None])
    numbers = numbers.masked_fill(none, rows.shape[2]).flatten(-2)
    ranks = rank(scores.masked_fill(none, float("-inf")).flatten(-2), numbers)
    count = min(count, ranks.shape[-1])
    return numbers.gather(-1, ranks.topk(count, dim=-1, sorted=False).indices)


def multiply_boxes(query: torch.Tensor, boxes: torch.Tensor, ids: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the products of queries (B, H, q, F) with all rows in their boxes, (B, H, q, n, FAN_OUT).

    Args:
        boxes: the rows in each box, (B, H, N, FAN_OUT, F).
        ids, valid: as those of a `Choice`, (B, H, q, n).
    """
    batch, heads, length, width = query.shape
    first = torch.arange(batch * heads, device=ids.device).view(batch, heads, 1, 1) * boxes.shape[2]
    ids = (first + ids.masked_fill(~valid, 0)).flatten(0, 2)  # (B·H·q, n)
    query = query.flatten(0, 2)
    boxes = boxes.flatten(0, 2)
    if length == 1:
        return GatheredBlocks(ids, valid.flatten(0, 2), len(boxes)).multiply(query, boxes).view(*valid.shape, FAN_OUT)
    tiles = TiledBlocks(ids, valid.flatten(0, 2), len(boxes))
    products = []
    for box, asked in zip(tiles.block.split(TILES), tiles.query.split(TILES * TILE), strict=True):
        asked = query.index_select(0, asked).view(-1, TILE, width)
        products.append((asked @ boxes.index_select(0, box).mT).flatten(0, 1))
    return torch.cat(products).index_select(0, tiles.slot.flatten()).view(*valid.shape, FAN_OUT)
