"""`confidence.json`: what a calibration has measured, read with a check of every number.

    {"relations": {NAME: {"known": {"weights": {FEATURE: number, …}, "bias"}, "correct": {…},
                          "selection": {"known": [[known, correct, right], …], "strangers": [[known, correct], …]},
                          "certification": {…}, "certificate": {…} or null, "refusal", "fingerprint"}, …}}

The model, and this file with it, may come from anywhere, so no value is used unchecked, and a certificate is
counted again on the scores beside it. An older file, with one head, has "weights" and "bias" at the top level, and one
score per person; it becomes a confidence without a known head.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

import torch

from .confidence_minigpt import Confidence, Head
from .features_minigpt import feature_names
from .relations_minigpt import BIRTHPLACE, Relation
from .risk_control_minigpt import CalibrationScores, Certificate, binomial_log_cdf, format_percent

# Names in files that were written before version 0.2.
FORMER_FIELDS = {"picking": "selection", "certifying": "certification"}
FORMER_FEATURES = {"nothing": "empty_answer", "surety": "neg_entropy"}
SAME = 1e-9  # up to which what is computed again is what the file has: other libraries round differently


def current_name(name: str) -> str:
    """Return today's name of a feature, "PROMPT: FEATURE"."""
    prompt, separator, feature = name.rpartition(": ")
    return prompt + separator + FORMER_FEATURES.get(feature, feature)


