"""Gated DeltaNet: a linear-time memory that corrects what it recalls before it writes, in O(T).

The gated delta rule (Yang et al. 2025, arXiv 2412.06464, section 3.1): a memory S maps keys to values. At token t it
fades by a in (0, 1), recalls what it has for the key, and writes the difference to the value with a strength b in
(0, 1), S_t = a_t S_{t-1} (I - b_t k_t k_tᵀ) + b_t v_t k_tᵀ. So a key's new value replaces the old one, where sums as
the Performer's would add both. The output is S_t q_t.

Training works in chunks (Yang et al. 2024, arXiv 2406.06484, section 3.2). In a chunk that starts with memory S, token
i writes u_i = b_i (v_i - g_i S k_i - Σ_{j<i} (g_i / g_j) (k_j·k_i) u_j), where g_i is the product of a up to token i.
That is a triangular system of the chunk's tokens, (I + A) U = diag(b) (V - diag(g) K Sᵀ), which is solved once for
all S. Only a loop over chunks is left. The code stores Sᵀ, a row for each coordinate of the keys.
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils.generic import maybe_autocast

from .attention_base_minigpt import LinearTimeAttention, MiniGPTHeadRMSNorm, chunk, gather_tokens, unchunk
from .cache_layers_minigpt import StateCacheLayer
from .configuration_minigpt import MiniGPTConfig

DECAY_BIAS = 8.0  # a = sigmoid(8) at first: a memory fades to 1/e in 3,000 tokens
# Of the output norm. Large, as a query that finds nothing reads little but rounding errors, which must stay small.
OUTPUT_EPS = 1e-2


def causal_convolution(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Convolve each channel along the tokens: (B, taps - 1 + T, X) by weights (X, 1, taps) to (B, T, X).

    The last tap is the token's own.
    """
    if torch.compiler.is_compiling():  # which fuses these shifts, and would compile a convolution for each length
        length = states.shape[1] - weight.shape[2] + 1
        mixed = states[:, :length] * weight[:, 0, 0]
        for tap in range(1, weight.shape[2]):
            mixed = mixed + states[:, tap : tap + length] * weight[:, 0, tap]
        return mixed
    # As an image one pixel wide, whose channels are neighbours in memory: without a copy, three times as fast on a CPU
    # as the library's convolution of a sequence.
    image = states[:, :, None].permute(0, 3, 1, 2)  # (B, X, taps - 1 + T, 1)
    mixed = nn.functional.conv2d(image, weight[..., None], groups=weight.shape[0])
    return mixed.squeeze(-1).mT  # (B, T, X); the gradient of an index would be a copy


def to_unit_length(states: torch.Tensor) -> torch.Tensor:
    """Divide vectors by their length; a zero stays zero."""
    # A product: the library's quotient has twice the cost in its gradient.
    return states * states.norm(dim=-1, keepdim=True).clamp(min=1e-6).reciprocal()


def decay_between(log_decay: torch.Tensor) -> torch.Tensor:
    """Return the decay from token j to token i of each chunk, a_{j+1} … a_i, zero for j > i.

    Args:
        log_decay: log a, (B, H, n, c, 1).

    Returns:
        (B, H, n, c, c), ones on the diagonal.
    """
    size = log_decay.shape[3]
    lower = torch.ones(size, size, dtype=log_decay.dtype, device=log_decay.device).tril()
    # Sums of numbers of one sign. A difference of two running sums would lose all digits of a slow decay that follows
    # a strong one.
    sums = lower @ (log_decay * lower.tril(-1))  # (B, H, n, c, c): row i, column j is the sum over j < l <= i
    return sums.masked_fill(lower == 0, float("-inf")).exp()


