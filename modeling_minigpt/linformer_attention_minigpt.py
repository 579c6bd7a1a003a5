"""Causal Linformer: exact attention to the last two segments, k learned mixtures of everything before, in O(T).

The Linformer (Wang et al. 2020, arXiv 2006.04768, section 4) mixes keys and values along the whole sequence, which
leaks the future of a causal model. The repair is the bounded-memory view (Peng et al. 2021, arXiv 2110.02488,
section 3): each token writes into k slots with non-negative weights, and a query reads the slots' running means two
segments late, with the bias log z for the mass z they hold, in one softmax with the exact keys of its own segment and
of the one before. No token is counted twice and none is lost.
"""

import torch
from torch import nn

from .attention_base_minigpt import LinearTimeAttention, chunk, place, take, unchunk
from .configuration_minigpt import MiniGPTConfig


def slot_means(sums: torch.Tensor, mass: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Divide the slots' sums (..., k, D) by their mass (..., k); an empty slot stays zero."""
    return (sums / mass.clamp(min=torch.finfo(mass.dtype).tiny)[..., None]).to(dtype)


def slot_bias(mass: torch.Tensor) -> torch.Tensor:
    """Return log z, the bias of the slots' scores: -inf for an empty one, and there without a gradient of 0/0."""
    empty = mass <= 0
    return mass.masked_fill(empty, 1.0).log().masked_fill(empty, float("-inf"))


def segment_sums(weights: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Return each segment's writes (B, H, m, k, D) of states (B, H, m, s, D), weighted by (B or 1, H, m, s, k)."""
    return weights.mT @ states


def cumsum_two_segments_back(sums: torch.Tensor, initial: torch.Tensor | None) -> torch.Tensor:
    """Return, for each of m segments on dimension 2, the sum over all segments at least two before it.

    Sums run in float32 at least, as a long text's would stall in bfloat16.
    """
    running = sums.to(torch.promote_types(sums.dtype, torch.float32)).cumsum(dim=2)
    late = torch.cat((torch.zeros_like(running[:, :, :2]), running[:, :, :-2]), dim=2)[:, :, : sums.shape[2]]
    return late if initial is None else late + initial[:, :, None]


def linformer_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    weights: torch.Tensor,
    segment: int,
    scaling: float,
    dropout: float = 0.0,
    slots: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Attend causally to exact neighbours and to slots.

    Args:
        query, key, value: (B, H, T, D), any T; the first token starts a segment.
        weights: what each token writes into the k slots, non-negative, (B or 1, H, T, k).
        segment: tokens of a segment, s.
        slots: sums of keys and of values (B, H, k, D) and masses (B, H, k) over all segments before the first one
            here. That first one then only serves the second as exact keys: its own queries would need one segment
            less in the slots, and their results mean nothing (unless it is the text's first).

    Returns:
        Mixed values (B, H, T, D).
    """
    length = query.shape[2]
    query, key, value, weights = (chunk(states, segment) for states in (query, key, value, weights))
    count = query.shape[2]  # m segments (B, H, m, s, ·)
    slot_keys, slot_values, mass = slots if slots is not None else (None, None, None)
    mass = cumsum_two_segments_back(weights.sum(-2), mass)  # (B or 1, H, m, k)
    slot_keys = slot_means(
        cumsum_two_segments_back(segment_sums(weights, key), slot_keys), mass, key.dtype
    )  # (B, H, m, k, D)
    slot_values = slot_means(cumsum_two_segments_back(segment_sums(weights, value), slot_values), mass, value.dtype)

    # Keys of a segment's queries, in this order: slots, the segment before, the segment itself.
    before = (0, 0, 0, 0, 1, -1)  # shifts segments by one; the first has none before it
    keys = torch.cat((slot_keys, nn.functional.pad(key, before), key), dim=3)  # (B, H, m, k + 2s, D)
    values = torch.cat((slot_values, nn.functional.pad(value, before), value), dim=3)
    k, exact = mass.shape[-1], torch.zeros(count, 2 * segment, dtype=mass.dtype, device=mass.device)
    exact[0, :segment] = float("-inf")
    bias = torch.cat((slot_bias(mass), exact.expand(*mass.shape[:2], -1, -1)), dim=-1)  # (B or 1, H, m, k + 2s)
    later = torch.ones(segment, k + 2 * segment, dtype=torch.bool, device=query.device).triu(k + segment + 1)
    scores = (query * scaling) @ keys.mT  # (B, H, m, s, k + 2s)
    shares = scores.add_(bias[:, :, :, None]).masked_fill_(later, float("-inf")).softmax(dim=-1)
    mixed = nn.functional.dropout(shares, dropout) @ values  # (B, H, m, s, D)
    return unchunk(mixed, length)


class LinformerAttention(LinearTimeAttention):
    """Causal Linformer attention: O(T (2s + k) D) time and memory, a decoding state of constant size.

    With `linformer_slot_type` "positional" a token's slot weights depend on its place in its segment (the Linformer's
    own E, one a head); with "content" on its hidden state.
    """

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.segment, self.slots = config.linformer_segment, config.linformer_slots
        if config.linformer_slot_type == "positional":
            self.slot_logits = nn.Parameter(torch.empty(self.num_heads, self.segment, self.slots))  # (H, s, k)
            self.slot_proj = None
        else:
            self.slot_logits = None
            self.slot_proj = nn.Linear(config.hidden_size, self.num_heads * self.slots, bias=False)

    def streams(self, hidden_states, position_embeddings):
        """Return queries, keys, values and, where slots go by content, the slot weights (B, H, T, k)."""
        streams = self.project(hidden_states, position_embeddings)
        if self.slot_proj is None:
            return streams
        logits = self.slot_proj(hidden_states).unflatten(-1, (self.num_heads, self.slots))  # (B, T, H, k)
        return *streams, logits.softmax(dim=-1).transpose(1, 2)

    def positional_weights(self, length: int, counts: torch.Tensor | None) -> torch.Tensor:
        """Return the slot weights (1 or B, H, T, k) of the next T tokens after each row's first `counts` (B,)."""
        weights = self.slot_logits.softmax(dim=-1)  # (H, s, k)
        if counts is None:
            repeats = -(-length // self.segment)
            return weights.repeat(1, repeats, 1)[None, :, :length]
        places = (counts[:, None] + torch.arange(length, device=counts.device)) % self.segment  # (B, T)
        return weights[:, places].transpose(0, 1)  # (B, H, T, k)

    def attend(self, query, key, value, weights=None, *, state=None, added=None):
        """Mix the values: (B, H, T, D)."""
        settings = {"scaling": self.scaling, "dropout": self.dropout}
        length = query.shape[2]
        if state is None:
            if weights is None:
                weights = self.positional_weights(length, None)
            return linformer_attention(query, key, value, weights, self.segment, **settings)

        state.lazy_initialization(key, value)
        if weights is None:
            weights = self.positional_weights(length, state.counts)
        start, slots, key, value, weights = state.update(key, value, weights, added)  # from a segment's start on
        if length == 1:
            return self.decode_step(query, key, value, start, slots)
        query = place(torch.zeros_like(key), query, start)
        mixed = linformer_attention(query, key, value, weights, self.segment, slots=slots, **settings)
        return take(mixed, length, start)

    def decode_step(self, query, key, value, start, slots) -> torch.Tensor:
        """Decode one token: query (B, H, 1, D) at place `start` (B,) among the exact keys (B, H, S, D)."""
        sums_of_keys, sums_of_values, mass = slots
        keys = torch.cat((slot_means(sums_of_keys, mass, key.dtype), key), dim=2)  # (B, H, k + S, D)
        values = torch.cat((slot_means(sums_of_values, mass, value.dtype), value), dim=2)
        later = torch.arange(key.shape[2], device=key.device) > start[:, None]  # (B, S)
        bias = mass.new_zeros(key.shape[:3]).masked_fill(later[:, None], float("-inf"))  # (B, H, S)
        bias = torch.cat((slot_bias(mass), bias), dim=2)[:, :, None]  # (B, H, 1, k + S)
        shares = ((query * self.scaling) @ keys.mT + bias).softmax(dim=-1).to(values.dtype)
        return nn.functional.dropout(shares, self.dropout) @ values  # (B, H, 1, D)
