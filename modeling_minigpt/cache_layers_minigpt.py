"""Cache layers that do not belong to one variant: the base of every constant state, and keys that grow in place.

A linear-time variant decodes with a state of its own, a subclass of `StateCacheLayer` in the variant's file. The rows
of a batch may have seen different numbers of tokens (left padding), so every row counts its own.
"""

from collections.abc import Callable

import torch
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from .configuration_minigpt import MiniGPTConfig


def layer_signature(config: MiniGPTConfig, layer_idx: int) -> dict:
    """Describe what a cache layer has in common with its model's layer: variant, shape and the variant's sizes."""
    variant = config.layer_attention_types[layer_idx]
    # Two models of one variant with other sizes have states of other shapes, or of equal shapes and other meaning.
    sizes = {name: value for name, value in vars(config).items() if name.startswith(f"{variant}_")}
    shape = {"num_attention_heads": config.num_attention_heads, "head_dim": config.head_dim, "layer": layer_idx}
    return {"attention_type": variant, **shape, **sizes}


class PreallocatedLayer(DynamicLayer):
    """Keys and values of full attention in buffers with spare room, so that a new token is written in place.

    The library's layer copies all of them for each token. `keys` and `values`, (B, H, T, D), and what `update` returns
    are views of the buffers: for generation, without gradients, with one reader.
    """

    INITIAL_CAPACITY = 32  # tokens; a full buffer doubles

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Start empty, for keys (B, H, T, D) like these."""
        super().lazy_initialization(key_states, value_states)
        self.buffers: dict[str, torch.Tensor] = {}

    def update(self, key_states, value_states, *args, **kwargs):
        """Append T tokens; return all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        seen = self.get_seq_length()
        self.keys = self.append("keys", key_states, seen)
        self.values = self.append("values", value_states, seen)
        return self.keys, self.values

    def append(self, name: str, new: torch.Tensor, seen: int) -> torch.Tensor:
        """Write `new` behind the `seen` tokens of `keys` or `values`; return all of them."""
        current = getattr(self, name)
        buffer = self.buffers.get(name)
        end = seen + new.shape[2]
        # Beam search and cropping replace `keys` by other tensors: the buffer is then out of date.
        is_current = (
            buffer is not None and current.data_ptr() == buffer.data_ptr() and current.shape[0] == buffer.shape[0]
        )
        if buffer is None or not is_current or buffer.shape[2] < end:
            # Doubled, so that n tokens cost O(n) copies in all; `torch.cat` would copy everything at every token.
            capacity = end + max(seen, self.INITIAL_CAPACITY)
            buffer = new.new_empty(*new.shape[:2], capacity, new.shape[3])
            if seen:
                buffer[:, :, :seen] = current
            self.buffers[name] = buffer
        buffer[:, :, seen:end] = new
        return buffer[:, :, :end]

    def offload(self) -> None:
        """Move the keys and values to the CPU, and give up the room for more."""
        super().offload()
        self.buffers = {}  # they would keep the memory that was to be freed