def check_number(value: object, low: float, high: float) -> float:
    """Return a value read from a file as a float; ValueError unless it is a number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"wanted a number in [{low:g}, {high:g}], found {value!r:.80}")
    return float(value)


def check_fields(value: object, what: str) -> dict:
    """Return an object read from a file as a dict; TypeError for anything else."""
    if not isinstance(value, dict):
        raise TypeError(f"wanted {what}, found {value!r:.80}")
    return dict(value)


def read_head(values: object, relation: Relation) -> Head:
    """Return a head as a file has it; ValueError, KeyError or TypeError for anything else."""
    found = check_fields(values, "a head's weights and bias")
    weights = check_fields(found["weights"], "weights by the names of features")
    weights = {current_name(name): check_number(weight, -1e30, 1e30) for name, weight in weights.items()}
    if unknown := weights.keys() - set(feature_names(relation)):
        raise ValueError(f"unknown features: {', '.join(sorted(unknown))}")
    return Head(weights, check_number(found["bias"], -1e30, 1e30))


def read_scores(values: dict, former: bool) -> CalibrationScores:
    """Return the scores of one half of the calibration people from a file.

    Args:
        former: whether the file has one score per person, which is read as `correct`, with 1 for `known`.

    Raises:
        ValueError, KeyError, TypeError: for any other values.
    """
    rows = [((1.0, *row) if former else row) for row in values["known"]]
    known = []
    for sure_known, sure_correct, right in rows:
        if not isinstance(right, bool):  # the text "false" is true to Python
            raise ValueError(f"whether an answer was right must be true or false, found {right!r:.80}")
        known.append((check_number(sure_known, 0.0, 1.0), check_number(sure_correct, 0.0, 1.0), right))
    strangers = [((1.0, row) if former else row) for row in values["strangers"]]
    return CalibrationScores(
        known, [(check_number(one, 0.0, 1.0), check_number(other, 0.0, 1.0)) for one, other in strangers]
    )


def read_certificate(values: object) -> Certificate:
    """Return a certificate as a file has it; ValueError or TypeError where a field is out of its bounds."""
    found = check_fields(values, "a certificate's fields")
    if "threshold" in found:  # of before there were two heads
        found |= {"known_threshold": 0.0, "correct_threshold": found.pop("threshold")}
    found = vars(Certificate(**found)).copy()  # all fields and no others
    for name in ("known_threshold", "correct_threshold", "risk", "confidence", "stranger_rate"):
        if name == "stranger_rate" and found[name] is None:
            continue
        found[name] = check_number(found[name], 0.0, 1.0)
        # A threshold may be either end; nothing is promised at a risk or with a confidence of 0 or 1.
        if not name.endswith("threshold") and found[name] in (0.0, 1.0):
            raise ValueError(f"{name} must be between 0 and 1, found {found[name]:g}")
    for name in ("relation", "calibration"):
        if not isinstance(found[name], str | None):
            raise TypeError(f"{name} must be a text, found {found[name]!r:.80}")
    for name in ("people", "answered", "wrong", "strangers", "strangers_answered"):
        # 50.0 is a count, too: to some writers of JSON every number is a float.
        if not check_number(found[name], 0.0, 1e9).is_integer():
            raise ValueError(f"{name} must be a count, found {found[name]}")
        found[name] = int(found[name])
    for part, whole in (("wrong", "answered"), ("answered", "people"), ("strangers_answered", "strangers")):
        if found[part] > found[whole]:
            raise ValueError(f"{part} ({found[part]}) must be at most {whole} ({found[whole]})")
    return Certificate(**found)


def check_certificate(
    certificate: Certificate, selection: CalibrationScores, certification: CalibrationScores
) -> None:
    """Raise ValueError where a certificate contradicts the scores that it was certified on.

    How its thresholds were found is not repeated, for that has changed from version to version: its counts must be
    those of its thresholds, and must support what it promises.
    """
    if not selection.known:
        raise ValueError("a certificate, but nobody in the selection half, which its thresholds are from")
    pair = (certificate.known_threshold, certificate.correct_threshold)
    for name, count in certification.describe(pair).items():
        if getattr(certificate, name) != count:
            raise ValueError(
                f"the certificate says {name}: {getattr(certificate, name)}, but by its thresholds and the scores of "
                f"the certification half it is {count}"
            )
    limits = [("answers wrong", certificate.wrong, certificate.answered, certificate.risk)]
    if certificate.stranger_rate is not None:
        answered = certificate.strangers_answered
        limits.append(("strangers answered", answered, certificate.strangers, certificate.stranger_rate))
    for what, failures, trials, rate in limits:
        p_value = binomial_log_cdf(torch.tensor([failures]), torch.tensor([trials]), rate).exp().item()
        if p_value > 1.0 - certificate.confidence + SAME:
            raise ValueError(
                f"the certificate promises at most {format_percent(rate)} of {what} with "
                f"{format_percent(certificate.confidence)} confidence, which {failures} of {trials} do not support"
            )


def check_head(name: str, head: Head | None, scores: Sequence[float]) -> None:
    """Raise ValueError where a head without weights, which gives everybody one probability, has given others."""
    if head is None or head.weights:
        return
    constant = 1.0 / (1.0 + math.exp(min(-head.bias, 700.0)))
    for score in scores:
        if abs(score - constant) > SAME:
            given = f"it gives everybody {constant:g}, but {score:g} is there"
            raise ValueError(f"the head {name!r} has no weights: {given}")


def read_confidence(values: object, relation: Relation = BIRTHPLACE) -> Confidence:
    """Read a confidence from the values of its JSON; ValueError, KeyError or TypeError for anything else."""
    found = check_fields(values, "a confidence's fields")
    for former, name in FORMER_FIELDS.items():
        if former in found:
            found[name] = found.pop(former)
    is_former = "weights" in found
    if is_former:
        found |= {"known": None, "correct": {"weights": found.pop("weights"), "bias": found.pop("bias")}}
    found["known"] = None if found["known"] is None else read_head(found["known"], relation)
    found["correct"] = read_head(found["correct"], relation)
    for half in ("selection", "certification"):
        scores = found[half] = read_scores(found[half], is_former)
        for column, head in enumerate(("known", "correct")):
            check_head(head, found[head], [row[column] for row in (*scores.known, *scores.strangers)])
    if found["certificate"] is not None:
        found["certificate"] = read_certificate(found["certificate"])
        check_certificate(found["certificate"], found["selection"], found["certification"])
    if not isinstance(found.get("refusal"), str | None):
        raise ValueError(f"refusal must be a text, found {found['refusal']!r:.80}")
    digests = found.get("fingerprint")
    if digests is not None and not all(
        isinstance(text, str) for text in check_fields(digests, "a fingerprint's digests").values()
    ):
        raise ValueError(f"fingerprint must be digests, found {digests!r:.80}")
    if unknown := found.keys() - {field.name for field in fields(Confidence)}:
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))[:200]}")
    return Confidence(**found)


def confidences_to_json(confidences: Mapping[str, Confidence]) -> str:
    """Return what `confidences_from_json` reads."""
    values = {name: asdict(confidence) for name, confidence in confidences.items()}
    return json.dumps({"relations": values}, indent=1, ensure_ascii=False) + "\n"


def confidences_from_json(text: str, relations: Sequence[Relation]) -> dict[str, Confidence]:
    """Return the confidence of each relation by name; a file from before there were relations is for the first one.

    Raises:
        ValueError, KeyError, TypeError: for any other text, or a relation that is not among these.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or "relations" not in values:
        return {relations[0].name: read_confidence(values, relations[0])}
    known = {relation.name: relation for relation in relations}
    if not isinstance(values["relations"], dict):
        raise TypeError(f"relations must be confidences by their names, found {values['relations']!r:.80}")
    if unknown := values["relations"].keys() - known.keys():
        raise ValueError(f"unknown relations: {', '.join(sorted(unknown))[:200]}; the model has {', '.join(known)}")
    return {name: read_confidence(part, known[name]) for name, part in values["relations"].items()}
