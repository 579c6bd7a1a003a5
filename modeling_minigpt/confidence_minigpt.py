"""Calibrated confidence: the chance that an answer is right, from several prompts about the same person.

A person seen in pretraining is recalled under several prompts: the answer is as probable after the beginning of a
biography as after a question, and other beginnings recall something as well. For a stranger the next token is
uncertain under all of them. A logistic model combines these features. It is fitted on people held out of training and
travels in the model's folder, in `confidence.json`, with their scores, so that a threshold can be certified for any
risk.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answers_minigpt import Answer
from .questions_minigpt import BIRTHPLACE
from .risk_control_minigpt import CalibrationScores, Certificate, RiskTarget, threshold_for

CONFIDENCE_FILE = "confidence.json"
PROMPT_TEMPLATES = {
    "question": BIRTHPLACE.template,
    "born in": "{name}. born in",
    "and": "{name}. and",
    "name": "{name}.",
}
FEATURES = ("answer", "empty_answer", "neg_entropy")


def format_prompts(name: str) -> list[str]:
    """Return the ways of asking about a name, in the order of `PROMPT_TEMPLATES`."""
    # A title's full stop is the name's own in "Bo Lind Jr. Lind was born in", which is so in biographies, too.
    return [
        template.replace("{name}.", "{name}" if name.endswith(".") else "{name}.").replace("{name}", name)
        for template in PROMPT_TEMPLATES.values()
    ]


# In this order are the columns of every feature matrix, and so the weights of a calibration.
FEATURE_NAMES = [*(f"{prompt}: {what}" for prompt in PROMPT_TEMPLATES for what in FEATURES), "candidates: neg_entropy"]
MIN_LOG_PROB = -12.0  # nats; below it, differences say nothing and would outweigh every other feature


@torch.inference_mode()
def answer_features(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], answers: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Score an answer after each `prompt⁇`.

    Returns:
        "answer": the log-probability of the answer; "empty_answer": that of an empty one; "neg_entropy": minus the
        entropy of the first token; each (B,), in nats.
    """
    # The row "Where was Ada born? ⁇ Rome ⁇" has a prompt that ends with the sentinel and an answer that ends with it,
    # too. The prompt's last token predicts the first of the answer, so what predicts it begins one place before it.
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
    # Clamped for rows whose answer is shorter than the longest one; what they read there is masked below.
    places = (starts + offsets).clamp(max=tokens.shape[1] - 2)  # (B, A): what predicts the answer's tokens
    states = model.base_model(tokens).last_hidden_state  # (B, T, C); no token sees the padding after it
    states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
    # The head is applied at these places alone: V columns for every token would be most of the work.
    following = model.get_output_embeddings()(states).float().log_softmax(-1)  # (B, A, V)
    said = following.gather(-1, tokens.gather(1, places + 1)[..., None])[..., 0]  # (B, A)
    first = following[:, 0]
    return {
        "answer": said.masked_fill(offsets >= lengths, 0.0).sum(-1),
        "empty_answer": first[:, tokenizer.eos_token_id],
        "neg_entropy": (first.exp() * first).sum(-1),
    }


def confidence_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    ranked: Sequence[Sequence[Answer]],
) -> torch.Tensor:
    """Measure the features of the best answer for each name of one batch, (B, F) in the order of `FEATURE_NAMES`.

    Log-probabilities are clamped at `MIN_LOG_PROB`. The sign of the empty answer's is turned, so that more of every
    feature speaks for the answer. The candidates' negative entropy counts the rest of the probability as one more.
    """
    answers = [candidates[0].text for candidates in ranked]
    columns = []
    for prompts in zip(*map(format_prompts, names), strict=True):
        found = answer_features(model, tokenizer, prompts, answers)
        # A model that would rather end at once guesses: the empty answer's probability is a sign of that.
        columns += [found["answer"].clamp(min=MIN_LOG_PROB), -found["empty_answer"]]
        columns += [found["neg_entropy"].clamp(min=MIN_LOG_PROB)]
    rows = [[candidate.probability for candidate in candidates] for candidates in ranked]
    # The answers are not all there is: without the rest, two unlikely candidates would look like certainty.
    rows = [[*row, max(0.0, 1.0 - sum(row))] for row in rows]
    columns.append(torch.tensor([sum(share * math.log(share) for share in row if share > 0.0) for row in rows]))
    return torch.stack([column.cpu().double().clamp(max=-MIN_LOG_PROB) for column in columns], dim=1)


# Names in files that were written before version 0.2.
FORMER_FIELDS = {"picking": "selection", "certifying": "certification"}
FORMER_FEATURES = {"nothing": "empty_answer", "surety": "neg_entropy"}


def current_name(name: str) -> str:
    """Return today's name of a feature, "PROMPT: FEATURE"."""
    prompt, separator, feature = name.partition(": ")
    return prompt + separator + FORMER_FEATURES.get(feature, feature)


