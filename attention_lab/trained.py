"""The heads of a trained MiniGPT that answer "Where was NAME born?": what they look at, and what is lost without each.

The answer is read from the last token of the question, the sentinel: whatever a head knows of the name there, it has
copied there. All functions take a model with `attn_implementation="eager"`, as `load_eager` returns it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from data_scripts.questions import Question
from modeling_minigpt import MiniGPTConfig


def load_minigpt(folder: str | Path, **settings) -> PreTrainedModel:
    """Load the MiniGPT of a folder, with `settings` for `from_pretrained`; ValueError where there is none."""
    if not Path(folder, "config.json").is_file():
        raise ValueError(f"{folder}: no model that can be loaded: wanted a folder with a config.json")
    with as_no_model(folder):
        model = AutoModelForCausalLM.from_pretrained(folder, **settings)
    if not isinstance(model.config, MiniGPTConfig):
        raise ValueError(f"{folder}: wanted a minigpt model, found a {model.config.model_type}")
    return model.eval()


def load_eager(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a MiniGPT that returns attention weights, and its tokenizer; ValueError where there is none."""
    model = load_minigpt(folder, attn_implementation="eager")
    with as_no_model(folder):
        return model, AutoTokenizer.from_pretrained(folder)


@contextmanager
def as_no_model(folder: str | Path) -> Iterator[None]:
    """Turn the library's loading errors into a one-line ValueError that names the folder."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no model that can be loaded: {' '.join(str(error).split())[:200]}") from error


@dataclass(frozen=True)
class Asked:
    """Questions with their answers, `question⁇place⁇`, as one batch padded on the left.

    Attributes:
        inputs: ids and mask, (B, T).
        name: which tokens belong to the name, (B, T).
        answer: which tokens belong to the answer and its end, (B, T).
        place: the position that the answer is read from, the first sentinel, (B,).
    """

    inputs: dict[str, torch.Tensor]
    name: torch.Tensor
    answer: torch.Tensor
    place: torch.Tensor

    @property
    def reading(self) -> torch.Tensor:
        """The positions from `place` on, from which the answer and its end are read, (B, T)."""
        return torch.arange(self.name.shape[1]) >= self.place[:, None]

    @property
    def uniform(self) -> torch.Tensor:
        """The weight on the name of a head that looks at all it sees alike, (B,)."""
        seen = (self.inputs["attention_mask"] > 0) & ~self.answer
        return self.name.sum(-1) / seen.sum(-1)


def ask(tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> Asked:
    """Lay out questions with their answers."""
    texts = [question.training_text(tokenizer.mask_token) for question in questions]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", return_offsets_mapping=True)
    starts, ends = encoded.pop("offset_mapping").unbind(-1)  # (B, T), in characters
    first = torch.tensor([question.text.index(question.name) for question in questions])[:, None]
    last = first + torch.tensor([len(question.name) for question in questions])[:, None]
    sentinel = encoded["input_ids"] == tokenizer.mask_token_id
    place = sentinel.int().argmax(-1)  # the first
    return Asked(
        inputs=dict(encoded),
        name=(starts < last) & (ends > first) & (ends > starts),
        answer=torch.arange(sentinel.shape[1]) > place[:, None],
        place=place,
    )


@torch.inference_mode()
def answer_weights(model: PreTrainedModel, asked: Asked) -> torch.Tensor:
    """Return α from the position that the answer is read from, (L, H, B, T): one distribution over T each."""
    layers = model(**asked.inputs, output_attentions=True, use_cache=False).attentions
    rows = torch.arange(len(asked.place))
    return torch.stack([layer[rows, :, asked.place].transpose(0, 1) for layer in layers])


def name_weights(model: PreTrainedModel, asked: Asked) -> torch.Tensor:
    """Return the weight that each head gives to the name where the answer is read, (L, H, B)."""
    return (answer_weights(model, asked) * asked.name).sum(-1)


@torch.inference_mode()
def answer_log_probability(model: PreTrainedModel, asked: Asked) -> torch.Tensor:
    """Return the log-probability in nats of each whole answer, its end included, (B,)."""
    logits = model(**asked.inputs, use_cache=False).logits[:, :-1].float()
    following = logits.log_softmax(-1).gather(-1, asked.inputs["input_ids"][:, 1:, None])[..., 0]  # (B, T - 1)
    return following.masked_fill(~asked.answer[:, 1:], 0.0).sum(-1)


@contextmanager
def ablated(
    model: PreTrainedModel, heads: Iterable[tuple[int, int]], positions: torch.Tensor | None = None
) -> Iterator[None]:
    """Silence heads (layer, head), counted from 0: zero their slices of what the output projection reads.

    Args:
        positions: where, booleans (B, T); everywhere when None.

    Raises:
        ValueError: there is no such head.
    """
    config = model.config
    hooks = []
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        if not (0 <= layer < config.num_hidden_layers and 0 <= head < config.num_attention_heads):
            raise ValueError(
                f"there are {config.num_hidden_layers} layers of {config.num_attention_heads} heads, "
                f"found layer {layer}, head {head}, counted from 0"
            )
        by_layer.setdefault(layer, []).append(head)

    def silence(silent: list[int]):
        def zero(module, inputs):
            (mixed,) = inputs  # (B, T, C)
            keep = torch.ones(config.num_attention_heads, dtype=mixed.dtype)
            keep[silent] = 0.0
            less = mixed * keep.repeat_interleave(config.head_dim)
            return (less if positions is None else torch.where(positions[..., None], less, mixed),)

        return zero

    for layer, silent in by_layer.items():
        hooks.append(model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(silence(silent)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def ablation_effects(model: PreTrainedModel, asked: Asked, at_answer: bool = False) -> torch.Tensor:
    """Return by how much each head's absence changes each answer's log-probability, in nats, (L, H, B).

    With `at_answer` the head is silent only from where the answer is read on: what it does for the name's own tokens,
    before anything is copied, then stays.
    """
    layers = model.config.num_hidden_layers
    heads = model.config.num_attention_heads
    positions = asked.reading if at_answer else None
    whole = answer_log_probability(model, asked)
    changes = []
    for place in product(range(layers), range(heads)):
        with ablated(model, [place], positions):
            changes.append(answer_log_probability(model, asked) - whole)
    return torch.stack(changes).view(layers, heads, -1)


class Streams(NamedTuple):
    """What one layer's heads work with, each (B, H, T, D); raw keys are those before QK-norm and rotation."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    raw_key: torch.Tensor


