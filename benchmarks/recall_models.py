"""The models of `attention_recall`: two layers of each subject, trained on a task, timed, their rotation scaled."""

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from benchmarks.attention_subjects import HEADS, LAYERS, SIZES, WIDTH
from benchmarks.measurement import time_call
from benchmarks.recall_texts import TASKS, batch_of
from configuration.schema import StageArguments
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM
from training.stepper import Stepper

SHARES = (256, 64, 16, 4, 1)  # of the context, as lengths of the texts trained on, one after the other
UNSCALED = "none"
SCALINGS = (UNSCALED, "linear", "yarn")  # "dynamic" cannot continue a text from a cache, as a question at the end does


@dataclass(frozen=True)
class Subject:
    """A model to compare.

    Attributes:
        attention_type: the variant, or one a layer.
        fields: other fields of its config.
    """

    attention_type: str | list[str]
    fields: dict = field(default_factory=dict)


SUBJECTS = {
    "vanilla": Subject("vanilla"),
    "linformer": Subject("linformer"),
    "linformer, content slots": Subject("linformer", {"linformer_slot_type": "content"}),
    "bigbird": Subject("bigbird"),
    "window": Subject("window"),
    "performer": Subject("performer"),
    "linformer below vanilla": Subject(["linformer", "vanilla"]),
    "selected": Subject("selected"),
    "selected by summaries": Subject("selected", {"selected_by": "summary"}),
    "selected below linformer": Subject(["selected", "linformer"]),
    "linformer below selected": Subject(["linformer", "selected"]),
    "selected above gated_deltanet": Subject(["gated_deltanet", "selected"]),
    "gated_deltanet": Subject("gated_deltanet"),
    "gated_deltanet, two heads": Subject("gated_deltanet", {"gated_deltanet_heads": 2}),
}


def build_model(subject: str, length: int, task: str = "people", seed: int = 0) -> MiniGPTForCausalLM:
    """Return a two-layer model of a subject, the same random weights for one seed.

    Args:
        subject: a name in `SUBJECTS`, or the name of any attention type.
    """
    chosen = SUBJECTS.get(subject, Subject(subject))
    torch.manual_seed(seed)
    return MiniGPTForCausalLM(
        MiniGPTConfig(
            vocab_size=TASKS[task].vocabulary,
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            num_hidden_layers=LAYERS,
            max_position_embeddings=length,
            attention_type=chosen.attention_type,
            zero_init_residual=True,
            **{**SIZES, **chosen.fields},
        )
    )


def train(
    model: MiniGPTForCausalLM, what: str, task: str, length: int, steps: list[int], tokens: int, seed: int = 0
) -> dict:
    """Train on texts of `SHARES` of `length`, the shortest first, `steps` of each; return minutes and loss.

    Args:
        what: names the model in the progress bar.
        tokens: of a step.
        seed: of the texts, which are the same for every model.
    """
    stage = StageArguments(steps=sum(steps), decay_fraction=0.4, muon_learning_rate=0.005, muon_bfloat16=False)
    stepper = Stepper.prepare(model, stage, Accelerator(cpu=True, mixed_precision="no"), stage.steps)
    rng = np.random.default_rng([1, seed])
    start = time.monotonic()
    losses = []
    lengths = [length // share for share, count in zip(SHARES, steps, strict=True) for _ in range(count)]
    with tqdm(lengths, desc=what, unit="step", dynamic_ncols=True) as bar:
        for step, n in enumerate(bar):
            loss, _ = stepper.step(step, batch_of(task, rng, max(1, tokens // n), n))
            losses.append(loss.item())
            if step % 20 == 0:
                bar.set_postfix_str(f"{n} tokens, loss {losses[-1]:.3f}")
    return {"minutes": (time.monotonic() - start) / 60, "loss": float(np.mean(losses[-20:]))}


def rescaled(model: MiniGPTForCausalLM, length: int, scaling: str) -> MiniGPTForCausalLM:
    """Return the same weights in a model for texts of `length` tokens, its rotation scaled from the training length.

    Args:
        scaling: "none" (the model itself), "linear" (Chen et al. 2023, arXiv 2306.15595: positions are divided by
            length / training length) or "yarn" (Peng et al. 2023, arXiv 2309.00071: the slow pairs' alone).
    """
    if scaling == UNSCALED:
        return model
    trained = model.config.max_position_embeddings
    settings = {**model.config.rope_parameters, "rope_type": scaling, "factor": length / trained}
    if scaling == "yarn":
        settings["original_max_position_embeddings"] = trained
    config = MiniGPTConfig.from_dict(
        {**model.config.to_dict(), "max_position_embeddings": length, "rope_parameters": settings}
    )
    scaled = MiniGPTForCausalLM(config)
    scaled.load_state_dict(model.state_dict())
    return scaled.train(model.training)


def milliseconds_a_token(model: MiniGPTForCausalLM, length: int, at_least: float = 0.5) -> float:
    """Return the time of a forward and backward pass of one text of `length` tokens, in ms per token, the median."""
    ids = torch.randint(model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        model(ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad()

    step()  # a first pass allocates
    return 1e3 * time_call(step, at_least).median / length
