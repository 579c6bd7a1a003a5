"""What `attention_scaling` measures: one attention layer of each variant and of each peer, and models made of them.

Widths are equal: two heads of 64. Segments, blocks, slots, features and chunks are 64 long, but blocks that are chosen
by content 16; a linear variant's query sees 128 to 320 keys or features at once.
"""

import time
from importlib.util import find_spec

import torch
from torch import nn

from artifacts.memory import tune_glibc_malloc
from benchmarks.harness import Point
from benchmarks.measurement import PeakMemory, time_call, wait_for
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, MiniGPTModel
from modeling_minigpt.attention_base_minigpt import LinearTimeAttention, chunk
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from modeling_minigpt.block_search_minigpt import grow_levels
from modeling_minigpt.configuration_minigpt import MAX_VARIANT_SIZE
from modeling_minigpt.selected_attention_minigpt import SelectedAttention, summarise

WIDTH = 128
HEADS = 2
LAYERS = 2
VOCABULARY = 256
SIZES = {
    "linformer_segment": 64,
    "linformer_slots": 64,
    "bigbird_block": 64,
    "bigbird_global": 1,
    "bigbird_window": 3,
    "bigbird_random": 1,
    "window_size": 192,
    "window_sinks": 4,
    "window_block": 64,
    "performer_features": 64,
    "performer_chunk": 64,
    "gated_deltanet_chunk": 64,
    "selected_block": 16,
    "selected_blocks": 8,
    "selected_window": 4,
}
EAGER = "vanilla, eager"
SDPA = "vanilla, SDPA"
EXHAUSTIVE = "selected, every block"  # scored for every choice, however many there are
VARIANTS = {  # name: attention_type, attn_implementation
    EAGER: ("vanilla", "eager"),
    SDPA: ("vanilla", "sdpa"),
    "linformer": ("linformer", "sdpa"),
    "bigbird": ("bigbird", "sdpa"),
    "window": ("window", "sdpa"),
    "performer": ("performer", "sdpa"),
    "gated_deltanet": ("gated_deltanet", "sdpa"),
    "selected": ("selected", "sdpa"),
}
CUDA_VARIANTS = {
    "bigbird, FlexAttention": ("bigbird", "flex_attention"),
    "window, FlexAttention": ("window", "flex_attention"),
}
PEER_BIGBIRD = "transformers' BigBird (leaks)"
PEER_LINFORMER = "linformer package (leaks)"
PEERS = (PEER_BIGBIRD, PEER_LINFORMER)  # both bidirectional: neither can train a causal model


def variant_of(subject: str) -> tuple[str, str]:
    """Return a subject's attention_type and attn_implementation; any registered variant is one, with "sdpa"."""
    named = {**VARIANTS, **CUDA_VARIANTS, EXHAUSTIVE: ("selected", "sdpa")}
    return named.get(subject, (subject, "sdpa"))


def chooses_blocks(subject: str) -> bool:
    """Return whether a subject's queries choose blocks by content."""
    variant = ATTENTION_CLASSES.get(variant_of(subject)[0])
    return variant is not None and issubclass(variant, SelectedAttention)


def is_linear_time(subject: str) -> bool:
    """Return whether a subject is a linear-time variant of ours."""
    variant = ATTENTION_CLASSES.get(variant_of(subject)[0])
    return variant is not None and issubclass(variant, LinearTimeAttention)


LINEAR = tuple(subject for subject in (*VARIANTS, *CUDA_VARIANTS) if is_linear_time(subject))
SHORTEST = {PEER_BIGBIRD: (5 + 2 * SIZES["bigbird_random"]) * SIZES["bigbird_block"] + 1}  # else it turns full


def variant_config(subject: str, length: int, **fields) -> MiniGPTConfig:
    """Return the config of a variant at the benchmark's sizes."""
    attention_type, kernel = variant_of(subject)
    return MiniGPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_hidden_layers=LAYERS,
        max_position_embeddings=length,
        attention_type=attention_type,
        attn_implementation=kernel,
        **SIZES,
        **({"selected_exact": MAX_VARIANT_SIZE} if subject == EXHAUSTIVE else {}),
        **fields,
    )


class VariantLayer(nn.Module):
    """One attention layer of ours, (1, T, C) to (1, T, C); rotary angles and eager attention's mask are made once."""

    def __init__(self, subject: str, length: int):
        super().__init__()
        model = MiniGPTModel(variant_config(subject, length))
        self.config = model.config
        self.attention = model.layers[0].self_attn
        self.rotary = model.rotary_emb
        self.prepared = (0, None, None)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        length = hidden_states.shape[1]
        if self.prepared[0] != length:
            positions = torch.arange(length, device=hidden_states.device)[None]
            mask = None
            if self.config._attn_implementation == "eager":
                mask = hidden_states.new_full((length, length), float("-inf")).triu_(1)
            self.prepared = (length, self.rotary(hidden_states, positions), mask)
        _, angles, mask = self.prepared
        return self.attention(hidden_states, position_embeddings=angles, attention_mask=mask)[0]


class TransformersBigBirdLayer(nn.Module):
    """The block-sparse self-attention of transformers' BigBird with the masks its model makes for it."""

    def __init__(self, length: int):
        super().__init__()
        from transformers import BigBirdConfig, BigBirdModel
        from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

        block = SIZES["bigbird_block"]
        config = BigBirdConfig(
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            block_size=block,
            num_random_blocks=SIZES["bigbird_random"],
            max_position_embeddings=length,
        )
        self.attention = BigBirdBlockSparseAttention(config, seed=0)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.make_masks = BigBirdModel.create_masks_for_block_sparse_attn
        self.block = block
        self.prepared = (0, None)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.prepared[0] != hidden_states.shape[1]:
            seen = hidden_states.new_ones(hidden_states.shape[:2])
            self.prepared = (hidden_states.shape[1], self.make_masks(seen, self.block))
        blocked, band, rows, columns = self.prepared[1]
        return self.out(self.attention(hidden_states, band, rows, columns, blocked, blocked)[0])


