"""Causal Performer: softmax attention through positive random features (FAVOR+), in O(T).

Choromanski et al. 2021 (arXiv 2009.14794): exp(q·k) is the mean over w ~ N(0, I) of phi_w(q) phi_w(k) with
phi_w(x) = exp(w·x - |x|²/2) (lemma 1), and orthogonal w have less variance (section 2.4). Numerators and denominators
are then running sums over keys. Unlike trigonometric features, positive ones keep small weights small and above zero.
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils.generic import maybe_autocast

from .attention_base_minigpt import LinearTimeAttention, chunk, unchunk
from .cache_layers_minigpt import StateCacheLayer
from .configuration_minigpt import MiniGPTConfig


def draw_features(heads: int, features: int, dim: int, seed: int, orthogonal: bool = True) -> torch.Tensor:
    """Draw w (H, m, D), each row N(0, I); orthogonal ones are orthogonal within every D rows.

    The draw depends on `seed` only, not on any global generator.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    blocks = -(-features // dim)
    rows = torch.randn(heads, blocks, dim, dim, generator=generator, device="cpu", dtype=torch.float64)
    if orthogonal:
        lengths = torch.randn(heads, blocks, dim, dim, generator=generator, device="cpu", dtype=torch.float64)
        directions, upper = torch.linalg.qr(rows)
        directions = directions * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]  # makes Q uniform (Haar)
        rows = directions.mT * lengths.norm(dim=-1, keepdim=True)  # rows as long as a normal vector's
    return rows.flatten(1, 2)[:, :features].float()  # (H, m, D)


def log_features(states: torch.Tensor, features: torch.Tensor, norms: bool) -> torch.Tensor:
    """Return log phi (B, H, T, m) of states (B, H, T, D) with w (H, m, D), so that phi(q)·phi(k) ≈ m exp(q·k/√D).

    A query's norm scales its numerator and its denominator alike, so it may be left out.
    """
    dtype = torch.promote_types(states.dtype, torch.float32)
    states = states.to(dtype) * states.shape[-1] ** -0.25
    logs = states @ features.to(dtype).mT
    return logs - states.square().sum(-1, keepdim=True) / 2 if norms else logs


