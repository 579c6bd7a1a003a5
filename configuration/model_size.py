"""How large a model is, and whether this machine can hold it, before any of it is allocated."""

import copy
import os
from collections import Counter

import torch
from transformers import initialization

from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM

HUGE = 2**63  # parameters of a model whose tensors no machine can even address


def count_parameters(config: MiniGPTConfig) -> int:
    """Count the numbers in a model's weights and buffers, from a model without memory (torch's meta device).

    One layer of each attention variant is built and counted as often as the config has it: a config may name 10,000.
    Tensors beyond what can be addressed count as `HUGE`.
    """
    variants = Counter(config.layer_attention_types)
    one_of_each = copy.deepcopy(config)
    one_of_each.attention_type = list(variants)
    one_of_each.num_hidden_layers = len(variants)
    # Rotary positions have no weights, and the recipe's own may be a scaling that cannot be computed.
    one_of_each.rope_parameters = {"rope_type": "default", "rope_theta": 10_000.0}
    try:
        with torch.device("meta"), initialization.no_init_weights():
            model = MiniGPTForCausalLM(one_of_each)
        model.tie_weights()
    except RuntimeError:  # the sizes overflow 64 bits
        return HUGE
    layers = model.model.layers
    repeated = sum(count * _count(layer) for layer, count in zip(layers, variants.values(), strict=True))
    return _count(model) - _count(layers) + repeated


def _count(module: torch.nn.Module) -> int:
    """Count a module's parameters and saved buffers; what is shared counts once."""
    shared = {id(parameter): parameter.numel() for parameter in module.parameters()}
    saved = module.state_dict(keep_vars=True).values()
    return sum({**shared, **{id(tensor): tensor.numel() for tensor in saved}}.values())


def check_fits(config: MiniGPTConfig) -> None:
    """Raise ValueError where this machine's memory cannot hold the float32 weights of a model."""
    wanted = 4 * count_parameters(config)
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else wanted
    if wanted > available:
        raise ValueError(f"its weights take {wanted / 1e9:,.1f} GB, this machine has {available / 1e9:,.1f} GB")