def build_layer(subject: str, length: int) -> nn.Module:
    """Return the attention layer of a subject."""
    if subject == PEER_BIGBIRD:
        return TransformersBigBirdLayer(length)
    if subject == PEER_LINFORMER:
        from linformer import LinformerSelfAttention

        return LinformerSelfAttention(WIDTH, seq_len=length, k=SIZES["linformer_slots"], heads=HEADS)
    return VariantLayer(subject, length)


def available_peers() -> list[str]:
    """Return the peers that are installed here."""
    return [PEER_BIGBIRD, *([PEER_LINFORMER] if find_spec("linformer") else [])]


def measure_layer(subject: str, length: int, device: torch.device, dtype: torch.dtype) -> dict:
    """Measure one layer's forward, and forward with backward: seconds, and bytes over those of weights and input."""
    layer = build_layer(subject, length).to(device, dtype)
    hidden_states = torch.randn(1, length, WIDTH, device=device, dtype=dtype, requires_grad=True)
    gradient = torch.randn_like(hidden_states)

    def forward():
        with torch.no_grad():
            layer(hidden_states)

    def train(tokens=length):
        layer(hidden_states[:, :tokens]).backward(gradient[:, :tokens])

    train(warm_up_length(device, length, SHORTEST.get(subject, 1)))
    results = {}
    for name, call in (("forward", forward), ("forward+backward", train)):
        hidden_states.grad = None
        layer.zero_grad()
        peak = PeakMemory(device)
        call()
        results[name] = {"bytes": peak.read(), "seconds": time_call(call).median}
    return results


@torch.inference_mode()
def measure_choice(subject: str, length: int, device: torch.device, dtype: torch.dtype) -> dict:
    """Measure the choice of blocks alone, by all queries of a layer: seconds, and bytes over queries and keys."""
    attention = build_layer(subject, length).to(device, dtype).attention
    hidden_states = torch.randn(1, length, WIDTH, device=device, dtype=dtype)
    _, _, _, query, key, *gates = attention.project_inputs(hidden_states, None)  # before rotation
    gate = gates[0] if gates else None
    query = chunk(query, attention.block)
    positions = torch.arange(query.shape[2] * attention.block, device=device).view(1, -1, attention.block)

    def choose():
        rows = summarise(key, gate, attention.block)
        attention.choose(query, grow_levels(rows, attention.exact, are_boxes=gate is None), positions)

    peak = PeakMemory(device)
    choose()
    return {"choice": {"bytes": peak.read(), "seconds": time_call(choose).median}}


def warm_up_length(device: torch.device, length: int, shortest: int = 1) -> int:
    """Return the length of a text to begin with, so that what a library allocates or compiles once is not measured.

    Kernels on CUDA are compiled for the length; on a CPU a short text leaves less behind in the process's memory.
    """
    return length if device.type == "cuda" else min(length, max(128, -(-shortest // 128) * 128))


def build_model(subject: str, length: int, device: torch.device, dtype: torch.dtype) -> MiniGPTForCausalLM:
    """Return a two-layer model of a variant."""
    torch.manual_seed(0)
    return MiniGPTForCausalLM(variant_config(subject, length)).to(device, dtype)


def measure_step(subject: str, length: int, device: torch.device, dtype: torch.dtype) -> dict:
    """Measure a training step of a model on one text: forward, backward, AdamW."""
    model = build_model(subject, length, device, dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(ids):
        model(ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    ids = torch.randint(VOCABULARY, (1, length), device=device)
    step(ids[:, : warm_up_length(device, length)])
    peak = PeakMemory(device)
    step(ids)
    return {"training step": {"bytes": peak.read(), "seconds": time_call(lambda: step(ids)).median}}


@torch.inference_mode()
def measure_decode(subject: str, length: int, device: torch.device, dtype: torch.dtype, tokens: int = 128) -> dict:
    """Measure the seconds to generate a token after `length` others, and the bytes of the cache then."""
    model = build_model(subject, length, device, dtype).eval()
    ids = torch.randint(VOCABULARY, (1, length), device=device)
    outputs = model(ids, use_cache=True, logits_to_keep=1)
    durations = []
    for _ in range(tokens):
        wait_for(device)
        start = time.perf_counter()
        outputs = model(outputs.logits[:, -1:].argmax(-1), past_key_values=outputs.past_key_values)
        wait_for(device)
        durations.append(time.perf_counter() - start)
    tensors = cache_tensors(outputs.past_key_values)
    cache_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return {"decode": {"bytes": cache_bytes, "seconds": torch.tensor(durations).median().item()}}


def cache_tensors(cache) -> list[torch.Tensor]:
    """Return all tensors of a cache."""
    return [
        tensor
        for layer in cache.layers
        for tensor in getattr(layer, "state", {"keys": layer.keys, "values": layer.values}).values()
    ]


MEASURES = {"layer": measure_layer, "step": measure_step, "decode": measure_decode, "choice": measure_choice}


def measure_point(point: Point, device: str, threads: int) -> dict:
    """Measure a task of a subject at a length: `{what: {"seconds": …, "bytes": …}}`.

    The dtype is float32 on a CPU and bfloat16 on CUDA.
    """
    torch.set_num_threads(threads)
    tune_glibc_malloc()
    place = torch.device(device)
    dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
    return MEASURES[point.task](point.subject, point.size, place, dtype)
