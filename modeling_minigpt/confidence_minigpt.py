"""Calibrated confidence: the chance that an answer is right, from several prompts about the same person.

A person seen in pretraining is recalled under several prompts: the answer is as probable after the beginning of a
biography as after a question, and other beginnings recall something as well. For a stranger the next token is
uncertain under all of them. A logistic model combines these features, one for each relation. It is fitted on people
held out of training and travels in the model's folder, in `confidence.json`, with their scores, so that a threshold
can be certified for any risk.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answers_minigpt import Answer
from .relations_minigpt import BIRTHPLACE, Relation
from .risk_control_minigpt import CalibrationScores, Certificate, RiskTarget, threshold_for

CONFIDENCE_FILE = "confidence.json"
FEATURES = ("answer", "empty_answer", "neg_entropy")
CANDIDATES_FEATURE = "candidates: neg_entropy"


def prompt_templates(relation: Relation) -> dict[str, str]:
    """Return the ways of asking for a relation by their labels: the question, then the prompts.

    A prompt's label is what comes after the name: "born in" of "{name}. born in", "name" of "{name}.". A prompt whose
    label is taken is its own label.
    """
    templates = {"question": relation.question}
    for prompt in relation.prompts:
        label = prompt.partition("{name}")[2].removeprefix(".").strip() or "name"
        # "candidates" is the label of a feature that is not of a prompt.
        templates[prompt if label in templates or label == "candidates" else label] = prompt
    return templates


def format_prompts(name: str, relation: Relation = BIRTHPLACE) -> list[str]:
    """Return the ways of asking about a name, in the order of `prompt_templates`."""
    # A title's full stop is the name's own in "Bo Lind Jr. Lind was born in", which is so in biographies, too.
    stop = "{name}" if name.endswith(".") else "{name}."
    prompts = [prompt.replace("{name}.", stop).replace("{name}", name) for prompt in relation.prompts]
    return [relation.format(name), *prompts]


def feature_names(relation: Relation) -> list[str]:
    """Return the names of a relation's features, in the order of the columns of every feature matrix, (F,)."""
    return [*(f"{prompt}: {what}" for prompt in prompt_templates(relation) for what in FEATURES), CANDIDATES_FEATURE]


FEATURE_NAMES = feature_names(BIRTHPLACE)
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


def candidates_neg_entropy(candidates: Sequence[Answer]) -> float:
    """Return minus the entropy of one question's candidates, in nats; what they leave counts as one more."""
    shares = [candidate.probability for candidate in candidates]
    # The answers are not all there is: without the rest, two unlikely candidates would look like certainty.
    shares.append(max(0.0, 1.0 - sum(shares)))
    return sum(share * math.log(share) for share in shares if share > 0.0)


def confidence_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    ranked: Sequence[Sequence[Answer]],
    relation: Relation = BIRTHPLACE,
) -> torch.Tensor:
    """Measure the features of the best answer for each name of one batch, (B, F) in the order of `feature_names`.

    Log-probabilities are clamped at `MIN_LOG_PROB`. The sign of the empty answer's is turned, so that more of every
    feature speaks for the answer.
    """
    answers = [candidates[0].text for candidates in ranked]
    columns = []
    for prompts in zip(*(format_prompts(name, relation) for name in names), strict=True):
        found = answer_features(model, tokenizer, prompts, answers)
        # A model that would rather end at once guesses: the empty answer's probability is a sign of that.
        columns += [found["answer"].clamp(min=MIN_LOG_PROB), -found["empty_answer"]]
        columns += [found["neg_entropy"].clamp(min=MIN_LOG_PROB)]
    columns.append(torch.tensor([candidates_neg_entropy(candidates) for candidates in ranked]))
    return torch.stack([column.cpu().double().clamp(max=-MIN_LOG_PROB) for column in columns], dim=1)


# Names in files that were written before version 0.2.
FORMER_FIELDS = {"picking": "selection", "certifying": "certification"}
FORMER_FEATURES = {"nothing": "empty_answer", "surety": "neg_entropy"}


def current_name(name: str) -> str:
    """Return today's name of a feature, "PROMPT: FEATURE"."""
    prompt, separator, feature = name.rpartition(": ")
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
        weights: of the features, by their names in `feature_names`.
        bias: added to the weighted sum; the logistic function of that is the chance that the answer is right, for
            people in the training documents.
        selection, certification: calibration people, for `threshold_for`.
        certificate: the threshold with its guarantee; None where the people could not support any.
        refusal: why they could not.
        fingerprint: digests of the model and the relation that it was fitted for, by `fingerprint_minigpt`.
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

    def probabilities(self, features: torch.Tensor, relation: Relation = BIRTHPLACE) -> torch.Tensor:
        """Return the chance that each answer of a batch is right, (B,), from its features, (B, F)."""
        weights = torch.tensor([self.weights.get(name, 0.0) for name in feature_names(relation)], dtype=torch.float64)
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
    def from_json(cls, text: str, relation: Relation = BIRTHPLACE) -> "Confidence":
        """Read what `to_json` wrote, or wrote before 0.2; ValueError, KeyError or TypeError for anything else."""
        return cls.from_values(json.loads(text), relation)

    @classmethod
    def from_values(cls, values: object, relation: Relation) -> "Confidence":
        """Read a confidence from the values of its JSON; ValueError, KeyError or TypeError as `from_json`."""
        # Every value is checked: the file comes with a model from anywhere, and is used in arithmetic.
        if not isinstance(values, dict):
            raise TypeError(f"wanted a confidence's fields, found {values!r:.80}")
        values = dict(values)
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
        if found is not None and not (
            isinstance(found, dict) and all(isinstance(text, str) for text in found.values())
        ):
            raise ValueError(f"fingerprint must be digests, found {found!r:.80}")
        if unknown := values["weights"].keys() - set(feature_names(relation)):
            raise ValueError(f"unknown features: {', '.join(sorted(unknown))}")
        return cls(**values)


def confidences_to_json(confidences: Mapping[str, Confidence]) -> str:
    """Return what `confidences_from_json` reads."""
    values = {name: asdict(confidence) for name, confidence in confidences.items()}
    return json.dumps({"relations": values}, indent=1, ensure_ascii=False) + "\n"


def confidences_from_json(text: str, relations: Sequence[Relation]) -> dict[str, Confidence]:
    """Read the confidence of each relation, or a file of before there were several, which is of the first.

    Raises:
        ValueError, KeyError, TypeError: anything else, or a relation that is not among these.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or "relations" not in values:
        return {relations[0].name: Confidence.from_values(values, relations[0])}
    known = {relation.name: relation for relation in relations}
    if not isinstance(values["relations"], dict):
        raise TypeError(f"relations must be confidences by their names, found {values['relations']!r:.80}")
    if unknown := values["relations"].keys() - known.keys():
        raise ValueError(f"unknown relations: {', '.join(sorted(unknown))[:200]}; the model has {', '.join(known)}")
    return {name: Confidence.from_values(part, known[name]) for name, part in values["relations"].items()}
