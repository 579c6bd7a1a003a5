"""Causal attention that finds its blocks: each query reads, head by head, the past blocks that it likes best.

A text is cut into blocks of b tokens. A query sees the last w blocks, its own causally, and the k of all blocks before
these that have the highest scores, in one softmax: O(T (k + w) b D). The choice has no gradient. It scores every block
of up to `selected_exact`, and searches more of them in O(T log T) (`block_search_minigpt`). What a block is scored by
are its keys before rotation, so that their distance does not matter:

- "box": the largest q·k that any key of the smallest box around the block's keys could have. Nothing is learned, and a
  pretrained vanilla checkpoint is read as it was trained (Tang et al. 2024, Quest, arXiv 2406.10774, for decoding).
- "summary": q·m/√D with a weighted mean m of the keys, weights exp(g·x), g learned. The score is added to those of the
  block's tokens, so that the answer trains the choice.

After MoBA (Lu et al. 2025, arXiv 2502.13189, section 2), with small blocks (Xiao et al. 2025, arXiv 2511.11571).
"""

from functools import partial

import torch
from torch import nn

from .attention_base_minigpt import (
    LinearTimeAttention,
    blocks_touched,
    call_in_fp32_on_cpu,
    chunk,
    gather_tokens,
    into_open_blocks,
    is_traced,
    mark_zero_init,
    positions_in_blocks,
    unchunk,
    write_tokens,
)
from .block_search_minigpt import FAN_OUT, grow_levels, search_blocks, surround
from .block_selection_minigpt import Choice, box_query, key_boxes, key_means
from .block_tiles_minigpt import dense_attention, selected_attention
from .cache_layers_minigpt import StateCacheLayer
from .configuration_minigpt import MiniGPTConfig
from .rotary_minigpt import apply_rotary


