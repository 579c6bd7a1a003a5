"""What each layer keeps of the tokens it has seen, so that decoding equals the parallel form.

Vanilla layers keep all keys and values, the linear-time variants a state of their own.

What is kept for a row and a head, in numbers (s, k, b, c, m, D as in the config's fields; T the tokens seen), and when
something is evicted:

- linformer: keys, values and slot weights of at most 2s tokens, 2s (2D + k), and the slots' sums and masses,
  k (2D + 1). A token leaves once its segment is two behind: it is folded into the slots, as in the parallel form.
- performer: sums, m (D + 1), and a running maximum. Every token leaves at once.
- window, and bigbird with no random blocks or with a reservoir: the c blocks of the next token's row, 2cbD. A block
  leaves once the next row does not list it, after which no row does.
- bigbird with random rows: all keys and values, 2TD, in a buffer that doubles. Nothing leaves, as a later row may draw
  any old block; a step reads c·b keys of them.

Rows of a batch may have seen different numbers of tokens (left padding): every row counts its own.
"""

import torch
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from .attention_base_minigpt import place
from .block_sparse_minigpt import BlockPattern, block_table
from .configuration_minigpt import MiniGPTConfig


def layer_signature(config: MiniGPTConfig, layer_idx: int) -> dict | None:
    """Return what a cache layer must share with its model's layer; None for vanilla, which takes any library layer."""
    variant = config.layer_attention_types[layer_idx]
    if variant == "vanilla":
        return None
    fields = {name: value for name, value in vars(config).items() if name.startswith(f"{variant}_")}
    shape = {"num_attention_heads": config.num_attention_heads, "head_dim": config.head_dim, "layer": layer_idx}
    return {"attention_type": variant, **shape, **fields}


class PreallocatedLayer(DynamicLayer):
    """A vanilla layer's keys and values in buffers with room, so that a new token is written and the old ones stay.

    The library's layer copies all of them for each token. `keys` and `values`, (B, H, T, D), and what `update` returns
    are views of the buffers: for generation, without gradients, by one reader.
    """

    ROOM = 32  # tokens at first; then as many again as there are

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
        """Write `new` behind the `seen` tokens; a buffer that is full, or of rows chosen anew, is replaced."""
        held, buffer, end = getattr(self, name), self.buffers.get(name), seen + new.shape[2]
        own = buffer is not None and held.data_ptr() == buffer.data_ptr() and held.shape[0] == buffer.shape[0]
        if not own or buffer.shape[2] < end:
            buffer = new.new_empty(*new.shape[:2], end + max(seen, self.ROOM), new.shape[3])
            if seen:
                buffer[:, :, :seen] = held
            self.buffers[name] = buffer
        buffer[:, :, seen:end] = new
        return buffer[:, :, :end]


