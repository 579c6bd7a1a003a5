"""Low-rank and sparse attention made visible: spectra, the mass inside BigBird's pattern, Performer's error.

Of attention matrices A (…, T, T), causal and row-stochastic, trained ones or not. BigBird's tables and Performer's
features are the model package's own.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attention_lab.trained import head_streams
from modeling_minigpt.attention_minigpt import eager_attention_forward
from modeling_minigpt.block_sparse_minigpt import BlockPattern, block_table, dense_mask
from modeling_minigpt.performer_attention_minigpt import draw_features, performer_attention


def uniform_weights(length: int) -> torch.Tensor:
    """Return the causal matrix (T, T) that looks at all tokens alike: 1 / (t + 1) in row t."""
    seen = torch.ones(length, length).tril()
    return seen / seen.sum(-1, keepdim=True)


def text_rows(tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], length: int, rows: int) -> torch.Tensor:
    """Return ids (B, T) without padding: documents one after the other, cut into `rows` rows of `length` tokens."""
    stream: list[int] = []
    for document in documents:
        stream += tokenizer(document)["input_ids"]
        if len(stream) >= length * rows:
            return torch.tensor(stream[: length * rows]).view(rows, length)
    raise ValueError(f"{len(documents)} documents hold {len(stream)} tokens, wanted {length * rows}")


@torch.inference_mode()
def attention_matrices(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the weights of every layer and head on ids (B, T), (L, B, H, T, T)."""
    return torch.stack(model(ids, output_attentions=True, use_cache=False).attentions)


def cumulative_spectrum(weights: torch.Tensor) -> torch.Tensor:
    """Return Σ_{i≤k} σ_i / Σ σ_i for k = 1 … T, (…, T): Linformer's measure of rank (Wang et al. 2020, figure 1)."""
    sizes = torch.linalg.svdvals(weights.double())
    return sizes.cumsum(-1) / sizes.sum(-1, keepdim=True)


def effective_rank(weights: torch.Tensor, share: float = 0.9) -> torch.Tensor:
    """Return how many singular values hold `share` of their sum, (…)."""
    return (cumulative_spectrum(weights) < share).sum(-1) + 1


def tail_error(part: torch.Tensor, whole: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the least |A' - B| / |A| (Frobenius) of any B of a rank, A' (…, T, T) being a part of A, (…).

    Eckart and Young (1936): the best B keeps the largest singular values.
    """
    tail = torch.linalg.svdvals(part.double())[..., rank:].square().sum(-1)
    return tail.sqrt() / whole.double().square().sum((-2, -1)).sqrt()


def low_rank_error(weights: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the least relative error |A - B| / |A| (Frobenius) of any B of a rank, (…)."""
    return tail_error(weights, weights, rank)


def far_part(weights: torch.Tensor, segment: int) -> torch.Tensor:
    """Return the weights (…, T, T) on tokens two or more segments back, zero elsewhere.

    It is all that the causal Linformer puts into its slots: the two nearest segments it reads exactly.
    """
    place = torch.arange(weights.shape[-1]) // segment
    return weights * (place <= place[:, None] - 2)


def pattern_mass(weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the share of the weights (…, T, T) that falls on a boolean mask (…, T, T), the mean over queries."""
    return (weights * mask).sum(-1).mean(-1)


def pattern_parts(pattern: BlockPattern, length: int) -> dict[str, torch.Tensor]:
    """Return what a BigBird pattern sees, in disjoint masks (H, T, T): its window, global and random blocks."""
    whole = dense_mask(pattern, length)
    positions = torch.arange(length)
    block = positions // pattern.block
    table = block_table(pattern, -(-length // pattern.block))
    window = whole & (block[:, None] - block < pattern.window_blocks)
    listed = table[:, block][..., pattern.global_blocks : pattern.global_blocks + pattern.random_blocks]  # (H, T, r)
    random = whole & (listed[:, :, None] == block[None, None, :, None]).any(-1)
    return {"window": window, "global": whole & ~window & ~random, "random": random}


def bigbird_mass(weights: torch.Tensor, patterns: Sequence[BlockPattern]) -> dict[str, torch.Tensor]:
    """Return the mass of weights (L, B, H, T, T) inside each layer's pattern, (L, H), by part and in all."""
    layers = [pattern_parts(pattern, weights.shape[-1]) for pattern in patterns]
    masses = {
        name: torch.stack(
            [pattern_mass(layer, parts[name]).mean(0) for layer, parts in zip(weights, layers, strict=True)]
        )
        for name in layers[0]
    }
    return {**masses, "all": sum(masses.values())}


def exact_weights(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return causal softmax(q·k/√D), (B, H, T, T), of queries and keys (B, H, T, D)."""
    later = torch.full((query.shape[2], query.shape[2]), float("-inf")).triu(1)
    module = torch.nn.Module().eval()
    return eager_attention_forward(module, query, key, key, later, query.shape[-1] ** -0.5)[1]


def performer_weights(query: torch.Tensor, key: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return Performer's weights (B, H, T, T) of queries and keys (B, H, T, D) with features w (H, m, D)."""
    units = torch.eye(query.shape[2]).expand(*query.shape[:2], -1, -1)
    return performer_attention(query, key, units, features, chunk_size=query.shape[2])[0]


def performer_error(
    query: torch.Tensor, key: torch.Tensor, features: int, orthogonal: bool, draws: int = 20
) -> torch.Tensor:
    """Return Performer's relative error |Â - A| / |A| (Frobenius) for so many features, root mean square, (H,).

    The mean is over rows of the batch and over `draws` draws of the features, seeds 0, 1, …
    """
    exact = exact_weights(query, key)
    errors = []
    for seed in range(draws):
        drawn = draw_features(query.shape[1], features, query.shape[-1], seed, orthogonal)
        errors.append((performer_weights(query, key, drawn) - exact).square().sum((-2, -1)))
    return (torch.stack(errors).mean((0, 1)) / exact.square().sum((-2, -1)).mean(0)).sqrt()


def model_performer_error(model: PreTrainedModel, ids: torch.Tensor, features: int, orthogonal: bool) -> torch.Tensor:
    """Return `performer_error` of the queries and keys that a model's heads form on ids (B, T), (L, H)."""
    layers = head_streams(model, {"input_ids": ids})
    return torch.stack([performer_error(one.query, one.key, features, orthogonal, draws=5) for one in layers])
