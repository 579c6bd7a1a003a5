"""The choice of blocks by content: what a block is chosen by, and the k best blocks of each head of each query.

Every block is scored for every query here; of a long text `block_search_minigpt` scores boxes around blocks first.
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast

from .attention_base_minigpt import is_traced

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
    steps = (scores * SCORE_STEPS).round_().clamp_(-(2.0**40), 2.0**40).long()
    return steps.mul_(2**20).sub_(ids)


def best_blocks(query: torch.Tensor, blocks: torch.Tensor, limit: torch.Tensor, count: int) -> torch.Tensor:
    """Return the `count` best of blocks (B, H, N, F) for queries (B, H, q, F), each below its `limit` (B, q).

    Where there are fewer, the others are numbers from `limit` on. The result is (B, H, q, count).
    """
    scores = nn.functional.pad(query @ blocks.mT, (0, count))  # (B, H, q, N + count), so that there are enough
    ids = torch.arange(scores.shape[3], device=query.device)
    scores = scores.masked_fill(ids >= limit[:, None, :, None], float("-inf"))
    return rank(scores, ids).topk(count, dim=-1, sorted=False).indices


def best_blocks_by_groups(query: torch.Tensor, groups: torch.Tensor, limit: torch.Tensor, count: int) -> torch.Tensor:
    """Return what `best_blocks` does, of blocks in groups (B, H, G, g, F), `count` groups or more.

    The best blocks are in the groups that are best by their best block: if a block's group comes after `count` others,
    each of these has a block that comes before it. This needs groups of neighbours, as ties go to the smaller number.
    """
    total, size = groups.shape[2:4]
    numbers = torch.arange(total, device=query.device)
    ids = numbers * size + torch.arange(size, device=query.device)[:, None]  # (g, G)
    # Groups go last: a maximum over the dimension before the last is several times as fast.
    scores = (query @ groups.transpose(2, 3).flatten(2, 3).mT).unflatten(-1, (size, total))  # (B, H, q, g, G)
    free = int(limit.min()) // size  # groups that every query may choose from
    scores[..., free:].masked_fill_(ids[:, free:] >= limit[:, None, :, None, None], float("-inf"))
    best = rank(scores.amax(-2), numbers).topk(count, dim=-1, sorted=False).indices  # (B, H, q, count)
    best = best[..., None, :].expand(*best.shape[:-1], size, count)
    inside = ids[:, 0, None] + best * size  # (B, H, q, g, count)
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
    with maybe_autocast(query.device.type, enabled=False):
        query = query.to(dtype).flatten(2, 3)  # (B, H, R·l, F)
        blocks = blocks.to(dtype)
        if is_traced():  # one graph: nothing may depend on how many blocks there are
            ids = best_blocks(query, blocks, limit, count)
        else:
            count = min(count, blocks.shape[2])  # of a short text
            ids = select_by_chunks(query, blocks, limit, count)
    valid = ids < limit[:, None, :, None]
    ids = ids.masked_fill(~valid, 0).view(batch, heads, rows, width, count)
    return Choice(ids, valid.view(ids.shape))


def select_by_chunks(
    query: torch.Tensor, blocks: torch.Tensor, limit: torch.Tensor, count: int, group: int = GROUP
) -> torch.Tensor:
    """Return what `best_blocks` does, of `count` blocks or more, for some queries at a time.

    Each time no more blocks are scored than one of them may choose from. The result is the same for any size `group`.
    """
    enough = 2 * max(1, count) * group  # blocks; for fewer, or a single query, arranging them in groups takes longer
    grouped = None
    if blocks.shape[2] >= enough and query.shape[2] > 1:
        grouped = nn.functional.pad(blocks, (0, 0, 0, -blocks.shape[2] % group)).unflatten(2, (-1, group))
    chosen = []
    for part, below in zip(query.split(CHUNK, dim=2), limit.split(CHUNK, dim=1), strict=True):
        most = int(below.max())
        if grouped is None or most < enough:
            chosen.append(best_blocks(part, blocks[:, :, :most], below, count))
        else:
            chosen.append(best_blocks_by_groups(part, grouped[:, :, : -(-most // group)], below, count))
    return torch.cat(chosen, dim=2)
