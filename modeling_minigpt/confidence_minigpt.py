"""How sure a model is that its answer is right, from what it says when it is asked in several ways.

A person whom the training told of is known in more ways than one: the answer is as probable after the beginning of a
biography as after a question, and other beginnings call up something as well; for a stranger the model hesitates. A
logistic model weighs these signals. It is fitted on people held out of training and travels in the model's folder, in
`confidence.json`, with their scores, so that a threshold can be certified for any risk.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answers_minigpt import Answer
from .risk_control_minigpt import CalibrationScores, Certificate, threshold_for

CONFIDENCE_FILE = "confidence.json"
PROMPT_TEMPLATES = {
    "question": "Where was {name} born?",
    "born in": "{name}. born in",
    "and": "{name}. and",
    "name": "{name}.",
}
WHAT = ("answer", "nothing", "surety")
FEATURE_NAMES = [*(f"{way}: {what}" for way in PROMPT_TEMPLATES for what in WHAT), "candidates: surety"]
MIN_LOG_PROB = -12.0  # where log-probabilities end


@torch.inference_mode()
def answer_features(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], answers: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return what a model says after `prompt⁇`, all (B,) in nats.

    Returns:
        "answer": the log-probability of the answer; "nothing": that of an empty one; "surety": minus the entropy of
        the first token.
    """
    opened = tokenizer([prompt + tokenizer.mask_token for prompt in prompts])["input_ids"]
    closed = [
        [*ids, tokenizer.eos_token_id][: model.config.max_position_embeddings - len(prompt)]  # the model's context
        for prompt, ids in zip(opened, tokenizer(list(answers))["input_ids"], strict=True)
    ]
    rows = [torch.tensor(prompt + answer) for prompt, answer in zip(opened, closed, strict=True)]
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id).to(model.device)  # (B, T)
    starts = torch.tensor([len(prompt) - 1 for prompt in opened], device=model.device)[:, None]
    lengths = torch.tensor([len(answer) for answer in closed], device=model.device)[:, None]
    offsets = torch.arange(int(lengths.max()), device=model.device)[None]
    places = (starts + offsets).clamp(max=tokens.shape[1] - 2)  # (B, A): what predicts the answer's tokens
    states = model.base_model(tokens).last_hidden_state  # (B, T, C); no token sees the padding after it
    states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
    following = model.get_output_embeddings()(states).float().log_softmax(-1)  # (B, A, V)
    said = following.gather(-1, tokens.gather(1, places + 1)[..., None])[..., 0]  # (B, A)
    first = following[:, 0]
    return {
        "answer": said.masked_fill(offsets >= lengths, 0.0).sum(-1),
        "nothing": first[:, tokenizer.eos_token_id],
        "surety": (first.exp() * first).sum(-1),
    }


def confidence_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    ranked: Sequence[Sequence[Answer]],
) -> torch.Tensor:
    """Return the signals of the best answer for each name of one batch, (B, signals) in the order of `FEATURE_NAMES`.

    A log-probability below `MIN_LOG_PROB` counts as that; that of nothing is turned around, so that more of it speaks
    for the answer. The candidates' surety is minus their entropy, what none of them has taken together as one.
    """
    answers, columns = [candidates[0].text for candidates in ranked], []
    for prompt in PROMPT_TEMPLATES.values():
        read = answer_features(model, tokenizer, [prompt.format(name=name) for name in names], answers)
        columns += [-read[what] if what == "nothing" else read[what].clamp(min=MIN_LOG_PROB) for what in WHAT]
    rows = [[candidate.probability for candidate in candidates] for candidates in ranked]
    rows = [[*row, max(0.0, 1.0 - sum(row))] for row in rows]
    columns.append(torch.tensor([sum(share * math.log(share) for share in row if share > 0.0) for row in rows]))
    return torch.stack([column.cpu().double().clamp(max=-MIN_LOG_PROB) for column in columns], dim=1)


def number(value: object, low: float, high: float) -> float:
    """Return a number of a file; ValueError where it is none or not in its range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"wanted a number in [{low:g}, {high:g}], found {value!r:.80}")
    return float(value)


@dataclass(frozen=True)
class Confidence:
    """A fitted confidence, and a threshold under which nothing is answered.

    Attributes:
        weights: of the signals, by their names in `FEATURE_NAMES`.
        bias: added to the weighted sum; the logistic function of it is the chance that the answer is right, for
            people of whom the training told.
        selection, certification: calibration people, for `threshold_for`.
        certificate: the threshold with its guarantee; None where the people could not support any.
        refusal: why they could not.
    """

    weights: dict[str, float]
    bias: float
    selection: CalibrationScores
    certification: CalibrationScores
    certificate: Certificate | None = None
    refusal: str | None = None

    @property
    def threshold(self) -> float | None:
        """The certificate's threshold."""
        return None if self.certificate is None else self.certificate.threshold

    def probabilities(self, signals: torch.Tensor) -> torch.Tensor:
        """Return the chance that each answer of a batch is right, (B,), from its signals, (B, signals)."""
        weights = torch.tensor([self.weights.get(name, 0.0) for name in FEATURE_NAMES], dtype=torch.float64)
        return (signals @ weights + self.bias).sigmoid()

    def threshold_for(self, risk: float = 0.1, confidence: float = 0.95, stranger_rate: float = 0.05) -> Certificate:
        """Return the lowest threshold with these promises; CertificationError where the people cannot support it."""
        return threshold_for(self.selection, self.certification, risk, confidence, stranger_rate)

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Confidence":
        """Return what `to_json` wrote; ValueError, KeyError or TypeError where it is something else."""
        values = json.loads(text)
        for half in ("selection", "certification"):
            known = [(number(score, 0.0, 1.0), bool(right)) for score, right in values[half]["known"]]
            values[half] = CalibrationScores(known, [number(score, 0.0, 1.0) for score in values[half]["strangers"]])
        if values["certificate"] is not None:
            certificate = values["certificate"] = Certificate(**values["certificate"])
            for name, value in vars(certificate).items():
                if name != "stranger_rate" or value is not None:
                    number(value, 0.0, 1.0 if type(value) is float else 1e9)
            number(certificate.threshold, 0.0, 1.0)
        values["weights"] = {name: number(weight, -1e30, 1e30) for name, weight in values["weights"].items()}
        values["bias"] = number(values["bias"], -1e30, 1e30)
        if not isinstance(values.get("refusal"), str | None):
            raise ValueError(f"refusal must be a text, found {values['refusal']!r}")
        if unknown := values["weights"].keys() - set(FEATURE_NAMES):
            raise ValueError(f"unknown signals: {', '.join(sorted(unknown))}")
        return cls(**values)