@torch.inference_mode()
def head_streams(model: PreTrainedModel, inputs: dict[str, torch.Tensor], rotated: bool = True) -> list[Streams]:
    """Return each layer's queries, keys and values on a batch of ids and mask (B, T), `rotated` or as before that."""
    found = []

    def listen(module, positional, named):
        hidden = positional[0]
        raw = module.k_proj(hidden).unflatten(-1, (module.num_heads, module.head_dim)).transpose(1, 2)
        angles = named["position_embeddings"] if rotated else None
        found.append(Streams(*module.project(hidden, angles), raw))

    hooks = [layer.self_attn.register_forward_pre_hook(listen, with_kwargs=True) for layer in model.model.layers]
    try:
        model(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def key_spread(model: PreTrainedModel, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how much the keys' norms vary, standard deviation over mean, (L, H): before QK-norm, and as used.

    Over the real tokens of all questions. The stretched key of question (c) has √½ ≈ 0.71.
    """
    real = asked.inputs["attention_mask"].bool()
    spreads = []
    for streams in head_streams(model, asked.inputs):
        norms = [keys.norm(dim=-1).transpose(0, 1)[:, real] for keys in (streams.raw_key, streams.key)]  # (H, N)
        spreads.append(torch.stack([norm.std(-1) / norm.mean(-1) for norm in norms]))
    raw, used = torch.stack(spreads, dim=1)
    return raw, used


def table_of_heads(model: PreTrainedModel, asked: Asked) -> list[dict]:
    """Return a row a head, the one most missed first, all means over the questions.

    `name`: its weight on the name; `uniform`: what looking at all alike would give; `change`: of the answer's
    log-probability in nats without the head, and `change_at_answer` without it from there on; `raw_spread` and
    `spread`: of the norms of its keys. Layers and heads are counted from 1.
    """
    raw, used = key_spread(model, asked)
    columns = {
        "name": name_weights(model, asked).mean(-1),
        "change": ablation_effects(model, asked).mean(-1),
        "change_at_answer": ablation_effects(model, asked, at_answer=True).mean(-1),
        "raw_spread": raw,
        "spread": used,
    }
    rows = [
        {"layer": layer + 1, "head": head + 1, "uniform": asked.uniform.mean().item()}
        | {name: column[layer, head].item() for name, column in columns.items()}
        for layer, head in product(*map(range, raw.shape))
    ]
    return sorted(rows, key=lambda row: row["change"])


def copying_heads(rows: Sequence[dict], share: float = 0.8) -> list[dict]:
    """Return the heads that copy the answer's source: they give the name more than `share` and are missed there."""
    return [row for row in rows if row["name"] > share and row["change_at_answer"] < 0]


def change_without(model: PreTrainedModel, asked: Asked, rows: Sequence[dict]) -> float:
    """Return the mean change of the answers' log-probability, in nats, without several heads of a table at once."""
    whole = answer_log_probability(model, asked)
    with ablated(model, [(row["layer"] - 1, row["head"] - 1) for row in rows], asked.reading):
        return (answer_log_probability(model, asked) - whole).mean().item()


def write_head_view(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str, path: Path) -> None:
    """Write bertviz's interactive view of all heads on a question as an HTML page; ImportError without bertviz."""
    try:
        from bertviz import head_view
    except ImportError as error:
        raise ImportError("the head view needs bertviz: pip install bertviz (extra: neighbours)") from error
    encoded = tokenizer(question + tokenizer.mask_token, return_tensors="pt")
    with torch.inference_mode():
        weights = model(**encoded, output_attentions=True, use_cache=False).attentions
    tokens = [tokenizer.decode([token]) for token in encoded["input_ids"][0].tolist()]
    path.write_text(head_view(weights, tokens, html_action="return").data, encoding="utf-8")
