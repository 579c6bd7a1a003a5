"""Rotary positions (Su et al. 2021, section 3.2.2): the library's frequencies, in float32 whatever the model is."""

import torch
from transformers import Cache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from .configuration_minigpt import MiniGPTConfig


def text_lengths(position_ids: torch.Tensor) -> torch.Tensor:
    """Return the length of the text that each token of (B, T) is in: its last position and one.

    Packed texts start again in their row: [0, 1, 2, 0, 1] has the lengths [3, 3, 3, 2, 2].
    """
    texts = (position_ids.diff(dim=-1, prepend=position_ids[:, :1]) < 0).cumsum(-1)
    last = torch.zeros_like(position_ids).scatter_reduce(-1, texts, position_ids, "amax")
    return last.gather(-1, texts) + 1


class MiniGPTRotaryEmbedding(LlamaRotaryEmbedding):
    """Cosines and sines of the rotary position embedding.

    Called with any tensor, for its dtype and device, and `position_ids` (B or 1, T), it returns cos and sin, each
    (B or 1, T, D). `config.rope_parameters` may name any scaling that the library knows ("linear", "yarn", …).

    With "dynamic" and "longrope" the frequencies of every token depend on its text's length, once that is past a
    limit. The library takes the longest row's length for all, and for "dynamic" an earlier call's; here each text has
    the frequencies that it has alone.

    Attributes:
        limit: tokens up to which a text keeps its first frequencies; None where no length changes them.
    """

    def __init__(self, config: MiniGPTConfig):
        super().__init__(config)
        settings = config.rope_parameters or {}
        original = settings.get("original_max_position_embeddings")
        self.limit: int | None = {"dynamic": config.max_position_embeddings, "longrope": original}.get(self.rope_type)

    def _apply(self, fn, recurse=True):
        # In bfloat16 a frequency is off by 0.4 %, which at position 4,096 is several turns.
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = getattr(self, name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        return self

    @torch.no_grad()
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin, each (B or 1, T, D), in the dtype of `x`."""
        if self.limit is None:
            return super().forward(x, position_ids)
        lengths = text_lengths(position_ids)[..., None].to(x.device)  # (B or 1, T, 1)
        first = self.original_inv_freq.to(x.device, torch.float32)  # (D / 2,)
        # For a length tensor, "dynamic" gives frequencies of that shape; "longrope" has one other set for all.
        longer = lengths if self.rope_type == "dynamic" else self.limit + 1
        rescaled, _ = ROPE_INIT_FUNCTIONS[self.rope_type](self.config, x.device, seq_len=longer)
        frequencies = torch.where(lengths > self.limit, rescaled, first)  # (B or 1, T, D / 2)
        angles = position_ids[..., None].to(x.device, torch.float32) * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        scale = self.attention_scaling
        return (angles.cos() * scale).to(x.dtype), (angles.sin() * scale).to(x.dtype)

    def check_cache(self, position_ids: torch.Tensor, cache: Cache | None) -> None:
        """Refuse to continue a text from a cache past the limit: its keys are rotated by other frequencies.

        Raises:
            ValueError: positions past the limit beside a cache that is not empty, or a cache that began past it.
        """
        if self.limit is None or cache is None or torch.compiler.is_compiling():
            return
        is_long = int(position_ids.max()) >= self.limit
        # A first pass is right at any length, but leaves keys that no other length goes with, though cropped.
        if cache.get_seq_length() and (is_long or getattr(cache, "is_past_rope_limit", False)):
            raise ValueError(
                f"rope_type {self.rope_type!r} rotates a text of more than {self.limit} tokens by frequencies of its "
                "length, which cached keys do not have: give the whole text with use_cache=False, or use 'yarn'"
            )
        cache.is_past_rope_limit = is_long  # type: ignore[attr-defined]


def apply_rotary(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate `states` (B, H, T, D), whose halves are the pairs' first and second coordinates, by (B or 1, T, D)."""
    # Pair i is (x_i, x_{i + D/2}), as in the Hub's Llama, not the neighbours (x_2i, x_2i+1) of the paper: the two are
    # one function up to a permutation of the projections' rows.
    first, second = states.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return states * cos[:, None] + rotated * sin[:, None]
