"""Which tokens of one text a head reads, full attention or a variant, with the same weights for all."""

import torch
from transformers import PreTrainedModel

from attention_lab.selection import blocks_in_window
from attention_lab.structure import attention_matrices, far_part, pattern_parts
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM
from modeling_minigpt.block_sparse_minigpt import BlockPattern


def with_attention(model: PreTrainedModel, config: MiniGPTConfig, seed: int = 0) -> PreTrainedModel:
    """Return a copy of a model with the attention of a config, which shows its weights ("eager").

    What only the new attention has, as Linformer's slots, is drawn at random, by `seed`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = MiniGPTForCausalLM._from_config(config, attn_implementation="eager")
    reader.load_state_dict(model.state_dict(), strict=False)
    return reader.eval()


def tokens_read(model: PreTrainedModel, ids: torch.Tensor, layer: int, head: int) -> dict[str, torch.Tensor]:
    """Return what a head reads of a text (1, T), as disjoint boolean masks (T, T) by name, queries in rows.

    Full attention has one, `exact`; Linformer also `slots`, the tokens that are read as mixtures; BigBird `window`,
    `global` and `random`; selected-block attention `window` and `selected`.

    Raises:
        ValueError: the layer has another attention.
    """
    config = model.config
    kind = config.layer_attention_types[layer]
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    if kind == "vanilla":
        return {"exact": causal}
    if kind == "linformer":
        slots = far_part(causal, config.linformer_segment)
        return {"exact": causal & ~slots, "slots": slots}
    if kind == "bigbird":
        parts = pattern_parts(BlockPattern.from_config(config, layer), length)
        return {name: mask[head] for name, mask in parts.items()}
    if kind == "selected":
        near = blocks_in_window(length, config.selected_block, config.selected_window)  # (T, nb)
        window = causal & near.repeat_interleave(config.selected_block, dim=-1)[:, :length]
        # The choice depends on the text, so the model itself is asked: what a query has not chosen weighs zero.
        weights = attention_matrices(model, ids)[layer, 0, head]  # (T, T)
        return {"window": window, "selected": (weights > 0) & ~window}
    raise ValueError(f"layer {layer} has {kind} attention, wanted vanilla, linformer, bigbird or selected")