class SelectedCache(StateCacheLayer):
    """Every key, rotated and not, every value, and what each block is chosen by: about 3TD numbers per head.

    A step reads w + k blocks, and one row for each of up to `selected_exact` others; of a longer text the boxes around
    blocks are stored as well, level by level. The keys before rotation are read again only where a block grows, or has
    lost tokens by `crop`: its row, and the boxes around it, are then made afresh.
    """

    is_croppable = True

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.block = config.selected_block
        self.exact = config.selected_exact

    def init_state(self, like):
        return {name: like.new_zeros(*like.shape[:2], 0, like.shape[3]) for name in ("keys", "values", "plain_keys")}

    def update(self, key, value, plain_key, gate, lengths=None):
        """Append T tokens, (B, H, T, D) each, and their gates (B, H, T, 1) or None.

        Returns:
            Blocks of all keys and values, (B, H, N, b, D), and what blocks are chosen by, as `grow_levels` returns it,
            which counts for complete blocks only.
        """
        length = key.shape[2]
        start = self.counts
        first = start // self.block  # (B,), the block of the first new token
        rows = blocks_touched(length, self.block)
        blocks = -(-self.cumulative_length // self.block) + rows
        new = {"keys": key, "values": value, "plain_keys": plain_key}
        if gate is not None:
            new["gates"] = gate
        for name, states in new.items():
            self.state[name] = write_tokens(self.state.get(name), states, start, blocks * self.block)
        index = first[:, None] * self.block + torch.arange(rows * self.block, device=first.device)  # (B, rows·b)
        touched = {name: read_rows(self.state[name], index) for name in ("plain_keys", "gates") if name in new}
        made = summarise(touched["plain_keys"], touched.get("gates"), self.block)  # (B, H, rows, F)
        self.state["summaries"] = write_tokens(self.state.get("summaries"), made, first, blocks)
        levels = self.update_boxes(first, rows, blocks, are_boxes=gate is None)
        self.advance(length, lengths)
        keys, values = (self.state[name].unflatten(2, (-1, self.block)) for name in ("keys", "values"))
        return keys, values, levels

    def update_boxes(self, first: torch.Tensor, rows: int, blocks: int, are_boxes: bool) -> list[torch.Tensor]:
        """Make the boxes around `rows` new blocks from `first` (B,) on; return the blocks' rows and all levels.

        Args:
            blocks: of the longest row.
            are_boxes: whether the blocks' rows are boxes.
        """
        levels = [self.state["summaries"]]
        # A level that is there is written on, also where `crop` has left fewer blocks: there may be more again.
        while blocks > self.exact or f"boxes_{len(levels)}" in self.state:
            name = f"boxes_{len(levels)}"
            inner = levels[-1]
            if name not in self.state:  # of the whole text
                first = torch.zeros_like(first)
                rows = inner.shape[2]
            first = first // FAN_OUT
            rows = blocks_touched(rows, FAN_OUT)
            blocks = blocks // FAN_OUT
            index = first[:, None] * FAN_OUT + torch.arange(rows * FAN_OUT, device=first.device)  # (B, rows·FAN_OUT)
            index = index.clamp(max=inner.shape[2] - 1)  # such a box is not complete
            made = surround(read_rows(inner, index), are_boxes or len(levels) > 1)
            self.state[name] = write_tokens(self.state.get(name), made, first, blocks + rows + 1)
            levels.append(self.state[name])
        return levels

    def can_remove(self, removed):
        return True


def read_rows(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the rows `index` (B, n) of states (B, H, N, X), (B, H, n, X).

    Not by `gather`, whose backward wants its input as it was: the next token is written into it.
    """
    batch = torch.arange(len(index), device=index.device)[:, None]
    return states.transpose(1, 2)[batch, index].transpose(1, 2)


def summarise(plain_key: torch.Tensor, gate: torch.Tensor | None, block: int) -> torch.Tensor:
    """Return what each block of (B, H, T, D) is chosen by, (B, H, N, F): its box, or with gates its mean."""
    plain_key = chunk(plain_key, block)
    return key_boxes(plain_key) if gate is None else key_means(plain_key, chunk(gate, block))


class SelectedAttention(LinearTimeAttention):
    """Attention to a window of blocks and to the blocks that each query chooses."""

    cache_layer = SelectedCache
    own_weights = ("summary_gate.weight",)

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.block = config.selected_block
        self.count = config.selected_blocks
        self.window = config.selected_window
        self.exact = config.selected_exact
        self.summary_gate: nn.Linear | None = None
        if config.selected_by == "summary":
            self.summary_gate = nn.Linear(config.hidden_size, self.num_heads, bias=False)
            mark_zero_init(self.summary_gate)  # a plain mean at first

    def project_inputs(self, hidden_states, position_embeddings):
        """Return queries, keys and values, queries and keys before rotation, and with "summary" the gates."""
        plain_query, plain_key, value = self.project(hidden_states, None)
        query = plain_query
        key = plain_key
        if position_embeddings is not None:
            query = apply_rotary(query, *position_embeddings)
            key = apply_rotary(key, *position_embeddings)
        inputs = (query, key, value, plain_query, plain_key)
        if self.summary_gate is None:
            return inputs
        return *inputs, self.summary_gate(hidden_states).transpose(1, 2)[..., None]  # (B, H, T, 1)

    def attend(self, query, key, value, plain_query, plain_key, gate=None, *, state=None, lengths=None):
        """Mix the values: (B, H, T, D)."""
        if state is not None:
            return self.attend_cached(query, key, value, plain_query, plain_key, gate, state, lengths)
        length = query.shape[2]
        is_short = length <= (self.count + self.window) * self.block  # every block is seen
        if gate is None and is_short:
            kernel = nn.functional.scaled_dot_product_attention
            settings = {"is_causal": True, "dropout_p": self.dropout, "scale": self.scaling}
            return call_in_fp32_on_cpu(kernel, query, key, value, **settings)
        levels = grow_levels(summarise(plain_key, gate, self.block), self.exact, are_boxes=gate is None)
        query, key, value, plain_query = (chunk(states, self.block) for states in (query, key, value, plain_query))
        positions = torch.arange(key.shape[2] * self.block, device=key.device)
        positions = positions.view(1, -1, self.block).expand(key.shape[0], -1, -1)  # (B, N, b)
        return unchunk(self.attend_blocks(query, key, value, plain_query, levels, positions, is_short), length)

    def attend_cached(self, query, key, value, plain_query, plain_key, gate, state, lengths) -> torch.Tensor:
        """Attend from new tokens (B, H, T, D) to all tokens so far, and advance the state."""
        length = query.shape[2]
        state.lazy_initialization(key, value)
        counts = state.counts
        keys, values, levels = state.update(key, value, plain_key, gate, lengths)
        if length == 1:
            query, plain_query = (states[:, :, None] for states in (query, plain_query))  # (B, H, 1, 1, D)
            return self.attend_blocks(query, keys, values, plain_query, levels, counts[:, None, None])[:, :, 0]
        # Queries go where they are in whole blocks: row b starts inside its open block.
        query, plain_query = (into_open_blocks(states, counts, self.block) for states in (query, plain_query))
        positions = positions_in_blocks(counts, length, self.block)  # (B, R, b)
        mixed = self.attend_blocks(query, keys, values, plain_query, levels, positions)
        return gather_tokens(mixed.flatten(2, 3), length, counts % self.block)

    def choose(self, plain_query: torch.Tensor, levels: list[torch.Tensor], positions: torch.Tensor) -> Choice:
        """Choose blocks for queries (B, H, R, l, D) at positions (B, R, l): complete ones before the window."""
        asked = plain_query.to(torch.promote_types(plain_query.dtype, torch.float32)) * self.scaling
        of_boxes = asked
        if self.summary_gate is None:
            asked = of_boxes = box_query(asked)
        elif len(levels) > 1:  # boxes around summaries
            of_boxes = box_query(asked)
        limits = positions[:, :, 0] // self.block - self.window + 1
        return search_blocks(asked, of_boxes, levels, limits.clamp(min=0), self.count, self.exact)

    def attend_blocks(self, query, key, value, plain_query, levels, positions, is_short: bool = False) -> torch.Tensor:
        """Choose blocks and attend, as `selected_attention` does: (B, H, R, l, D)."""
        choice = self.choose(plain_query, levels, positions)
        prior = None if self.summary_gate is None else (plain_query, levels[0])
        attend = partial(
            dense_attention if is_short or is_traced() else selected_attention,
            positions=positions,
            choice=choice,
            window=self.window,
            scaling=self.scaling,
            prior=prior,
            dropout=self.dropout,
        )
        return call_in_fp32_on_cpu(attend, query, key, value)
