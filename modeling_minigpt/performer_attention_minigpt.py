"""Causal Performer: softmax attention through positive random features (FAVOR+), in O(T).

Choromanski et al. 2021 (arXiv 2009.14794): exp(q·k) is the mean over w ~ N(0, I) of phi_w(q) phi_w(k) with
phi_w(x) = exp(w·x - |x|²/2) (lemma 1), and orthogonal w have less variance (section 2.4). Numerators and denominators
are then running sums over keys. Unlike trigonometric features, positive ones keep small weights small and above zero.
"""

import torch
from torch import nn

from .attention_base_minigpt import LinearTimeAttention, chunk, unchunk
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
    peak: torch.Tensor | None,
    added: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the features (B, H, T, m) of queries, each relative to its own largest, and of keys, relative to the
    running maximum of all keys' features so far, and that maximum before each token and after the last (B, H, 1 + T).
    """
    query, key = log_features(query, features, norms=False), log_features(key, features, norms=True)
    if added is not None:
        padding = torch.arange(key.shape[2], device=key.device) >= added[:, None]  # (B, T)
        key = key.masked_fill(padding[:, None, :, None], float("-inf"))
    if peak is None:
        peak = key.new_full(key.shape[:2], torch.finfo(key.dtype).min / 2)  # finite: no difference is inf - inf
    peaks = torch.cat((peak[:, :, None], key.detach().amax(-1)), dim=2).cummax(dim=2).values
    return (query - query.detach().amax(-1, keepdim=True)).exp(), (key - peaks[:, :, 1:, None]).exp(), peaks


def chunk_initial_states(
    key: torch.Tensor, value: torch.Tensor, now: torch.Tensor, ends: torch.Tensor, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums each chunk starts from, (B, H, n, m, E), and the sums after the last, (B, H, m, E).

    Keys (B, H, n, chunk, m) are relative to their own running maximum, `now` (B, H, n, chunk); `sums` (B, H, m, E), of
    everything before, to `ends[:, :, 0]`. `ends` (B, H, n + 1) holds the maximum before each chunk and after the last.
    """
    writes = (key * (now - ends[:, :, 1:, None]).exp()[..., None]).mT @ value  # (B, H, n, m, E)
    fades = (ends[:, :, :-1] - ends[:, :, 1:]).exp()[..., None, None]  # (B, H, n, 1, 1)
    starts = []
    for write, fade in zip(writes.unbind(2), fades.unbind(2), strict=True):  # over chunks, not over tokens
        starts.append(sums)
        sums = sums * fade + write
    return torch.stack(starts, dim=2), sums


def performer_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    features: torch.Tensor,
    chunk_size: int,
    sums: torch.Tensor | None = None,
    peak: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attend causally by running sums, in chunks.

    Key features are held relative to their running maximum M_t, a number per head that knows no future key: keys
    enter at exp(log phi - M_j) <= 1 and are read by query t at exp(M_j - M_t) <= 1. M cancels in the ratio, so it
    carries no gradient; it only keeps sums from overflowing, and chunked, whole and token-by-token runs agree.

    Args:
        query, key, value: (B, H, T, D), any T.
        features: w (H, m, D).
        chunk_size: tokens handled at once; changes time and memory, O(T (chunk_size + m) D), not the function.
        sums: running Σ phi(k) [v, 1] (B, H, m, D + 1) to start from, relative to `peak`.
        peak: running maximum M (B, H) to start from.
        added: real tokens of each row, (B,), the first ones; the others leave no trace in the sums.

    Returns:
        Mixed values (B, H, T, D), and `sums` and `peak` after the last token.
    """
    length, count = query.shape[2], -(-query.shape[2] // chunk_size)
    query, key, peaks = relative_features(query, key, features, peak, added)
    value = nn.functional.pad(value.to(key.dtype), (0, 1), value=1.0)  # (B, H, T, D + 1): the denominators ride along

    if sums is None:
        sums = value.new_zeros(*key.shape[:2], key.shape[3], value.shape[3])
    tail = count * chunk_size - length
    query, key, value = (chunk(states, chunk_size) for states in (query, key, value))  # (B, H, n, chunk, ·)
    ends = nn.functional.pad(peaks, (0, tail), mode="replicate")
    now = ends[:, :, 1:].unflatten(2, (count, chunk_size))  # (B, H, n, chunk)
    ends = ends[:, :, ::chunk_size]  # (B, H, n + 1)
    later = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=key.device).triu(1)
    fade = (now[..., None, :] - now[..., None]).masked_fill(later, float("-inf")).exp()  # (B, H, n, chunk, chunk)
    mixed = ((query @ key.mT) * fade) @ value  # (B, H, n, chunk, D + 1), from the query's own chunk
    starts, sums = chunk_initial_states(key, value, now, ends, sums)
    fade = (ends[:, :, :-1, None] - now).exp()[..., None]  # (B, H, n, chunk, 1)
    mixed = unchunk(mixed + (query * fade) @ starts, length)  # (B, H, T, D + 1), and from those before
    mixed = mixed[..., :-1] / mixed[..., -1:].clamp(min=1e-30)  # all weights underflown: zero, not NaN
    return mixed, sums, peaks[:, :, -1]


class PerformerAttention(LinearTimeAttention):
    """Causal FAVOR+ attention: O(T m D) time, and a decoding state of H m (D + 1) + H numbers.

    There are no attention weights to drop: `attention_dropout` drops a key's value from the numerator for all later
    queries at once, which has the same mean.
    """

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        # Saved with the weights, which are trained for these very features and for no redrawn ones.
        self.register_buffer("features", self.draw_features())

    def draw_features(self) -> torch.Tensor:
        """Return the layer's w (H, m, D); how `_init_weights` fills the buffer."""
        seed = self.config.performer_seed * 1_000_003 + self.layer_idx
        return draw_features(self.num_heads, self.config.performer_features, self.head_dim, seed=seed)

    def attend(self, query, key, value, *, state=None, added=None):
        """Mix the values: (B, H, T, D)."""
        chunk_size = min(self.config.performer_chunk, query.shape[2])
        kept = nn.functional.dropout(torch.ones_like(value[..., :1]), self.dropout) if self.dropout else 1.0
        sums, peak = (None, None) if state is None else state.read()
        with torch.autocast(query.device.type, enabled=False):  # exponents of features need float32's digits
            mixed, sums, peak = performer_attention(
                query, key, value * kept, self.features, chunk_size, sums=sums, peak=peak, added=added
            )
        if state is not None:
            state.update(sums, peak, length=query.shape[2], added=added)
        return mixed.to(value.dtype)