class StateCacheLayer(CacheLayerMixin):
    """A layer's decoding state: named tensors with the batch first, and what the Hub library asks of a cache layer.

    Attributes:
        state: the tensors, among them "counts" (B,), the real tokens each row has seen; empty before the first.
        cumulative_length: columns seen, padding included, which is what `generate` counts.
        padded: whether any row has seen padding, so that its count may be below the columns.
    """

    supports_early_init = False

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__()
        self.signature = layer_signature(config, layer_idx)
        self.state: dict[str, torch.Tensor] = {}
        self.cumulative_length = 0
        self.padded = False

    @property
    def counts(self) -> torch.Tensor | None:
        """Real tokens each row has seen, (B,); None before the first."""
        return self.state.get("counts")

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make an empty state for the batch, heads, dtype and device of keys (B, H, T, D), unless there is one."""
        if not self.state:
            counts = torch.zeros(key_states.shape[0], dtype=torch.int64, device=key_states.device)
            self.state = {"counts": counts, **self.empty(key_states)}
            self.is_initialized = True

    def empty(self, like: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the variant's own tensors before the first token, for keys like (B, H, ·, D)."""
        raise NotImplementedError

    def advance(self, length: int, added: torch.Tensor | None) -> None:
        """Count T more columns, of which each row's `added` (B,) are real; all when None."""
        self.state["counts"] = self.state["counts"] + (length if added is None else added)
        self.cumulative_length += length
        self.padded |= added is not None

    def map(self, change) -> None:
        """Replace every tensor by `change(tensor)`."""
        self.state = {name: change(tensor) for name, tensor in self.state.items()}

    def get_seq_length(self) -> int:
        """Return the columns seen, padding included."""
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and offset a full attention mask would have."""
        return self.cumulative_length + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: there is no longest text."""
        return -1

    def reset(self) -> None:
        """Forget everything."""
        self.state, self.is_initialized, self.cumulative_length, self.padded = {}, False, 0, False

    def offload(self) -> None:
        """Move the state to the CPU."""
        self.map(lambda tensor: tensor.to("cpu", non_blocking=True))

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Take the rows `beam_idx`, as beam search does."""
        self.map(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.map(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices` only, by numbers or booleans."""
        self.map(lambda tensor: tensor[indices.to(tensor.device)])

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens of every row, where the state still can.

        Raises:
            ValueError: a positive number, more tokens than were seen, or tokens that the state no longer tells apart.
        """
        removed = -tokens_to_remove
        if removed == 0 or not self.state:
            return
        if removed < 0:
            raise ValueError(f"crop takes the negated number of tokens to remove, found {tokens_to_remove}")
        shortest = int(self.counts.min())
        if removed > shortest:
            raise ValueError(f"cannot remove {removed} tokens: the shortest row of the cache has {shortest}")
        if not self.can_remove(removed):
            kind = self.signature["attention_type"]
            raise ValueError(
                f"a {kind} cache cannot remove the last {removed} tokens: it has merged or evicted others"
            )
        self.state["counts"] = self.state["counts"] - removed
        self.cumulative_length -= removed

    def can_remove(self, removed: int) -> bool:
        """Say whether a smaller count is all it takes to forget the last `removed` tokens."""
        return False


class LinformerCache(StateCacheLayer):
    """The last one to two segments in full, and the slots' sums over all segments before them."""

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.segment, self.slots = config.linformer_segment, config.linformer_slots

    def empty(self, like):
        batch, heads, _, dim = like.shape
        held, slots = (batch, heads, 2 * self.segment), (batch, heads, self.slots)
        return {
            "keys": like.new_zeros(*held, dim),
            "values": like.new_zeros(*held, dim),
            "weights": like.new_zeros(*held, self.slots),
            "slot_keys": like.new_zeros(*slots, dim, dtype=torch.promote_types(like.dtype, torch.float32)),
            "slot_values": like.new_zeros(*slots, dim, dtype=torch.promote_types(like.dtype, torch.float32)),
            "slot_mass": like.new_zeros(*slots, dtype=torch.promote_types(like.dtype, torch.float32)),
        }

    def base(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the first token (B,) held in full: the start of the segment before the next token's."""
        return (counts // self.segment - 1).clamp(min=0) * self.segment

    def update(self, key_states, value_states, weights, added=None):
        """Append T tokens and fold what falls two segments behind.

        Returns:
            The place (B,) of each row's first new token in what follows; the slots (sums of keys, of values, masses)
            before folding; keys, values (B, H, W, D) and weights (B, H, W, k) of the held and the new tokens from a
            segment's start on, zeros (or padding) behind them.
        """
        state, segment, length = self.state, self.segment, key_states.shape[2]
        held = min(self.cumulative_length, 2 * segment - 1)  # no row holds more
        width = -(-(held + length) // segment) * segment
        start = self.counts - self.base(self.counts)
        joined = []
        weights = weights.expand(*key_states.shape[:3], -1)
        for name, new in (("keys", key_states), ("values", value_states), ("weights", weights)):
            room = state[name].new_zeros(*new.shape[:2], width - held, new.shape[3])
            joined.append(place(torch.cat((state[name][:, :, :held], room), dim=2), new, start))  # (B, H, W, ·)
        slots = state["slot_keys"], state["slot_values"], state["slot_mass"]

        before = self.base(self.counts)
        self.advance(length, added)
        shift = self.base(self.counts) - before  # (B,), whole segments that fall behind
        self.fold(joined, shift // segment)
        kept = shift[:, None] + torch.arange(2 * segment, device=shift.device)  # (B, 2s)
        kept = kept.clamp(max=width - 1)[:, None, :, None]  # places past the last token are overwritten or unseen
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
        return torch.equal(self.base(self.counts), self.base(self.counts - removed))


class PerformerCache(StateCacheLayer):
    """Running sums of features times values, relative to a running maximum."""

    def empty(self, like):
        return {}

    def read(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the sums (B, H, m, D + 1) and the maximum (B, H); None twice before the first token."""
        return self.state.get("sums"), self.state.get("peak")

    def update(self, sums, peak, length, added=None):
        """Replace the state by the one after `length` more columns."""
        self.lazy_initialization(sums, sums)
        self.state |= {"sums": sums, "peak": peak}
        self.advance(length, added)


class BlockCache(StateCacheLayer):
    """Keys and values in blocks; `update` finds among them the blocks that the new tokens' rows list."""

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.pattern = BlockPattern.from_config(config, layer_idx)

    def rows(self, length: int) -> torch.Tensor:
        """Return the table rows (B, H, nq, c) of the blocks that the next `length` tokens can stand in."""
        block = self.pattern.block
        count = (length + block - 2) // block + 1  # the first may be its block's last
        numbers = (self.counts // block)[:, None] + torch.arange(count, device=self.counts.device)  # (B, nq)
        table = block_table(self.pattern, -(-self.cumulative_length // block) + count, self.counts.device)
        return table[:, numbers].transpose(0, 1)


class FullBlockCache(BlockCache):
    """Every key and value, for tables that may list any old block; a step still reads c blocks only."""

    is_croppable = True

    def empty(self, like):
        return {name: like.new_zeros(*like.shape[:2], 0, like.shape[3]) for name in ("keys", "values")}

    def update(self, key_states, value_states, added=None):
        """Append T tokens; return blocks of keys and of values (B, H, n, b, D), the rows and their slots among the
        blocks, each (B, H, nq, c)."""
        length, block = key_states.shape[2], self.pattern.block
        ids = self.rows(length)
        needed = (-(-self.cumulative_length // block) + ids.shape[2]) * block
        for name, new in (("keys", key_states), ("values", value_states)):
            states = self.state[name]
            if states.shape[2] < needed:  # doubling makes an append cost O(1) in the long run
                room = max(needed, 2 * states.shape[2]) - states.shape[2]
                states = torch.cat((states, states.new_zeros(*new.shape[:2], room, new.shape[3])), dim=2)
            elif states.is_inference() and not torch.is_inference_mode_enabled():
                states = states.clone()  # made in inference mode, it may not be written to outside
            self.state[name] = place(states, new, self.counts)
        self.advance(length, added)
        blocks = (self.state[name].unflatten(2, (-1, block)) for name in ("keys", "values"))
        return *blocks, ids, ids.clamp(min=0)

    def can_remove(self, removed):
        return True


class RecentBlockCache(BlockCache):
    """The c blocks of the next token's row: enough for ever where each row's blocks are the last row's, or new."""

    def empty(self, like):
        batch, heads, _, dim = like.shape
        held = like.new_zeros(batch, heads, self.pattern.columns, self.pattern.block, dim)
        nothing = torch.full(held.shape[:3], -1, device=like.device)
        return {"keys": held, "values": held.clone(), "ids": nothing}

    def update(self, key_states, value_states, added=None):
        """Append T tokens; return as `FullBlockCache.update`."""
        length, block, columns = key_states.shape[2], self.pattern.block, self.pattern.columns
        ids = self.rows(length)  # (B, H, nq, c)
        first = (self.counts // block)[:, None, None, None]  # (B, 1, 1, 1), the block of the next token
        slots = self.find(ids, first)
        last = self.find(first.expand(-1, ids.shape[1], 1, 1), first, begun=True)  # (B, H, 1, 1)
        joined = []
        for name, new in (("keys", key_states), ("values", value_states)):
            held = self.state[name]  # (B, H, c, b, D)
            open_block = held.gather(2, last[..., None].expand(-1, -1, 1, *held.shape[3:])).flatten(2, 3)
            room = held.new_zeros(*new.shape[:2], (ids.shape[2] - 1) * block, new.shape[3])
            fresh = place(torch.cat((open_block, room), dim=2), new, self.counts % block)  # (B, H, nq·b, D)
            joined.append(torch.cat((held, fresh.unflatten(2, (-1, block))), dim=2))  # (B, H, c + nq, b, D)
        self.advance(length, added)
        row = self.rows(1)  # (B, H, 1, c), of the next token now
        kept = self.find(row, first).clamp(max=columns + ids.shape[2] - 1)[:, :, 0, :, None, None]  # (B, H, c, 1, 1)
        for name, states in zip(("keys", "values"), joined, strict=True):
            self.state[name] = states.gather(2, kept.expand(-1, -1, -1, *states.shape[3:]))
        self.state["ids"] = row[:, :, 0]
        return *joined, ids, slots

    def find(self, ids: torch.Tensor, first: torch.Tensor, begun: bool = False) -> torch.Tensor:
        """Return where blocks `ids` (B, H, ·, ·) stand: among the c held ones, or behind them from `first` on.

        With `begun`, block `first` is looked for among the held ones, where its earlier tokens are.
        """
        held = (ids[..., None] == self.state["ids"][:, :, None, None]).to(torch.uint8).argmax(-1)
        return held if begun else torch.where(ids >= first, self.pattern.columns + ids - first, held)

    def can_remove(self, removed):
        block = self.pattern.block
        return torch.equal(self.counts // block, (self.counts - removed) // block)
