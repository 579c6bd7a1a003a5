"""What every attention variant of MiniGPT shares: projections, and where a batch's real tokens are.

The linear-time variants have patterns (segments, blocks) that count from a row's first real token. So they first move
each row's real tokens to its front. Padding is then on the right, where causality keeps it from every real token: no
variant ever looks at a padding mask, and a padded row gives what the row alone gives.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from .cache_layers_minigpt import layer_signature
from .configuration_minigpt import MiniGPTConfig
from .rotary_minigpt import apply_rotary


def call_in_fp32_on_cpu(
    kernel: Callable, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *mask, **settings
):
    """Call an attention kernel, `kernel(query, key, value, …)`, in the values' dtype; under CPU autocast in float32.

    The gradient of torch's own CPU kernel takes about twenty times as long in bfloat16. FlexAttention takes one dtype
    only, also where autocast has left rotated queries and keys in float32.
    """
    if not (query.is_cpu and torch.is_autocast_enabled("cpu")):
        return kernel(query.to(value.dtype), key.to(value.dtype), value, *mask, **settings)
    with torch.autocast("cpu", enabled=False):
        return kernel(query.float(), key.float(), value.float(), *mask, **settings)


class MiniGPTHeadRMSNorm(nn.RMSNorm):
    """RMSNorm of each head's queries or keys, in its weight's dtype: autocast projects to a shorter one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.weight.dtype))


def mark_zero_init(module: nn.Module, flag: bool = True) -> None:
    """Let a module's weight start at zero, which the model's `_init_weights` does.

    A block whose output layers start at zero adds nothing to the residual stream at first, so a model of any depth
    starts as its embedding and head alone.
    """
    module.starts_at_zero = flag  # type: ignore[assignment]  # torch types every attribute as a module or tensor


