"""Slow and obvious attention: one query at a time, plain Python for every pattern. What the fast paths are tested by.

All functions take queries, keys and values (B, H, T, D) and return (B, H, T, D); none shares code with the package.
"""

import itertools
import math

import torch


def attend(query, keys, values, bias=None):
    """Attend from one query (B, H, D) to keys (B, H, N, D), with a bias (B or 1, H, N) on the scores."""
    scores = (keys @ query[..., None])[..., 0] / math.sqrt(query.shape[-1])  # (B, H, N)
    scores = scores if bias is None else scores + bias
    return (scores.softmax(-1)[..., None, :] @ values)[..., 0, :]


def full_attention(query, key, value):
    """Every query sees every key up to its own."""
    return torch.stack(
        [attend(query[:, :, t], key[:, :, : t + 1], value[:, :, : t + 1]) for t in range(query.shape[2])], dim=2
    )


def masked_attention(query, key, value, mask):
    """Every query sees the keys that the mask (H, T, T) of booleans lists."""
    bias = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    return torch.stack([attend(query[:, :, t], key, value, bias[:, t]) for t in range(query.shape[2])], dim=2)


def linformer_attention(query, key, value, weights, segment):
    """Exact keys of a query's segment and of the one before; slots hold the tokens before these.

    `weights` (B or 1, H, T, k) is what each token writes into the slots.
    """
    mixed = []
    for t in range(query.shape[2]):
        first = max(0, t // segment - 1) * segment  # the first exact key
        keys, values = key[:, :, first : t + 1], value[:, :, first : t + 1]
        bias = torch.zeros(1, key.shape[1], t + 1 - first, dtype=key.dtype)
        if first:
            written = weights[:, :, :first]  # (B or 1, H, first, k)
            mass = written.sum(2)
            keys = torch.cat((written.mT @ key[:, :, :first] / mass[..., None], keys), dim=2)
            values = torch.cat((written.mT @ value[:, :, :first] / mass[..., None], values), dim=2)
            bias = torch.cat((mass.log(), bias.expand(mass.shape[0], -1, -1)), dim=2)
        mixed.append(attend(query[:, :, t], keys, values, bias))
    return torch.stack(mixed, dim=2)


def performer_attention(query, key, value, features):
    """Weights are inner products of positive random features, normalised; `features` is w (H, m, D)."""
    query, key = query * query.shape[-1] ** -0.25, key * key.shape[-1] ** -0.25
    query, key = ((x @ features.mT - x.square().sum(-1, keepdim=True) / 2).exp() for x in (query, key))
    mixed = []
    for t in range(query.shape[2]):
        weights = (key[:, :, : t + 1] @ query[:, :, t, :, None])[..., 0]  # (B, H, t + 1)
        mixed.append((weights[..., None] * value[:, :, : t + 1]).sum(2) / weights.sum(-1, keepdim=True))
    return torch.stack(mixed, dim=2)


def gated_delta_rule(query, key, value, beta, log_decay):
    """Fade a memory S (B, H, E, K), correct what it has for a key, read it; beta and log_decay are (B, H, T, 1)."""
    identity = torch.eye(key.shape[-1], dtype=key.dtype)
    memory = torch.zeros(*value.shape[:2], value.shape[-1], key.shape[-1], dtype=key.dtype)
    read = []
    for t in range(query.shape[2]):
        k, v, b = key[:, :, t, :, None], value[:, :, t, :, None], beta[:, :, t, :, None]
        memory = log_decay[:, :, t, :, None].exp() * memory @ (identity - b * k @ k.mT) + b * v @ k.mT
        read.append((memory @ query[:, :, t, :, None])[..., 0])
    return torch.stack(read, dim=2)


def gated_delta_attention(streams, beta, log_decay, taps, groups):
    """Convolve queries, keys and values (B, 1, T, 3 C) by taps (3 C, 1, n), a token's own last; apply the rule.

    Each of `groups` heads of queries and keys serves as many neighbouring heads of values, of which beta is a number
    each, (B, H, T, 1).
    """
    mixed = []
    for t in range(streams.shape[2]):
        near = [streams[:, 0, t - back] * taps[:, 0, -1 - back] for back in range(min(taps.shape[2], t + 1))]
        mixed.append(torch.nn.functional.silu(sum(near)))  # (B, 3 C)
    query, key, value = torch.stack(mixed, dim=1).chunk(3, dim=-1)  # (B, T, C)
    heads = beta.shape[1]
    value = torch.stack(value.chunk(heads, dim=-1), dim=1)  # (B, H, T, D)
    query, key = (
        torch.stack([group / group.norm(dim=-1, keepdim=True) for group in states.chunk(groups, dim=-1)], dim=1)
        for states in (query, key)
    )  # (B, groups, T, K)
    served = [head * groups // heads for head in range(heads)]
    return gated_delta_rule(query[:, served], key[:, served], value, beta, log_decay)


def gated_norm(mixed, gate, weight):
    """Divide each head's output (B, H, T, D) by its root mean square; scale it by `weight` and a gate (B, T, C)."""
    norm = (mixed.square().mean(-1, keepdim=True) + 1e-2).sqrt()
    gate = torch.stack((gate * gate.sigmoid()).chunk(mixed.shape[1], dim=-1), dim=1)
    return mixed / norm * weight * gate


def mean_key(keys, gates):
    """Return the mean (D,) of a block's keys (b, D), weighted by exp(gate)."""
    weights = gates.exp()
    return (weights * keys).sum(0) / weights.sum()


def block_score(query, keys, gates=None):
    """Score a block for a query (D,): its mean key's product, or without gates the largest that its box allows.

    A key in the box has in each coordinate a value between two keys', so each product is at most one of theirs.
    """
    product = (query * keys).amax(0).sum() if gates is None else query @ mean_key(keys, gates)
    return product / math.sqrt(query.shape[0])


def chosen_blocks(query, keys, gates, own, block, count, window):
    """Return the blocks that a query (D,) of block `own` chooses by keys (T, D): highest score, then smallest number.

    Scores count to 1/1,024.
    """
    scores = {}
    for number in range(own - window + 1):
        tokens = slice(number * block, (number + 1) * block)
        scores[number] = block_score(query, keys[tokens], None if gates is None else gates[tokens]).item()
    return sorted(scores, key=lambda number: (-round(scores[number] * 1024), number))[:count]


def selected_attention(query, key, value, plain_query, plain_key, gate=None, *, block, count, window):
    """Every query sees its last blocks and the ones that it chooses, by what queries and keys are before rotation.

    With gates (B, H, T, 1), a chosen block's score is added to the scores of its tokens.
    """
    batch, heads, length, _ = query.shape
    mixed = []
    for row, head, t in itertools.product(range(batch), range(heads), range(length)):
        q, keys, values = query[row, head, t], key[row, head], value[row, head]
        plain, plain_keys, gates = plain_query[row, head, t], plain_key[row, head], None
        if gate is not None:
            gates = gate[row, head]
        own = t // block
        seen = list(range(max(0, own - window + 1) * block, t + 1))
        bias = [torch.zeros(len(seen))]
        for number in chosen_blocks(plain, plain_keys, gates, own, block, count, window):
            tokens = list(range(number * block, (number + 1) * block))
            seen += tokens
            prior = torch.zeros(()) if gates is None else block_score(plain, plain_keys[tokens], gates[tokens])
            bias.append(prior.expand(block))
        mixed.append(attend(q[None, None], keys[None, None, seen], values[None, None, seen], torch.cat(bias)))
    return torch.cat(mixed).view(batch, heads, length, -1)


def counter_hash(*counters):
    """Hash integers to 32 bits."""
    state, word = 0, 2**32
    for counter in counters:
        state = (state * 0x9E3779B1 + counter + 0x7F4A7C15) % word
        state = ((state ^ (state >> 16)) * 0x7FEB352D) % word
        state = ((state ^ (state >> 15)) * 0x846CA68B) % word
        state ^= state >> 16
    return state


def random_blocks(pattern, head, row):
    """Return the random blocks of one row: a set drawn by Floyd's algorithm, or a reservoir run from the start."""
    first, last = pattern.global_blocks, row - pattern.window_blocks
    candidates, wanted = list(range(first, last + 1)), pattern.random_blocks
    if len(candidates) <= wanted:
        return set(candidates)
    if pattern.random_type == "reservoir":
        held = candidates[:wanted]
        for item in range(wanted, len(candidates)):
            place = counter_hash(pattern.seed, pattern.layer, head, item) % (item + 1)
            if place < wanted:
                held[place] = candidates[item]
        return set(held)
    chosen = set()
    for index in range(wanted):
        top = len(candidates) - wanted + index
        draw = counter_hash(pattern.seed, pattern.layer, head, row, index) % (top + 1)
        chosen.add(candidates[top] if candidates[draw] in chosen else candidates[draw])
    return chosen


def seen_blocks(pattern, head, row):
    """Return the key blocks of one query block: global, window, random."""
    window = range(max(0, row - pattern.window_blocks + 1), row + 1)
    return {*window, *range(min(pattern.global_blocks, row + 1)), *random_blocks(pattern, head, row)}


def block_mask(pattern, length):
    """Return the mask (H, T, T) of a block pattern, entry by entry."""
    mask = torch.zeros(pattern.heads, length, length, dtype=torch.bool)
    for head in range(pattern.heads):
        for query in range(length):
            blocks = seen_blocks(pattern, head, query // pattern.block)
            for key in range(query + 1):
                near = pattern.span is None or query - key < pattern.span or key < pattern.sinks
                mask[head, query, key] = near and key // pattern.block in blocks
    return mask