def decayed_products(query: torch.Tensor, key: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
    """Return the products q·k of each chunk, (B, G, n, c, K), times each head's decay from k to q, (B, H, n, c, c)."""
    products = (query @ key.mT)[:, :, None]  # (B, G, 1, n, c, c)
    return (products * between.unflatten(1, (products.shape[1], -1))).flatten(1, 2)


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Split the columns of each group: (B, G, c, H / G · E) to (B, H, c, E)."""
    groups = states.shape[1]
    return states.unflatten(-1, (heads // groups, -1)).transpose(2, 3).flatten(1, 2)


def join_heads(states: torch.Tensor, groups: int) -> torch.Tensor:
    """Undo `split_heads`: (B, H, c, E) to (B, G, c, H / G · E)."""
    return states.unflatten(1, (groups, -1)).transpose(2, 3).flatten(3)


def gated_delta_step(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    beta: torch.Tensor,
    log_decay: torch.Tensor,
    memory: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply `gated_delta_rule` to one token, without the triangular system of a chunk."""
    heads = value.shape[1]
    decay = log_decay.exp()  # (B, H, 1, 1)
    written = beta * (value - decay * split_heads(key @ memory, heads))  # (B, H, 1, E)
    columns = join_heads(decay.expand_as(value), key.shape[1])  # (B, G, 1, H / G · E)
    memory = memory * columns + key.mT @ join_heads(written, key.shape[1])
    return split_heads(query @ memory, heads), memory


def solve_chunks(key: torch.Tensor, beta: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
    """Return (I + A)⁻¹ diag(b) of each chunk, (B, H, n, c, c): by it, what a chunk writes is linear in its values.

    Args:
        key: (B, G, n, c, K).
        beta: (B, H, n, c, 1).
        between: decays by `decay_between`, (B, H, n, c, c).
    """
    system = beta * decayed_products(key, key, between)  # (B, H, n, c, c)
    # Only what is below the diagonal is read; the diagonal is taken for ones. By substitution, as a product of powers
    # of A, which is as fast, loses all digits where keys are alike.
    return torch.linalg.solve_triangular(system, torch.diag_embed(beta[..., 0]), upper=False, unitriangular=True)


def scan_chunks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    solution: torch.Tensor,
    from_start: torch.Tensor,
    to_end: torch.Tensor,
    memory: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pass the memory on from chunk to chunk.

    Args:
        query, key: (B, G, n, c, K).
        value: (B, H, n, c, E).
        solution: by `solve_chunks`, (B, H, n, c, c).
        from_start, to_end: decay from the chunk's start to each token, and from there to its end, (B, H, n, c, 1).
        memory: (B, G, K, H / G · E).

    Returns:
        What each query finds in the memory that its chunk starts with, before decay, and what each token writes, both
        (B, H, n, c, E); and the memory after the last chunk.
    """
    groups, heads = query.shape[1], value.shape[1]
    asked = torch.cat((key, query), dim=3)  # (B, G, n, 2c, K): one product with the memory for both
    whole = from_start[:, :, :, -1:].expand(*from_start.shape[:3], 1, value.shape[-1])  # (B, H, n, 1, E)
    reads = []
    writes = []
    for ask, k, v, solve, start, end, fade in zip(
        *(states.unbind(2) for states in (asked, key, value, solution, from_start, to_end, whole)), strict=True
    ):
        recalled, read = split_heads(ask @ memory, heads).chunk(2, dim=2)  # (B, H, c, E) each
        written = solve @ (v - start * recalled)
        memory = memory * join_heads(fade, groups) + k.mT @ join_heads(end * written, groups)
        reads.append(read)
        writes.append(written)
    return torch.stack(reads, dim=2), torch.stack(writes, dim=2), memory


def gated_delta_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    beta: torch.Tensor,
    log_decay: torch.Tensor,
    chunk_size: int,
    memory: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read and write a memory token by token, computed in chunks.

    G heads of queries and keys serve H heads of values, H / G each. A group's heads share one memory: they are its
    columns, each with its own strength and decay.

    Args:
        query, key: (B, G, T, K), the keys no longer than 1.
        value: (B, H, T, E), any T.
        beta: how strongly each token writes, in [0, 1], (B, H, T, 1).
        log_decay: log a, at most 0, (B, H, T, 1). A token with beta and log_decay 0 leaves no trace.
        chunk_size: tokens computed together; changes time and memory, O(T (chunk_size + K) E), not the function.
        memory: what to start from, (B, G, K, H / G · E); zeros when None.

    Returns:
        What each query reads, (B, H, T, E), and the memory after the last token.
    """
    length = query.shape[2]
    if memory is None:
        columns = value.shape[1] // query.shape[1] * value.shape[3]
        memory = value.new_zeros(*query.shape[:2], query.shape[3], columns)
    if length == 1:
        return gated_delta_step(query, key, value, beta, log_decay, memory)
    query, key, value, beta, log_decay = (
        chunk(states, chunk_size) for states in (query, key, value, beta, log_decay)
    )  # (B, G or H, n, c, ·)
    between = decay_between(log_decay)  # (B, H, n, c, c)
    from_start = log_decay.cumsum(dim=3).exp()  # (B, H, n, c, 1)
    own = decayed_products(query, key, between)  # what a query reads of its own chunk
    solution = solve_chunks(key, beta, between)
    reads, writes, memory = scan_chunks(query, key, value, solution, from_start, between[..., -1, :, None], memory)
    return unchunk(from_start * reads + own @ writes, length), memory


class GatedDeltaNetCache(StateCacheLayer):
    """The memory, G K² = C² / G float32 numbers per row, and the last taps - 1 inputs of the convolutions, 3 C each.

    Every token leaves at once.
    """

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.groups = config.gated_deltanet_heads
        self.taps = config.gated_deltanet_convolution

    def init_state(self, like):
        batch, _, _, streams = like.shape
        size = streams // 3 // self.groups
        dtype = torch.promote_types(like.dtype, torch.float32)
        return {
            "memory": like.new_zeros(batch, self.groups, size, size, dtype=dtype),
            "last": like.new_zeros(batch, 1, self.taps - 1, streams),
        }

    def extend(self, streams: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Return (B, 1, T, 3 C) with the taps - 1 tokens before them, and store each row's last ones."""
        self.lazy_initialization(streams, streams)
        joined = torch.cat((self.state["last"], streams), dim=2)  # (B, 1, taps - 1 + T, 3 C)
        if lengths is None:
            lengths = torch.full_like(self.state["counts"], streams.shape[2])
        # Copied out: a view would keep the whole text in memory.
        self.state["last"] = gather_tokens(joined, self.taps - 1, lengths)
        return joined

    def update(self, memory, length, lengths=None):
        """Replace the memory by the one after `length` more columns."""
        self.state["memory"] = memory
        self.advance(length, lengths)


class GatedDeltaNetAttention(LinearTimeAttention):
    """Gated DeltaNet: O(T (chunk + K) C) time, and a decoding state of constant size.

    Keys and queries of `gated_deltanet_heads` heads, K = C / heads wide, serve all heads of values: what a memory can
    tell apart grows with K, and one head of keys has a memory of C² numbers, as many as the keys and values of C / 2
    tokens in full attention. Queries and keys are not rotated: the convolutions know a token's neighbours and the
    decay its age, and a rotated key would be found from one distance alone. The decay is a = sigmoid(w·x + bias), the
    paper's exp(-A softplus(…)) with A = 1.

    There are no attention weights to drop: `attention_dropout` drops what a token writes, which has the same mean.
    """

    cache_layer = GatedDeltaNetCache
    own_weights = (
        "convolution",
        "decay_bias",
        "beta_proj.weight",
        "decay_proj.weight",
        "gate_proj.weight",
        "gate_proj.bias",
        "o_norm.weight",
    )

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        width = config.hidden_size
        self.groups = config.gated_deltanet_heads
        self.taps = config.gated_deltanet_convolution
        # Of queries, keys and values, in a Conv1d's shape: Muon would take a matrix.
        self.convolution = nn.Parameter(torch.empty(3 * width, 1, self.taps))
        self.beta_proj = nn.Linear(width, self.num_heads, bias=False)
        self.decay_proj = nn.Linear(width, self.num_heads, bias=False)
        self.decay_bias = nn.Parameter(torch.empty(self.num_heads))
        self.gate_proj = nn.Linear(width, width, bias=config.use_bias)
        self.o_norm = MiniGPTHeadRMSNorm(self.head_dim, eps=OUTPUT_EPS)

    @classmethod
    def check_config(cls, config):
        """Refuse heads of keys that cannot each serve as many heads of values."""
        if config.num_attention_heads % config.gated_deltanet_heads:
            raise ValueError(
                f"gated_deltanet_heads ({config.gated_deltanet_heads}) must divide num_attention_heads "
                f"({config.num_attention_heads})"
            )

    def init_own_weights(self):
        """Draw small taps, so that SiLU starts out linear; start with a decay that forgets little."""
        init.normal_(self.convolution, 0.0, self.config.initializer_range)
        init.constant_(self.decay_bias, DECAY_BIAS)

    def project_inputs(self, hidden_states, position_embeddings):
        """Return queries, keys and values to be convolved, (B, 1, T, 3 C), betas and log decays (B, H, T, 1)."""
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        streams = [
            states.transpose(1, 2).flatten(2).to(dtype)  # (B, T, C)
            for states in self.project(hidden_states, None)
        ]
        beta = self.beta_proj(hidden_states).to(dtype).sigmoid()  # (B, T, H)
        log_decay = nn.functional.logsigmoid(self.decay_proj(hidden_states).to(dtype) + self.decay_bias)
        return torch.cat(streams, dim=-1)[:, None], beta.mT[..., None], log_decay.mT[..., None]

    def prepare_inputs(self, streams, beta, log_decay, *, state=None, lengths=None):
        """Convolve; return queries and keys (B, G, T, K), unit vectors, values (B, H, T, D), betas and log decays."""
        if state is None:
            start = streams.new_zeros(streams.shape[0], 1, self.taps - 1, streams.shape[3])
            joined = torch.cat((start, streams), dim=2)  # the library's pad would fill all of it first
        else:
            joined = state.extend(streams, lengths)
        with maybe_autocast(streams.device.type, enabled=False):
            mixed = causal_convolution(joined.squeeze(1), self.convolution.to(joined.dtype))  # (B, T, 3 C)
        mixed = nn.functional.silu(mixed)
        query, key, value = (
            states.unflatten(-1, (heads, -1)).transpose(1, 2)
            for states, heads in zip(mixed.chunk(3, dim=-1), (self.groups, self.groups, self.num_heads), strict=True)
        )
        # With keys of length 1, beta 1 replaces what was written for a key, and no write can make the memory grow.
        query = to_unit_length(query)
        key = to_unit_length(key)
        if lengths is not None:  # padding neither writes nor fades
            real = (torch.arange(streams.shape[2], device=streams.device) < lengths[:, None])[:, None, :, None]
            beta = beta * real
            log_decay = log_decay * real
        return query, key, value, beta, log_decay

    def attend(self, query, key, value, beta, log_decay, *, state=None, lengths=None):
        """Mix the values: (B, H, T, D)."""
        chunk_size = min(self.config.gated_deltanet_chunk, query.shape[2])
        if self.dropout:
            value = value * nn.functional.dropout(torch.ones_like(value[..., :1]), self.dropout)
        memory = None if state is None else state.state["memory"]
        with maybe_autocast(query.device.type, enabled=False):  # errors of a memory add up over the whole text
            mixed, memory = gated_delta_rule(query, key, value, beta, log_decay, chunk_size, memory)
        if state is not None:
            state.update(memory, query.shape[2], lengths)
        return mixed

    def project_output(self, mixed, hidden_states):
        """Normalise each head's output (B, H, T, D), gate it and map it to (B, T, C)."""
        normalised = self.o_norm(mixed.transpose(1, 2)).flatten(2)  # (B, T, C)
        gated = normalised * nn.functional.silu(self.gate_proj(hidden_states))
        # A norm that was left in float32 lengthens it; autocast itself chooses the product's dtype.
        if gated.is_meta or not torch.is_autocast_enabled(gated.device.type):
            gated = gated.to(hidden_states.dtype)
        return self.o_proj(gated)