class SelfAttention(nn.Module):
    """The four projections and the norms of queries and keys: the base of every attention variant.

    A variant is one class, listed in `ATTENTION_CLASSES`, that owns all that is particular to it.

    Attributes:
        cache_layer: the class of its decoding state, made as `cache_layer(config, layer_idx)`.
        own_weights: names of the parameters and buffers that a checkpoint of another variant lacks; they start as
            `init_own_weights` leaves them.
        takes_padding: whether `forward` takes a `PaddingInfo` as its mask instead of the library's.
        built_as: the class; unlike `type`, also read through what wraps a module, as `torch.compile` and FSDP do.
    """

    cache_layer: type[CacheLayerMixin] | None = None
    own_weights: tuple[str, ...] = ()
    takes_padding = False

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__()
        self.built_as = type(self)
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        width = config.hidden_size
        self.q_proj = nn.Linear(width, width, bias=config.use_bias)
        self.k_proj = nn.Linear(width, width, bias=config.use_bias)
        self.v_proj = nn.Linear(width, width, bias=config.use_bias)
        self.o_proj = nn.Linear(width, width, bias=config.use_bias)
        mark_zero_init(self.o_proj, config.zero_init_residual)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:  # bounds the scores, so that large learning rates stay stable (Henry et al. 2020)
            self.q_norm = MiniGPTHeadRMSNorm(self.head_dim, eps=config.norm_eps)
            self.k_norm = MiniGPTHeadRMSNorm(self.head_dim, eps=config.norm_eps)

    @classmethod
    def check_config(cls, config: MiniGPTConfig) -> None:
        """Raise ValueError where sizes of a config contradict each other for this variant."""

    @classmethod
    def make_cache_layer(cls, config: MiniGPTConfig, layer_idx: int) -> CacheLayerMixin:
        """Make the empty decoding state of layer `layer_idx`.

        Raises:
            NotImplementedError: the class names none, so that it cannot decode with a cache.
        """
        if cls.cache_layer is None:
            raise NotImplementedError(
                f"{cls.__name__} names no cache layer; set its `cache_layer`, or call the model with use_cache=False"
            )
        return cls.cache_layer(config, layer_idx)

    @classmethod
    def cache_signature(cls, config: MiniGPTConfig, layer_idx: int) -> dict | None:
        """Describe what a cache layer must have in common with layer `layer_idx`; None takes any library layer."""
        return layer_signature(config, layer_idx)

    def init_own_weights(self) -> None:
        """Initialise the tensors named in `own_weights` that are this module's own, and no others."""

    def project(
        self, hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries, keys and values, each (B, H, T, D), normalised and rotated as the config says."""
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)  # (B, T, H, D)
        query = self.q_norm(self.q_proj(hidden_states).view(heads)).transpose(1, 2)
        key = self.k_norm(self.k_proj(hidden_states).view(heads)).transpose(1, 2)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        # After the norms: a rotation keeps lengths, and the norms' learned scales must not mix rotated coordinates.
        if position_embeddings is not None:
            query = apply_rotary(query, *position_embeddings)
            key = apply_rotary(key, *position_embeddings)
        # Norms that were left in float32 lengthen queries and keys; autocast itself chooses each product's dtype.
        if query.dtype != value.dtype and not torch.is_autocast_enabled(value.device.type):
            query = query.to(value.dtype)  # norms that were left in float32 lengthen queries and keys
            key = key.to(value.dtype)
        return query, key, value

    @property
    def dropout(self) -> float:
        """The probability to drop an attention weight now: none in evaluation."""
        return self.attention_dropout if self.training else 0.0


def chunk(states: torch.Tensor, size: int) -> torch.Tensor:
    """Cut (B, H, T, X) into chunks of `size` tokens, (B, H, n, size, X), the last one filled up with zeros."""
    missing = -states.shape[2] % size
    # The library's pad would copy even for none, which a compiler fuses: it gets one graph for all lengths.
    if torch.compiler.is_compiling() or missing:
        states = nn.functional.pad(states, (0, 0, 0, missing))
    return states.unflatten(2, (-1, size))


def unchunk(chunks: torch.Tensor, length: int) -> torch.Tensor:
    """Undo `chunk`: return the first `length` tokens of (B, H, n, size, X) as (B, H, T, X)."""
    states = chunks.flatten(2, 3)
    whole = not torch.compiler.is_compiling() and states.shape[2] == length
    return states if whole else states[:, :, :length]  # even a full slice's gradient is a copy


def scatter_tokens(states: torch.Tensor, new: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Write `new` (B, H, T, X) in place into `states` (B, H, S, X), in row b from position `start[b]` on."""
    index = start[:, None] + torch.arange(new.shape[2], device=new.device)  # (B, T)
    return states.scatter_(2, index[:, None, :, None].expand_as(new), new.to(states.dtype))


def write_tokens(states: torch.Tensor | None, new: torch.Tensor, start: torch.Tensor, capacity: int) -> torch.Tensor:
    """Write as `scatter_tokens` into a cache's buffer with room for `capacity` tokens or more.

    The buffer is `states`, None for an empty one, or a longer copy of it, which is to replace it.
    """
    if states is None:
        states = new.new_zeros(*new.shape[:2], 0, new.shape[3])
    if states.shape[2] < capacity:  # doubling makes an append cost O(1) on average
        room = max(capacity, 2 * states.shape[2]) - states.shape[2]
        states = torch.cat((states, states.new_zeros(*states.shape[:2], room, states.shape[3])), dim=2)
    elif states.is_inference() and not torch.is_inference_mode_enabled():
        states = states.clone()  # made in inference mode, it may not be written to outside
    return scatter_tokens(states, new, start)


def gather_tokens(states: torch.Tensor, length: int, start: torch.Tensor) -> torch.Tensor:
    """Read `length` tokens (B, H, T, X) of `states` (B, H, S, X), in row b from position `start[b]` on."""
    index = start[:, None] + torch.arange(length, device=states.device)  # (B, T)
    return states.gather(2, index[:, None, :, None].expand(*states.shape[:2], -1, states.shape[3]))


def blocks_touched(length: int, block: int) -> int:
    """Return in how many blocks `length` new tokens can be: the first may be its block's last."""
    return (length + block - 2) // block + 1


def into_open_blocks(states: torch.Tensor, counts: torch.Tensor, block: int) -> torch.Tensor:
    """Put new tokens (B, H, T, X) where they are in whole blocks, zeros beside them: (B, H, nq, block, X).

    Row b has seen `counts[b]` tokens. With blocks of 4 and 5 tokens seen, two new ones, x and y,
    become 0 x y 0 and 0 0 0 0.
    """
    rows = blocks_touched(states.shape[2], block)
    blocks = states.new_zeros(*states.shape[:2], rows * block, states.shape[3])
    return scatter_tokens(blocks, states, counts % block).unflatten(2, (rows, block))


def positions_in_blocks(counts: torch.Tensor, length: int, block: int) -> torch.Tensor:
    """Return the positions of what `into_open_blocks` returns for `length` new tokens, (B, nq, block)."""
    rows = blocks_touched(length, block)
    positions = torch.arange(rows * block, device=counts.device) + (counts // block * block)[:, None]
    return positions.unflatten(1, (rows, block))


def is_traced() -> bool:
    """Return whether a graph is recorded, by a compiler, an exporter or `torch.jit.trace`.

    It then must not branch on a tensor's values: it would break there, or serve other values wrongly.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


@dataclass(frozen=True)
class PaddingInfo:
    """Where a padded batch's real tokens are.

    With the mask [[0, 1, 1], [1, 1, 0]] both rows have two real tokens; `order` is [[1, 2, 0], [0, 1, 2]].

    Attributes:
        lengths: real tokens of each row among the new ones, (B,).
        order: columns (B, T) that put each row's real tokens first, in their order; None where they already are.
        real_tail: number of last columns that are real in every row, earlier calls' included; a scalar tensor.
    """

    lengths: torch.Tensor
    order: torch.Tensor | None
    real_tail: torch.Tensor

    @classmethod
    def from_mask(cls, real: torch.Tensor, earlier_tail: int | torch.Tensor = 0) -> "PaddingInfo":
        """Read a boolean mask (B, T), True for real tokens; gaps between them are allowed.

        `earlier_tail` is the `real_tail` of the columns before these.
        """
        tail = real.all(0).long().flip(0).cumprod(0).sum()
        tail = tail + earlier_tail * (tail == real.shape[1])
        # A stable sort by "is padding" keeps the tokens' order on either side; booleans cannot be sorted.
        order = real.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)  # (B, T)
        in_place = not is_traced() and torch.equal(
            order, torch.arange(real.shape[1], device=real.device).expand_as(order)
        )
        return cls(lengths=real.sum(-1), order=None if in_place else order, real_tail=tail)

    def to(self, *args, **kwargs) -> "PaddingInfo":
        """Return it on another device, as `torch.Tensor.to` takes it: the call of hooks that move a layer's inputs."""
        order = None if self.order is None else self.order.to(*args, **kwargs)
        return PaddingInfo(self.lengths.to(*args, **kwargs), order, self.real_tail.to(*args, **kwargs))

    def unpad(self, states: torch.Tensor) -> torch.Tensor:
        """Reorder (B, H, T, X) so that every row starts with its real tokens."""
        if self.order is None:
            return states
        return states.gather(2, self.order[:, None, :, None].expand_as(states))

    def repad(self, states: torch.Tensor) -> torch.Tensor:
        """Undo `unpad`."""
        if self.order is None:
            return states
        # The inverse of a permutation is what sorts it.
        return states.gather(2, self.order.argsort(dim=-1)[:, None, :, None].expand_as(states))


class LinearTimeAttention(SelfAttention):
    """The frame of a linear-time variant: project, unpad, prepare, `attend`, repad, project.

    With `attn_implementation` "eager" a text read in one pass is attended to by its dense weights (B, H, T, T), for
    those who want to see them: O(T²), the same function.
    """

    takes_padding = True

    def project_inputs(
        self, hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, ...]:
        """Return what `attend` reads of each token, every tensor (B, H, T, ·): queries, keys, values and more."""
        return self.project(hidden_states, position_embeddings)

    def prepare_inputs(
        self, *inputs: torch.Tensor, state=None, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Return what `attend` reads, of what was projected, real tokens first: where neighbours are mixed, here.

        `state` and `lengths` are those of `attend`, which advances the state's count.
        """
        return inputs

    def attend(self, *inputs: torch.Tensor, state=None, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Mix the values, (B, H, T, D), whatever their width; the result is linear in them.

        Args:
            inputs: as `prepare_inputs` returns them.
            state: this layer's decoding state, to be read and advanced; None for a text read in one pass.
            lengths: each row's real tokens among the T columns, (B,); all of them when None.
        """
        raise NotImplementedError

    def dense_weights(self, query, key, value, *inputs: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Return the weight of each token's value in each output, (B, H, T, T).

        As `attend` is linear in the values, unit vectors in their place come out as the weights.
        """
        units = torch.eye(value.shape[2], dtype=value.dtype, device=value.device).expand(*value.shape[:2], -1, -1)
        return self.attend(query, key, units, *inputs, lengths=lengths)

    def project_output(self, mixed: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map the mixed values (B, H, T, D) of the hidden states (B, T, C) to (B, T, C)."""
        return self.o_proj(mixed.transpose(1, 2).reshape(hidden_states.shape))

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: PaddingInfo | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Map (B, T, C) to (B, T, C), and with "eager" the weights (B, H, T, T) of a text's first pass.

        The mask is a `PaddingInfo`, or None where every token is real or padding is on the right, from where it
        reaches no real token.
        """
        padding = attention_mask
        state = past_key_values.layers[self.layer_idx] if past_key_values is not None else None
        inputs = self.project_inputs(hidden_states, position_embeddings)
        lengths = None
        if padding is not None:
            inputs = tuple(padding.unpad(states) for states in inputs)
            lengths = padding.lengths
        inputs = self.prepare_inputs(*inputs, state=state, lengths=lengths)
        # Dense weights exist for a first pass only: a state has merged the tokens before.
        weights = None
        if self.config._attn_implementation == "eager" and (state is None or not state.get_seq_length()):
            weights = self.dense_weights(*inputs, lengths=lengths)
        if weights is None or state is not None:  # the state must advance in any case
            mixed = self.attend(*inputs, state=state, lengths=lengths)
        if padding is not None and state is not None:
            state.real_tail = padding.real_tail
        if weights is not None:
            mixed = weights @ inputs[2]
        if padding is not None:
            mixed = padding.repad(mixed)
            if weights is not None:  # rows are queries, columns keys: both go back
                weights = padding.repad(padding.repad(weights).mT).mT
        return self.project_output(mixed, hidden_states), weights
