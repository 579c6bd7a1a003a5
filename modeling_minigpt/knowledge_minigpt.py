"""What a pipeline knows, relation by relation: read from beside the weights, found by name, saved with the model.

A calibration is used only where its fingerprint says that it belongs to this model and this relation.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .answer_trie_minigpt import AnswerTrie
from .confidence_file_minigpt import confidences_from_json, confidences_to_json
from .confidence_minigpt import CONFIDENCE_FILE, NEVER_CALIBRATED, Confidence
from .facts_minigpt import (
    BIRTHPLACES_FILE,
    FACTS_FILE,
    RelationFacts,
    build_facts,
    by_relation,
    explain_missing_tokens,
    facts_to_json,
    read_facts,
)
from .fingerprint_minigpt import explain_mismatch, fingerprint_model
from .model_state_minigpt import ModelKey, model_key
from .names_minigpt import NAMES_FILE, NameIndex
from .relations_minigpt import BIRTHPLACE, Relation
from .risk_control_minigpt import Certificate, RiskTarget
from .source_minigpt import WeightsSource

logger = logging.get_logger(__name__)
# Several threads may find that one model has changed. Not an attribute, for a pipeline is copied and pickled.
CHECKING = threading.Lock()


class KnowledgeMixin:
    """Relations with their candidates and calibrations, and the names of training, for a pipeline.

    Attributes:
        facts: by the relations' names, the main one first.
        names: of the people in the training texts.
        checked_key: of the model as the calibrations were last compared with it; None before that.
        digests: of the model then.
    """

    model: PreTrainedModel
    encoder: PreTrainedTokenizerBase
    facts: dict[str, RelationFacts]
    names: NameIndex
    checked_key: ModelKey | None = None
    digests: dict[str, str] | None = None

    def load_knowledge(
        self,
        relations: Sequence[Relation] | None,
        candidates: list[str] | Mapping[str, list[str]] | None,
        confidence: Confidence | Mapping[str, Confidence] | None,
        names: Sequence[str] | None,
    ) -> None:
        """Take what is given, and from beside the weights what is None; the arguments are those of the pipeline.

        Raises:
            ValueError: the tokenizer lacks a token of questions and answers.
            ValueError, SourceError: as `build_facts`, `by_relation` and `WeightsSource.read_parsed`.
        """
        if missing := explain_missing_tokens(self.encoder):
            raise ValueError(missing)
        source: WeightsSource | None = getattr(self.model, "weights_source", None)
        is_given = all(value is not None for value in (relations, candidates, names))
        stored, text = read_facts(None if is_given else source)
        if relations is None:
            # Of a model that was saved without its pipeline nobody knows what it was trained to answer.
            if source is not None and not stored and candidates is None:
                asked = BIRTHPLACE.format("NAME")
                logger.warning(f'{self.model.name_or_path}: no {FACTS_FILE} beside the weights: asked "{asked}"')
            relations = [relation for relation, _ in stored] or [BIRTHPLACE]
        if not relations:
            raise ValueError("found no relations, wanted at least one")
        own = {relation.name for relation in relations}
        if candidates is None:
            by_name = {relation.name: answers for relation, answers in stored if relation.name in own}
        else:
            by_name = by_relation(candidates, relations, "candidates")
        self.facts = build_facts(relations, by_name, self.encoder, self.model.config.max_position_embeddings)
        confidences = {} if confidence is None else by_relation(confidence, relations, "confidence")
        # Where candidates are given, a stored calibration was not made for them.
        reads = source is not None and candidates is None
        if source is not None and reads and (confidence is None or isinstance(confidence, Mapping)):
            known = [relation for relation, _ in stored] or list(relations)
            parse = partial(confidences_from_json, relations=known)
            found = source.read_parsed(CONFIDENCE_FILE, parse) or {}
            confidences = {name: one for name, one in found.items() if name in own} | confidences
        self.add_confidences(confidences, must_say=reads)
        self.names = NameIndex(text) if names is None else NameIndex.from_names(names)

    def add_confidences(self, confidences: dict[str, Confidence], must_say: bool) -> None:
        """Use the calibrations that belong to this model, and warn of the others.

        Args:
            must_say: refuse those that do not say which model they are of; one that was made for a model in memory, a
                moment ago, need not.
        """
        for name, confidence in confidences.items():
            self.facts[name].confidence = confidence
            if must_say and confidence.fingerprint is None:
                self.drop_confidence(name, explain_mismatch(None, {}))
        self.current_confidences()

    def current_confidences(self) -> dict[str, Confidence]:
        """Return the calibrations by the relations' names, without those of the model as it was before a change."""
        if any(facts.confidence is not None for facts in self.facts.values()):
            self.check_model()
        return {name: facts.confidence for name, facts in self.facts.items() if facts.confidence is not None}

    def check_model(self) -> None:
        """Drop the calibrations that do not belong to the model, if it may have changed since the last check."""
        key = model_key(self.model)
        if key == self.checked_key:
            return
        with CHECKING:
            if key == self.checked_key:  # checked by another thread meanwhile
                return
            digests, refusal = self.digest_model()
            for name, facts in self.facts.items():
                expected = self.expected_fingerprint(name)
                # Before the first check nothing has changed. After it, what has no digest may be another model.
                if facts.confidence is None or (expected is None and self.checked_key is None):
                    continue
                if reason := refusal or explain_mismatch(expected, facts.fingerprint(digests)):
                    self.drop_confidence(name, reason)
            self.digests = digests or None
            self.checked_key = key

    def digest_model(self) -> tuple[dict[str, str], str | None]:
        """Return the model's digests and None, or none and the reason why it has none."""
        try:
            return fingerprint_model(self.model, self.encoder), None
        except ValueError as error:
            return {}, str(error)

    def expected_fingerprint(self, relation: str) -> dict[str, str] | None:
        """Return the fingerprint that a relation's calibration is of; None without one, or where it is not known.

        A calibration that was made for a model in memory has none, so it is that of the last check.
        """
        facts = self.facts[relation]
        if facts.confidence is None:
            return None
        if facts.confidence.fingerprint is None and self.digests is not None:
            return facts.fingerprint(self.digests)
        return facts.confidence.fingerprint

    def drop_confidence(self, relation: str, reason: str | None) -> None:
        """Use a relation's calibration no longer, and warn why."""
        self.facts[relation].confidence = None
        self.facts[relation].uncalibrated = reason
        which = self.label(self.model.name_or_path, relation)
        logger.warning(f"{which}: not calibrated, so no question gets an answer unless threshold=0 is given: {reason}")

    @property
    def relations(self) -> dict[str, Relation]:
        """The relations by their names, the main one first."""
        return {name: facts.relation for name, facts in self.facts.items()}

    def find_facts(self, relation: str | None = None) -> RelationFacts:
        """Return the facts of a relation, by default of the first; ValueError for one that the model does not have."""
        if relation is None:
            return next(iter(self.facts.values()))
        if not isinstance(relation, str) or relation not in self.facts:
            raise ValueError(f"relation must be one of {', '.join(self.facts)}, found {relation!r:.80}")
        return self.facts[relation]

    @property
    def candidates(self) -> list[str]:
        """The first relation's candidates."""
        return self.find_facts().candidates

    @property
    def trie(self) -> AnswerTrie | None:
        """The first relation's candidates as a trie."""
        return self.find_facts().trie

    @property
    def uncalibrated(self) -> str | None:
        """Why the first relation's calibration is not used."""
        return self.find_facts().uncalibrated

    @property
    def confidence(self) -> Confidence | None:
        """The first relation's calibration."""
        return self.find_facts().confidence

    @confidence.setter
    def confidence(self, confidence: Confidence | None) -> None:
        self.set_confidence(self.find_facts().relation.name, confidence)

    def set_confidence(self, relation: str, confidence: Confidence | None) -> None:
        """Use a calibration, or none, for a relation; ValueError for one that the model does not have."""
        facts = self.find_facts(relation)
        if confidence is not None:
            self.check_model()  # one that does not say which model it is of, is of the model as it is now
        facts.confidence = confidence

    def fingerprint(self, relation: str | None = None) -> dict[str, str]:
        """Return digests of all that a relation's scores depend on; ValueError where the weights are not in memory."""
        return self.find_facts(relation).fingerprint(fingerprint_model(self.model, self.encoder))

    def threshold_for(
        self,
        risk: float = RiskTarget.risk,
        confidence: float = RiskTarget.confidence,
        stranger_rate: float = RiskTarget.stranger_rate,
        relation: str | None = None,
    ) -> Certificate:
        """Return a certificate, to be passed as `threshold`: the thresholds that answer most and meet this target.

        Args:
            risk: largest share of wrong ones among the answers about people in the training texts.
            confidence: probability, over draws of calibration people, that both limits are met.
            stranger_rate: largest share of strangers who may get an answer; 1, which is no limit, if only people in
                the training texts are asked about.
            relation: of the questions that it is for; the first when None.

        Raises:
            ValueError: the relation has no calibration, or a value of the target is out of range.
            CertificationError: its calibration people are too few, or too many of its sure answers are wrong.
        """
        facts = self.find_facts(relation)
        if facts.confidence is None:
            raise ValueError(f"this model is not calibrated: {facts.uncalibrated or NEVER_CALIBRATED}")
        certificate = facts.confidence.threshold_for(risk, confidence, stranger_rate)
        return replace(certificate, relation=facts.relation.name)

    def save_knowledge(self, directory: str | os.PathLike) -> None:
        """Write facts, confidences and names into a model's folder, and remove those of a model that was there."""
        folder = Path(directory)
        for file in (BIRTHPLACES_FILE, CONFIDENCE_FILE, NAMES_FILE):
            (folder / file).unlink(missing_ok=True)
        (folder / FACTS_FILE).write_text(facts_to_json(self.facts.values()), encoding="utf-8")
        if self.names.text:
            (folder / NAMES_FILE).write_text(self.names.text, encoding="utf-8")
        calibrated = {name: facts.confidence for name, facts in self.facts.items() if facts.confidence is not None}
        digests, refusal = self.digest_model() if calibrated else ({}, None)
        confidences = {}
        for name, confidence in calibrated.items():
            found = self.facts[name].fingerprint(digests)
            # Trained on, perhaps, since it was loaded.
            if reason := refusal or explain_mismatch(self.expected_fingerprint(name) or found, found):
                logger.warning(f"{self.label(str(directory), name)}: saved without its calibration: {reason}")
                continue
            confidences[name] = replace(confidence, fingerprint=found)
        if confidences:
            (folder / CONFIDENCE_FILE).write_text(confidences_to_json(confidences), encoding="utf-8")

    def label(self, model: str, relation: str) -> str:
        """Return what a warning names: a model, and the relation where it has several."""
        return model if len(self.facts) == 1 else f"{model}: {relation}"
