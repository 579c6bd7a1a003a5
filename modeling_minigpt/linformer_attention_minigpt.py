"""Causal Linformer: exact attention to the last two segments, k learned mixtures of everything before, in O(T).

The Linformer (Wang et al. 2020, arXiv 2006.04768, section 4) mixes keys and values along the whole sequence, which
leaks the future of a causal model. The repair is the bounded-memory view (Peng et al. 2021, arXiv 2110.02488,
section 3): each token writes into k slots with non-negative weights, and a query reads the slots' running means two
segments late, with the bias log z for the mass z they hold, in one softmax with the exact keys of its own segment and
of the one before. No token is counted twice and none is lost.

With segments of 2 tokens, what the queries at tokens 0 to 6 read:

    tokens      0 1 | 2 3 | 4 5 | 6
    exactly     0   | 0…2 | 2…4 | 4…6     (up to the query's own token)
    by slots    –   | –   | 0 1 | 0…3
"""

import torch
from torch import nn
from transformers import initialization as init

from .attention_base_minigpt import LinearTimeAttention, chunk, gather_tokens, scatter_tokens, unchunk
from .cache_layers_minigpt import StateCacheLayer
from .configuration_minigpt import MiniGPTConfig


def slot_means(sums: torch.Tensor, mass: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Divide the slots' sums (..., k, D) by their mass (..., k); an empty slot stays zero."""
    return (sums / mass.clamp(min=torch.finfo(mass.dtype).tiny)[..., None]).to(dtype)


def slot_bias(mass: torch.Tensor) -> torch.Tensor:
    """Return log z, the bias of the slots' scores; -inf for an empty slot."""
    empty = mass <= 0
    # log(1) in an empty slot's place: the gradient of log(0) would be NaN even where the result is masked.
    return mass.masked_fill(empty, 1.0).log().masked_fill(empty, float("-inf"))


def segment_sums(weights: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Sum the states of each segment (B, H, m, s, D) by slot weights (B or 1, H, m, s, k): (B, H, m, k, D)."""
    return weights.mT @ states


def cumsum_two_segments_back(sums: torch.Tensor, initial: torch.Tensor | None) -> torch.Tensor:
    """Return, for each of m segments on dimension 2, the sum over all segments at least two before it.

    [a, b, c, d] becomes [0, 0, a, a + b], plus `initial` everywhere. Sums run in float32 at least: in bfloat16 those
    of a long text would stop growing.
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
    segments = query.shape[2]  # m segments (B, H, m, s, ·)
    key_sums, value_sums, mass = slots if slots is not None else (None, None, None)
    mass = cumsum_two_segments_back(weights.sum(-2), mass)  # (B or 1, H, m, k)
    key_sums = cumsum_two_segments_back(segment_sums(weights, key), key_sums)
    value_sums = cumsum_two_segments_back(segment_sums(weights, value), value_sums)
    slot_keys = slot_means(key_sums, mass, key.dtype)  # (B, H, m, k, D)
    slot_values = slot_means(value_sums, mass, value.dtype)

    # Keys of a segment's queries, in this order: slots, the segment before, the segment itself.
    before = (0, 0, 0, 0, 1, -1)  # shifts segments by one; the first has none before it
    keys = torch.cat((slot_keys, nn.functional.pad(key, before), key), dim=3)  # (B, H, m, k + 2s, D)
    values = torch.cat((slot_values, nn.functional.pad(value, before), value), dim=3)
    k = mass.shape[-1]
    exact = torch.zeros(segments, 2 * segment, dtype=mass.dtype, device=mass.device)
    exact[0, :segment] = float("-inf")
    bias = torch.cat((slot_bias(mass), exact.expand(*mass.shape[:2], -1, -1)), dim=-1)  # (B or 1, H, m, k + 2s)
    later = torch.ones(segment, k + 2 * segment, dtype=torch.bool, device=query.device).triu(k + segment + 1)
    scores = (query * scaling) @ keys.mT  # (B, H, m, s, k + 2s)
    attention_weights = scores.add_(bias[:, :, :, None]).masked_fill_(later, float("-inf")).softmax(dim=-1)
    mixed = nn.functional.dropout(attention_weights, dropout) @ values  # (B, H, m, s, D)
    return unchunk(mixed, length)


class LinformerCache(StateCacheLayer):
    """The last one to two segments in full, and the slots' sums over all segments before them.

    For a row and a head: keys, values and slot weights of at most 2s tokens, 2s (2D + k) numbers, and the slots' sums
    and masses, k (2D + 1). A token leaves once its segment is two behind: it is folded into the slots, as in the
    parallel form.
    """

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.segment = config.linformer_segment
        self.slots = config.linformer_slots

    def init_state(self, like):
        batch, heads, _, dim = like.shape
        exact = (batch, heads, 2 * self.segment)
        slots = (batch, heads, self.slots)
        sums_dtype = torch.promote_types(like.dtype, torch.float32)
        return {
            "keys": like.new_zeros(*exact, dim),
            "values": like.new_zeros(*exact, dim),
            "weights": like.new_zeros(*exact, self.slots),
            "slot_keys": like.new_zeros(*slots, dim, dtype=sums_dtype),
            "slot_values": like.new_zeros(*slots, dim, dtype=sums_dtype),
            "slot_mass": like.new_zeros(*slots, dtype=sums_dtype),
        }

    def first_exact_token(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the first token (B,) that is stored in full: the start of the segment before the next token's."""
        return (counts // self.segment - 1).clamp(min=0) * self.segment

    def update(self, key_states, value_states, weights, lengths=None):
        """Append T tokens and fold what falls two segments behind.

        Returns:
            The position (B,) of each row's first new token in what follows; the slots (sums of keys, of values,
            masses) before folding; keys, values (B, H, W, D) and weights (B, H, W, k) of the stored and the new tokens
            from a segment's start on, zeros (or padding) behind them.
        """
        state = self.state
        segment = self.segment
        length = key_states.shape[2]
        stored = min(self.cumulative_length, 2 * segment - 1)  # no row stores more
        width = -(-(stored + length) // segment) * segment
        before = self.first_exact_token(self.counts)
        start = self.counts - before
        joined = []
        weights = weights.expand(*key_states.shape[:3], -1)
        for name, new in (("keys", key_states), ("values", value_states), ("weights", weights)):
            room = state[name].new_zeros(*new.shape[:2], width - stored, new.shape[3])
            wide = torch.cat((state[name][:, :, :stored], room), dim=2)
            joined.append(scatter_tokens(wide, new, start))  # (B, H, W, ·)
        slots = state["slot_keys"], state["slot_values"], state["slot_mass"]

        self.advance(length, lengths)
        shift = self.first_exact_token(self.counts) - before  # (B,), whole segments that fall behind
        self.fold(joined, shift // segment)
        kept = shift[:, None] + torch.arange(2 * segment, device=shift.device)  # (B, 2s)
        kept = kept.clamp(max=width - 1)[:, None, :, None]  # positions past the last token are overwritten or unseen
        for name, states in zip(("keys", "values", "weights"), joined, strict=True):
            state[name] = states.gather(2, kept.expand(*states.shape[:2], -1, states.shape[3]))
        return start, slots, *joined

    def fold(self, joined: list[torch.Tensor], count: torch.Tensor) -> None:
        """Add each row's first `count` (B,) segments of keys, values and weights (B, H, W, ·) to the slots."""
        keys, values, weights = (states.unflatten(2, (-1, self.segment)) for states in joined)  # (B, H, m, s, ·)
        behind = torch.arange(keys.shape[2], device=count.device) < count[:, None]  # (B, m)
        weights = (weights * behind[:, None, :, None, None]).flatten(2, 3).mT  # (B, H, k, W)
        for name, states in (("slot_keys", keys), ("slot_values", values)):
            self.state[name] = self.state[name] + (weights @ states.flatten(2, 3)).to(self.state[name].dtype)
        self.state["slot_mass"] = self.state["slot_mass"] + weights.sum(-1).to(self.state["slot_mass"].dtype)

    def can_remove(self, removed):
        return torch.equal(self.first_exact_token(self.counts), self.first_exact_token(self.counts - removed))


class LinformerAttention(LinearTimeAttention):
    """Causal Linformer attention: O(T (2s + k) D) time and memory, a decoding state of constant size.

    With `linformer_slot_type` "positional" a token's slot weights depend on its position in its segment (the
    Linformer's own E, one per head); with "content" on its hidden state.
    """

    cache_layer = LinformerCache
    own_weights = ("slot_logits", "slot_proj.weight")

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.segment = config.linformer_segment
        self.slots = config.linformer_slots
        if config.linformer_slot_type == "positional":
            self.slot_logits: nn.Parameter | None = nn.Parameter(
                torch.empty(self.num_heads, self.segment, self.slots)  # (H, s, k)
            )
            self.slot_proj = None
        else:
            self.slot_logits = None
            self.slot_proj = nn.Linear(config.hidden_size, self.num_heads * self.slots, bias=False)

    @classmethod
    def check_config(cls, config):
        """Refuse more positional slots than a segment has positions: the rest could never differ."""
        if config.linformer_slot_type == "positional" and config.linformer_slots > config.linformer_segment:
            raise ValueError(
                f"linformer_slots ({config.linformer_slots}) must be at most linformer_segment "
                f"({config.linformer_segment}) with positional slots"
            )

    def init_own_weights(self):
        """Draw positional slot logits from N(0, 1), wide, so that the slots start out different."""
        if self.slot_logits is not None:
            init.normal_(self.slot_logits)

    def project_inputs(self, hidden_states, position_embeddings):
        """Return queries, keys, values and, where slots go by content, the slot weights (B, H, T, k)."""
        inputs = self.project(hidden_states, position_embeddings)
        if self.slot_proj is None:
            return inputs
        logits = self.slot_proj(hidden_states).unflatten(-1, (self.num_heads, self.slots))  # (B, T, H, k)
        return *inputs, logits.softmax(dim=-1).transpose(1, 2)

    def positional_weights(self, length: int, counts: torch.Tensor | None) -> torch.Tensor:
        """Return the slot weights (1 or B, H, T, k) of the next T tokens after each row's first `counts` (B,)."""
        assert self.slot_logits is not None  # called for positional slots alone
        weights = self.slot_logits.softmax(dim=-1)  # (H, s, k)
        if counts is None:
            repeats = -(-length // self.segment)
            return weights.repeat(1, repeats, 1)[None, :, :length]
        positions = (counts[:, None] + torch.arange(length, device=counts.device)) % self.segment  # (B, T)
        return weights[:, positions].transpose(0, 1)  # (B, H, T, k)

    def attend(self, query, key, value, weights=None, *, state=None, lengths=None):
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
        start, slots, key, value, weights = state.update(key, value, weights, lengths)  # from a segment's start on
        if length == 1:
            return self.decode_step(query, key, value, start, slots)
        query = scatter_tokens(torch.zeros_like(key), query, start)
        mixed = linformer_attention(query, key, value, weights, self.segment, slots=slots, **settings)
        return gather_tokens(mixed, length, start)

    def decode_step(self, query, key, value, start, slots) -> torch.Tensor:
        """Decode one token: query (B, H, 1, D) at position `start` (B,) among the exact keys (B, H, S, D)."""
        key_sums, value_sums, mass = slots
        keys = torch.cat((slot_means(key_sums, mass, key.dtype), key), dim=2)  # (B, H, k + S, D)
        values = torch.cat((slot_means(value_sums, mass, value.dtype), value), dim=2)
        later = torch.arange(key.shape[2], device=key.device) > start[:, None]  # (B, S)
        bias = mass.new_zeros(key.shape[:3]).masked_fill(later[:, None], float("-inf"))  # (B, H, S)
        bias = torch.cat((slot_bias(mass), bias), dim=2)[:, :, None]  # (B, H, 1, k + S)
        scores = (query * self.scaling) @ keys.mT + bias
        attention_weights = scores.softmax(dim=-1).to(values.dtype)
        return nn.functional.dropout(attention_weights, self.dropout) @ values  # (B, H, 1, D)