def relative_features(
    query: torch.Tensor,
    key: torch.Tensor,
    features: torch.Tensor,
    running_max: torch.Tensor | None,
    lengths: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features of queries and keys that cannot overflow.

    Returns:
        The features (B, H, T, m) of queries, each relative to its own largest, and of keys, relative to the running
        maximum of all keys' features so far; and that maximum before each token and after the last (B, H, 1 + T).
    """
    query = log_features(query, features, norms=False)
    key = log_features(key, features, norms=True)
    if lengths is not None:
        padding = torch.arange(key.shape[2], device=key.device) >= lengths[:, None]  # (B, T)
        key = key.masked_fill(padding[:, None, :, None], float("-inf"))
    if running_max is None:
        lowest = torch.finfo(key.dtype).min / 2  # finite: no difference is inf - inf
        running_max = key.new_full(key.shape[:2], lowest)
    maxima = torch.cat((running_max[:, :, None], key.detach().amax(-1)), dim=2).cummax(dim=2).values
    relative_query = (query - query.detach().amax(-1, keepdim=True)).exp()
    relative_key = (key - maxima[:, :, 1:, None]).exp()
    return relative_query, relative_key, maxima


def scan_by_doubling(
    writes: torch.Tensor, ends: torch.Tensor, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum what the chunks write, as `chunk_initial_states` does, in log n steps instead of n (Hillis and Steele 1986).

    A compiler unrolls a loop, so this one has a graph for each doubling of the text, and not for each length. After
    the steps of 1, 2, 4, … a chunk has the sum of its own 2, 4, 8, … last writes.
    """
    totals = torch.cat((sums[:, :, None], writes), dim=2)  # (B, H, n + 1, m, E), each relative to its own maximum
    ends = ends[..., None, None]  # (B, H, n + 1, 1, 1)
    count = totals.shape[2]
    step = 1
    while step < count:
        # Shifted by padding, as a compiler specialises on slices that happen to have one chunk.
        shift = (0, 0, 0, 0, step, 0)
        decays = (nn.functional.pad(ends, shift)[:, :, :count] - ends).clamp(max=0).exp()  # the padding's are unused
        totals = totals + nn.functional.pad(totals, shift)[:, :, :count] * decays
        step *= 2
    return totals[:, :, :-1], totals[:, :, -1]


def chunk_initial_states(
    key: torch.Tensor, value: torch.Tensor, now: torch.Tensor, ends: torch.Tensor, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums each chunk starts from, (B, H, n, m, E), and the sums after the last, (B, H, m, E).

    Args:
        key: features (B, H, n, chunk, m), relative to their own running maximum `now` (B, H, n, chunk).
        value: (B, H, n, chunk, E).
        ends: the maximum before each chunk and after the last, (B, H, n + 1).
        sums: of everything before the first chunk, (B, H, m, E), relative to `ends[:, :, 0]`.
    """
    writes = (key * (now - ends[:, :, 1:, None]).exp()[..., None]).mT @ value  # (B, H, n, m, E)
    decays = (ends[:, :, :-1] - ends[:, :, 1:]).exp()[..., None, None]  # (B, H, n, 1, 1)
    if torch.compiler.is_compiling():
        return scan_by_doubling(writes, ends, sums)
    starts = []
    for write, decay in zip(writes.unbind(2), decays.unbind(2), strict=True):  # over chunks, not over tokens
        starts.append(sums)
        sums = sums * decay + write
    return torch.stack(starts, dim=2), sums


def performer_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    features: torch.Tensor,
    chunk_size: int,
    sums: torch.Tensor | None = None,
    running_max: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attend causally by running sums, in chunks.

    Key features are relative to their running maximum M_t, a number per head that knows no future key: keys enter at
    exp(log phi - M_j) <= 1 and are read by query t at exp(M_j - M_t) <= 1. M cancels in the ratio, so it carries no
    gradient; it only keeps sums from overflowing, and chunked, whole and token-by-token runs agree.

    Args:
        query, key, value: (B, H, T, D), any T.
        features: w (H, m, D).
        chunk_size: tokens computed together; changes time and memory, O(T (chunk_size + m) D), not the function.
        sums: running Σ phi(k) [v, 1] (B, H, m, D + 1) to start from, relative to `running_max`.
        running_max: running maximum M (B, H) to start from.
        lengths: real tokens of each row, (B,), the first ones; the others leave no trace in the sums.

    Returns:
        Mixed values (B, H, T, D), and `sums` and `running_max` after the last token.
    """
    length = query.shape[2]
    chunks = -(-length // chunk_size)
    query, key, maxima = relative_features(query, key, features, running_max, lengths)
    value = nn.functional.pad(value.to(key.dtype), (0, 1), value=1.0)  # (B, H, T, D + 1): the denominators too
    if sums is None:
        sums = value.new_zeros(*key.shape[:2], key.shape[3], value.shape[3])

    query, key, value = (chunk(states, chunk_size) for states in (query, key, value))  # (B, H, n, chunk, ·)
    ends = nn.functional.pad(maxima, (0, chunks * chunk_size - length), mode="replicate")
    now = ends[:, :, 1:].unflatten(2, (chunks, chunk_size))  # (B, H, n, chunk)
    ends = ends[:, :, ::chunk_size]  # (B, H, n + 1)
    later = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=key.device).triu(1)
    decay = (now[..., None, :] - now[..., None]).masked_fill(later, float("-inf")).exp()  # (B, H, n, chunk, chunk)
    mixed = ((query @ key.mT) * decay) @ value  # (B, H, n, chunk, D + 1), from the query's own chunk
    starts, sums = chunk_initial_states(key, value, now, ends, sums)
    decay = (ends[:, :, :-1, None] - now).exp()[..., None]  # (B, H, n, chunk, 1)
    mixed = unchunk(mixed + (query * decay) @ starts, length)  # (B, H, T, D + 1), and from the chunks before
    mixed = mixed[..., :-1] / mixed[..., -1:].clamp(min=1e-30)  # all weights underflown: zero, not NaN
    return mixed, sums, maxima[:, :, -1]


class PerformerCache(StateCacheLayer):
    """Running sums of features times values, relative to a running maximum: H (m (D + 1) + 1) numbers per row.

    Every token leaves at once.
    """

    def init_state(self, like):
        return {}

    def read(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the sums (B, H, m, D + 1) and the maximum (B, H); None twice before the first token."""
        return self.state.get("sums"), self.state.get("running_max")

    def update(self, sums, running_max, length, lengths=None):
        """Replace the state by the one after `length` more columns."""
        self.lazy_initialization(sums, sums)
        self.state |= {"sums": sums, "running_max": running_max}
        self.advance(length, lengths)


class PerformerAttention(LinearTimeAttention):
    """Causal FAVOR+ attention: O(T m D) time, and a decoding state of H m (D + 1) + H numbers.

    There are no attention weights to drop: `attention_dropout` drops a key's value from the numerator for all later
    queries at once, which has the same mean.
    """

    cache_layer = PerformerCache
    own_weights = ("features",)

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        # Saved with the weights, which are trained for exactly these features.
        self.register_buffer("features", torch.empty(self.num_heads, config.performer_features, self.head_dim))

    def init_own_weights(self):
        """Fill the features (H, m, D), each layer's from a seed of its own."""
        seed = self.config.performer_seed * 1_000_003 + self.layer_idx
        init.copy_(self.features, draw_features(*self.features.shape, seed=seed))

    def attend(self, query, key, value, *, state=None, lengths=None):
        """Mix the values: (B, H, T, D)."""
        chunk_size = min(self.config.performer_chunk, query.shape[2])
        kept = nn.functional.dropout(torch.ones_like(value[..., :1]), self.dropout) if self.dropout else 1.0
        sums, running_max = (None, None) if state is None else state.read()
        with maybe_autocast(query.device.type, enabled=False):  # exponents of features need float32's digits
            mixed, sums, running_max = performer_attention(
                query, key, value * kept, self.features, chunk_size, sums, running_max, lengths
            )
        if state is not None:
            state.update(sums, running_max, query.shape[2], lengths)
        return mixed.to(value.dtype)