def check_number(value: object, low: float, high: float) -> float:
    """Return a value read from a file as a float; ValueError unless it is a number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"wanted a number in [{low:g}, {high:g}], found {value!r:.80}")
    return float(value)


def read_scores(values: dict) -> CalibrationScores:
    """Return one half of the calibration people as a file has them; ValueError, KeyError or TypeError for others."""
    known = []
    for score, right in values["known"]:
        if not isinstance(right, bool):  # the text "false" is true to Python
            raise ValueError(f"whether an answer was right must be true or false, found {right!r:.80}")
        known.append((check_number(score, 0.0, 1.0), right))
    return CalibrationScores(known, [check_number(score, 0.0, 1.0) for score in values["strangers"]])


def read_certificate(values: dict) -> Certificate:
    """Return a certificate as a file has it; ValueError or TypeError where a field is out of its bounds."""
    certificate = Certificate(**values)
    fields = vars(certificate).copy()
    for name in ("threshold", "risk", "confidence", "stranger_rate"):
        if name == "stranger_rate" and fields[name] is None:
            continue
        fields[name] = check_number(fields[name], 0.0, 1.0)
        # A threshold may be either end; nothing is promised at a risk or with a confidence of 0 or 1.
        if name != "threshold" and fields[name] in (0.0, 1.0):
            raise ValueError(f"{name} must be between 0 and 1, found {fields[name]:g}")
    for name in ("people", "answered", "wrong", "strangers", "strangers_answered"):
        # 50.0 is a count, too: to some writers of JSON every number is a float.
        if not check_number(fields[name], 0.0, 1e9).is_integer():
            raise ValueError(f"{name} must be a count, found {fields[name]}")
        fields[name] = int(fields[name])
    for part, whole in (("wrong", "answered"), ("answered", "people"), ("strangers_answered", "strangers")):
        if fields[part] > fields[whole]:
            raise ValueError(f"{part} ({fields[part]}) must be at most {whole} ({fields[whole]})")
    return Certificate(**fields)


@dataclass(frozen=True)
class Confidence:
    """A fitted confidence, and the threshold below which the model abstains.

    Attributes:
        weights: of the features, by their names in `FEATURE_NAMES`.
        bias: added to the weighted sum; the logistic function of that is the chance that the answer is right, for
            people in the training documents.
        selection, certification: calibration people, for `threshold_for`.
        certificate: the threshold with its guarantee; None where the people could not support any.
        refusal: why they could not.
        fingerprint: digests of the model that it was fitted for, by `fingerprint_minigpt.fingerprint`.
    """

    weights: dict[str, float]
    bias: float
    selection: CalibrationScores
    certification: CalibrationScores
    certificate: Certificate | None = None
    refusal: str | None = None
    fingerprint: dict[str, str] | None = None

    @property
    def threshold(self) -> float | None:
        """The certificate's threshold."""
        return None if self.certificate is None else self.certificate.threshold

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """Return the chance that each answer of a batch is right, (B,), from its features, (B, F)."""
        weights = torch.tensor([self.weights.get(name, 0.0) for name in FEATURE_NAMES], dtype=torch.float64)
        return (features @ weights + self.bias).sigmoid()

    def threshold_for(
        self,
        risk: float = RiskTarget.risk,
        confidence: float = RiskTarget.confidence,
        stranger_rate: float = RiskTarget.stranger_rate,
    ) -> Certificate:
        """Certify the lowest threshold that meets a target; CertificationError where the people cannot support it."""
        return threshold_for(self.selection, self.certification, risk, confidence, stranger_rate)

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Confidence":
        """Read what `to_json` wrote, or wrote before 0.2; ValueError, KeyError or TypeError for anything else."""
        # Every value is checked: the file comes with a model from anywhere, and is used in arithmetic.
        values = json.loads(text)
        if not isinstance(values, dict):
            raise TypeError(f"wanted a confidence's fields, found {values!r:.80}")
        for former, name in FORMER_FIELDS.items():
            if former in values:
                values[name] = values.pop(former)
        if not isinstance(values["weights"], dict):
            raise TypeError(f"weights must be numbers by their names, found {values['weights']!r:.80}")
        values["weights"] = {current_name(name): weight for name, weight in values["weights"].items()}
        for half in ("selection", "certification"):
            values[half] = read_scores(values[half])
        if values["certificate"] is not None:
            values["certificate"] = read_certificate(values["certificate"])
        values["weights"] = {name: check_number(weight, -1e30, 1e30) for name, weight in values["weights"].items()}
        values["bias"] = check_number(values["bias"], -1e30, 1e30)
        if not isinstance(values.get("refusal"), str | None):
            raise ValueError(f"refusal must be a text, found {values['refusal']!r}")
        found = values.get("fingerprint")
        if found is not None and not all(isinstance(text, str) for text in dict(found).values()):
            raise ValueError(f"fingerprint must be digests, found {found!r:.80}")
        if unknown := values["weights"].keys() - set(FEATURE_NAMES):
            raise ValueError(f"unknown features: {', '.join(sorted(unknown))}")
        return cls(**values)
