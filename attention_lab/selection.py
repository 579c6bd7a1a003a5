"""What does a choice of blocks find? The mass of full attention, and the fact asked for, in the blocks a rule chooses.

A query of block i sees its window, blocks i - w + 1 … i, and k of the blocks before, one choice for each head. Four
rules choose these k, all from what a trained model with full attention computes:

- best: those with the most attention of this query, which no rule can exceed;
- box: those with the largest bound on q·k, from the smallest and largest value of each coordinate of the block's keys
  (Tang et al. 2024, "Quest", arXiv 2406.10774, section 3.2), queries and keys before the rotation;
- mean: those whose mean key has the largest q·k, before the rotation (Lu et al. 2025, "MoBA", arXiv 2502.13189);
- random: BigBird's, drawn and not found (Zaheer et al. 2020).

A choice is a mask (…, T, nb) over the nb blocks of a text of T tokens. `seen_mass` and `found_share` take any, also
those that a model with selected-block attention reports.
"""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from attention_lab.structure import attention_matrices
from attention_lab.trained import Streams, head_streams
from modeling_minigpt.attention_base_minigpt import chunk
from modeling_minigpt.block_selection_minigpt import box_query, key_boxes
from modeling_minigpt.block_sparse_minigpt import BlockPattern, block_map


def block_mass(weights: torch.Tensor, block: int) -> torch.Tensor:
    """Return the sum of weights (…, T, T) over each block of keys, (…, T, nb)."""
    missing = -weights.shape[-1] % block
    return torch.nn.functional.pad(weights, (0, missing)).unflatten(-1, (-1, block)).sum(-1)


def blocks_before(length: int, block: int, window: int) -> torch.Tensor:
    """Return which blocks a query may choose, all before its window, as booleans (T, nb)."""
    own = torch.arange(length)[:, None] // block
    return torch.arange(-(-length // block)) <= own - window


def blocks_in_window(length: int, block: int, window: int) -> torch.Tensor:
    """Return the blocks of a query's window, its own included, as booleans (T, nb)."""
    own = torch.arange(length)[:, None] // block
    return (torch.arange(-(-length // block)) <= own) & ~blocks_before(length, block, window)


def rank_blocks(scores: torch.Tensor, block: int, window: int) -> torch.Tensor:
    """Return the place of each block before a query's window, 0 for the best score of (…, T, nb); nb for all others.

    Of equal scores the earlier block is the better one.
    """
    before = blocks_before(scores.shape[-2], block, window)
    order = scores.masked_fill(~before, float("-inf")).argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1).masked_fill(~before, scores.shape[-1])


def choose_top(scores: torch.Tensor, block: int, window: int, k: int) -> torch.Tensor:
    """Return the k best blocks of scores (…, T, nb) before each query's window, or all where there are fewer."""
    return rank_blocks(scores, block, window) < min(k, scores.shape[-1])


def choose_random(heads: int, length: int, block: int, window: int, k: int, layer: int = 0) -> torch.Tensor:
    """Return BigBird's k random blocks before each query's window, (H, T, nb)."""
    pattern = BlockPattern(block, 0, window, k, heads=heads, layer=layer)
    seen = block_map(pattern, -(-length // block)).repeat_interleave(block, dim=1)[:, :length]
    return seen & blocks_before(length, block, window)


def box_scores(query: torch.Tensor, key: torch.Tensor, block: int) -> torch.Tensor:
    """Return the largest q·k that a key in each block's box could have, (B, H, T, nb), of (B, H, T, D) each.

    An incomplete last block has zeros in its box, too, and is nowhere before a window.
    """
    return box_query(query) @ key_boxes(chunk(key, block)).mT


def mean_scores(query: torch.Tensor, key: torch.Tensor, block: int) -> torch.Tensor:
    """Return q·k for the mean key of each block, (B, H, T, nb), of queries and keys (B, H, T, D).

    An incomplete last block has another mean here, and is nowhere before a window.
    """
    return query @ chunk(key, block).mean(3).mT


def seen_mass(weights: torch.Tensor, chosen: torch.Tensor, block: int, window: int, start: int = 0) -> torch.Tensor:
    """Return the share of the weights (…, T, T) in the window and the chosen blocks (…, T, nb), (…).

    Args:
        start: the mean is over queries from this position on; those before may have nothing to choose.
    """
    seen = chosen | blocks_in_window(weights.shape[-2], block, window)
    return (block_mass(weights, block) * seen).sum(-1)[..., start:].mean(-1)


def found_share(chosen: torch.Tensor, asked: torch.Tensor, block: int, window: int) -> torch.Tensor:
    """Return how often the block with the fact asked for is seen where its answer is read, (H,).

    Args:
        chosen: (B, H, T, nb), or (H, T, nb) for all rows alike.
        asked: of each question its row, the position that the answer is read from, and that of the fact, (N, 3).
    """
    rows, readers, facts = asked.unbind(-1)
    seen = chosen | blocks_in_window(chosen.shape[-2], block, window)
    if seen.ndim == 4:
        return seen[rows, :, readers, facts // block].float().mean(0)
    return seen[:, readers, facts // block].float().mean(-1)


def all_choices(
    weights: torch.Tensor, streams: Streams, layer: int, counts: Sequence[int], block: int, window: int
) -> Iterator[tuple[str, int, torch.Tensor]]:
    """Yield each rule and number of blocks with what it chooses in a layer, whose streams are not rotated."""
    scores = {
        "best": block_mass(weights, block),
        "box": box_scores(streams.query, streams.key, block),
        "mean": mean_scores(streams.query, streams.key, block),
    }
    # Sorting is what takes time in a long text, and one order has the choices of all sizes.
    ranks = {rule: rank_blocks(values, block, window) for rule, values in scores.items()}
    for k in counts:
        for rule, rank in ranks.items():
            yield rule, k, rank < min(k, rank.shape[-1])
        yield "random", k, choose_random(weights.shape[1], weights.shape[-1], block, window, k, layer)


def what_is_found(
    model: PreTrainedModel,
    ids: torch.Tensor,
    asked: torch.Tensor,
    counts: Sequence[int] = (1, 2, 4, 8),
    block: int = 16,
    window: int = 4,
) -> list[dict]:
    """Return a row for each layer, head, rule and number of blocks chosen: the mass seen and the facts found.

    `mass` is a mean over the queries that have more blocks to choose from than the most chosen, the same ones for all
    rows of the result. `found` is a mean over the questions. Layers and heads are counted from 1.

    Args:
        model: one with full attention, loaded with `attn_implementation="eager"`.
        ids: rows without padding, (B, T).
        asked: as for `found_share`.

    Raises:
        ValueError: no query of T tokens has that many blocks to choose from.
    """
    length = ids.shape[1]
    start = (window + max(counts)) * block
    if length <= start:
        raise ValueError(
            f"{max(counts)} of the blocks of {block} tokens before a window of {window} are a choice from "
            f"{start + 1} tokens on, found {length}"
        )
    rows = []
    layers = zip(attention_matrices(model, ids), head_streams(model, {"input_ids": ids}, rotated=False), strict=True)
    for layer, (weights, streams) in enumerate(layers):
        for rule, k, chosen in all_choices(weights, streams, layer, counts, block, window):
            masses = seen_mass(weights, chosen, block, window, start).mean(0)  # (H,)
            found = found_share(chosen, asked, block, window)  # (H,)
            rows += [
                {"layer": layer + 1, "head": head + 1, "rule": rule, "blocks": k}
                | {"mass": mass.item(), "found": share.item()}
                for head, (mass, share) in enumerate(zip(masses, found, strict=True))
            ]
    return rows