class StateCacheLayer(CacheLayerMixin):
    """A layer's decoding state: named tensors with the batch first, and what the Hub library asks of a cache layer.

    A subclass names its tensors in `init_state` and has an `update` that its attention calls.

    Attributes:
        state: the tensors, among them "counts" (B,), the real tokens each row has seen; empty before the first.
        cumulative_length: columns seen, padding included, which is what `generate` counts.
        padded: whether any row has seen padding, so that its count may be below the columns.
        real_tail: number of last columns known to be real in every row, which are all that `crop` can remove.
        signature: what a model's layer must have in common with this one, by `layer_signature`.
    """

    supports_early_init = False  # shapes and dtype come with the first keys

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__()
        self.signature = layer_signature(config, layer_idx)
        self.state: dict[str, torch.Tensor] = {}
        self.device: torch.device | None = None  # where `prefetch` brings the state back to
        self.cumulative_length = 0
        self.padded = False
        self.real_tail: int | torch.Tensor = 0

    @property
    def counts(self) -> torch.Tensor | None:
        """Real tokens each row has seen, (B,); None before the first."""
        return self.state.get("counts")

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make an empty state for the batch, heads, dtype and device of keys (B, H, T, D), unless there is one."""
        if not self.state:
            # A count a row, not one for all: the rows of a left-padded batch have seen different numbers of tokens.
            counts = torch.zeros(key_states.shape[0], dtype=torch.int64, device=key_states.device)
            self.state = {"counts": counts, **self.init_state(key_states)}
            self.device = key_states.device
            self.is_initialized = True

    def init_state(self, like: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the variant's own tensors before the first token, for keys like (B, H, ·, D)."""
        raise NotImplementedError

    def advance(self, length: int, lengths: torch.Tensor | None) -> None:
        """Count `length` more columns, of which each row's `lengths` (B,) are real; all when None."""
        self.state["counts"] = self.state["counts"] + (length if lengths is None else lengths)
        self.cumulative_length += length
        # Once padded, always: `counts` then says less than `cumulative_length`, and a later call must bring its mask.
        self.padded |= lengths is not None
        # Lengths do not say on which side the padding is; the attention, which knows, then sets the tail.
        self.real_tail = self.real_tail + length if lengths is None else 0

    def apply(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace every tensor by `change(tensor)`."""
        # New tensors instead of changed ones: a copy of the cache may share these.
        self.state = {name: change(tensor) for name, tensor in self.state.items()}

    def get_seq_length(self) -> int:
        """Return the columns seen, padding included."""
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and offset that a full attention mask would have."""
        return self.cumulative_length + query_length, 0  # as for a layer that kept every token

    def get_max_length(self) -> int:
        """Return -1: there is no longest text."""
        return -1

    def reset(self) -> None:
        """Forget everything."""
        self.state = {}
        self.is_initialized = False
        self.cumulative_length = 0
        self.padded = False
        self.real_tail = 0

    def offload(self) -> None:
        """Move the state to the CPU."""
        self.apply(lambda tensor: tensor.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        """Move the state back to where it was before `offload`."""
        self.apply(lambda tensor: tensor.to(self.device, non_blocking=True))

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Take the rows `beam_idx`, as beam search does."""
        self.apply(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.apply(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices` only, by numbers or booleans."""
        self.apply(lambda tensor: tensor[indices.to(tensor.device)])

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens of every row, where the state still can.

        Raises:
            ValueError: as `check_crop`.
        """
        self.check_crop(tokens_to_remove)
        if self.state:
            self.state["counts"] = self.state["counts"] + tokens_to_remove
            self.cumulative_length += tokens_to_remove
            self.real_tail = self.real_tail + tokens_to_remove

    def check_crop(self, tokens_to_remove: int) -> None:
        """Raise what `crop` would, and change nothing.

        Raises:
            ValueError: a positive number, more tokens than were seen, columns with padding among them, or tokens that
                the state can no longer separate.
        """
        removed = -tokens_to_remove  # the library passes a negative number
        if removed == 0 or not self.state:
            return
        if removed < 0:
            raise ValueError(f"crop takes the negated number of tokens to remove, found {tokens_to_remove}")
        shortest = int(self.state["counts"].min())
        if removed > shortest:
            raise ValueError(f"cannot remove {removed} tokens: the shortest row of the cache has {shortest}")
        # A row's count would be lowered by its padding too, as the state does not say where that was.
        tail = int(self.real_tail)
        if removed > tail:
            raise ValueError(f"cannot remove {removed} columns: only the last {tail} are real tokens in every row")
        # Merged sums cannot be taken apart again: a wrong state would decode wrongly without an error.
        if not self.can_remove(removed):
            kind = self.signature["attention_type"]
            raise ValueError(
                f"a {kind} cache cannot remove the last {removed} tokens: it has merged or evicted others"
            )

    def can_remove(self, removed: int) -> bool:
        """Return whether a smaller count is all it takes to forget the last `removed` tokens."""
        return False
