"""`pipeline("birthplace-qa")`: a name or a question in, a place and the probability that it is right out, or nothing.

The candidate places and the calibration are stored in the model's folder, in `birthplaces.json` and `confidence.json`.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

from .answer_search_minigpt import top_answers
from .answer_trie_minigpt import AnswerTrie
from .answers_minigpt import (
    Answer,
    encode_prompts,
    find_unknown_character,
    greedy_answers,
    score_answers,
)
from .confidence_minigpt import CONFIDENCE_FILE, Confidence, confidence_features, format_prompts
from .fingerprint_minigpt import explain_mismatch, fingerprint
from .questions_minigpt import BIRTHPLACE
from .risk_control_minigpt import Certificate, RiskTarget
from .source_minigpt import WeightsSource

TASK = "birthplace-qa"
BIRTHPLACES_FILE = "birthplaces.json"
# An answer is at most as probable as its first token, so a place that begins less probably than this can neither be
# the answer nor move its score.
CUTOFF = 1e-3
# Up to so many candidates all are scored; of more, the best are searched for, and no more are ranked unless asked for.
SCORED_IN_FULL = 200
RANKED = 20

logger = logging.get_logger(__name__)


def parse_birthplaces(text: str) -> list[str]:
    """Return the places of `{"candidates": [place, …]}`."""
    candidates = json.loads(text)["candidates"]
    if not isinstance(candidates, list) or not all(isinstance(place, str) for place in candidates):
        raise ValueError("candidates must be a list of places")
    return candidates


def rescale_scores(ranked: list[Answer], score: float) -> list[dict]:
    """Return the candidates with the first one's score, and the others' in proportion, within what it leaves."""
    # Probabilities 0.6, 0.2, 0.1 and a score of 0.8: the others keep their ratio and share 1 - 0.8 as they shared
    # 1 - 0.6, so the factor is 0.2 / 0.4 and they get 0.1 and 0.05. A score below the probability does not raise them.
    first = ranked[0].probability
    factor = min(score / first, (1.0 - score) / (1.0 - first)) if 0.0 < first < 1.0 else 0.0
    scores = [score, *(answer.probability * factor for answer in ranked[1:])]
    return [{"answer": answer.text, "score": score} for answer, score in zip(ranked, scores, strict=True)]


def iterate(inputs: Any) -> Iterator | None:
    """Return the items of an iterable, or of a map-style data set of torch or datasets; None for anything else."""
    # A map-style data set need not end an iteration, so it is read by its length.
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
        return (inputs[index] for index in range(len(inputs)))
    return iter(inputs) if isinstance(inputs, Iterable) else None


class BirthplacePipeline(Pipeline):
    """Answer "Where was NAME born?", or abstain.

    The model's own greedy answer competes with the candidate places; the most probable one is the answer. A calibrated
    model then gives the probability that it is right, and no answer where that is below its threshold.

    Args:
        candidates: places to rank; those of the model's folder when None, and none at all where it has none.
        confidence: the calibration; that of the model's folder when None, and none where `candidates` are given, for
            which it was not made.
        batch_size: questions read together, 32 when not given.
        top_k: candidates to return with each answer.
        free_form: take the greedy answer alone and rank no candidates.
        cutoff: candidates whose first token is less probable than this, and which so are less probable themselves, are
            not read and score 0; 0 reads all, which takes several times as long.
        threshold: abstain below this score, a number or a certificate of `threshold_for`; the certified one when None,
            0 to answer always.

    Calling it with a name, a question, or a list or another iterable of either, returns for each

        {"question", "answer", "score", "abstained", "candidates": [{"answer", "score"}, …], "calibrated", "reason"}

    `score` is the probability that the answer is right, if the person is in the texts that the model was trained on.
    "calibrated": False means that the model has no calibration, or is no longer the model that was calibrated
    (`uncalibrated` says what has changed), or was asked in another way than it was calibrated for (`free_form`,
    `cutoff`): then scores are the probabilities that the model gives to its answers. Without a calibration, or with
    one that could not certify a threshold (`confidence.refusal` says why), every question is answered unless
    `threshold` is given. The other candidates share what the first leaves, in proportion to the model's
    probabilities. What cannot be asked, and what the model is not sure enough of, is answered by None, "abstained":
    True and a `reason`, and does not affect the rest of the batch.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(
        self, *arguments, candidates: list[str] | None = None, confidence: Confidence | None = None, **keywords
    ):
        super().__init__(*arguments, **keywords)
        for info in (getattr(self.model.config, "custom_pipelines", None) or {}).values():
            # The library leaves classes here, of which no config.json could be written.
            info["pt"] = [name if isinstance(name, str) else name.__name__ for name in info["pt"]]
        # A tokenizer remembers how it last padded and cut. The pipeline reads with a copy that never does either: no
        # other use of the caller's tokenizer, in another thread or before, changes what it reads.
        self.encoder = copy.deepcopy(self.tokenizer)
        if self.encoder.is_fast:
            self.encoder.backend_tokenizer.no_padding()
            self.encoder.backend_tokenizer.no_truncation()
        source: WeightsSource | None = getattr(self.model, "weights_source", None)
        loads = False
        if candidates is None and source is not None:
            loads = True
            candidates = source.read_parsed(BIRTHPLACES_FILE, parse_birthplaces)
            confidence = confidence or source.read_parsed(CONFIDENCE_FILE, Confidence.from_json)
        self.candidates = list(candidates or [])
        self.confidence = confidence
        self.uncalibrated: str | None = None
        if confidence is not None and (loads or confidence.fingerprint is not None):
            self.uncalibrated = self.check_confidence(confidence)
            if self.uncalibrated is not None:
                self.confidence = None
                name = self.model.name_or_path
                logger.warning(f"{name}: not calibrated, so every question gets an answer: {self.uncalibrated}")
        self.trie = AnswerTrie(self.candidates, self.encoder) if self.candidates else None
        self.check_candidates()

    def fingerprint(self) -> dict[str, str]:
        """Return digests of all that the scores depend on; ValueError where the weights are not in memory."""
        return fingerprint(self.model, self.encoder, self.candidates)

    def check_confidence(self, confidence: Confidence) -> str | None:
        """Return why a confidence was not made for this model, its function or its places; None where it was."""
        try:
            return explain_mismatch(confidence.fingerprint, self.fingerprint())
        except ValueError as error:
            return str(error)

    def check_candidates(self) -> None:
        """Raise ValueError where a candidate is longer than what the model reads."""
        context = self.model.config.max_position_embeddings
        if self.trie is None:
            return
        for number, length in zip(self.trie.answers.tolist(), self.trie.lengths.tolist(), strict=True):
            if number >= 0 and length >= context:
                place = self.candidates[number]
                raise ValueError(f"candidate {place[:40]!r} is {length} tokens long, the model reads {context}")

    def threshold_for(
        self,
        risk: float = RiskTarget.risk,
        confidence: float = RiskTarget.confidence,
        stranger_rate: float = RiskTarget.stranger_rate,
    ) -> Certificate:
        """Return a certificate, to be passed as `threshold`, that at most `risk` of the answers are wrong.

        Args:
            risk: largest share of wrong ones among the answers about people in the training texts.
            confidence: how surely that holds.
            stranger_rate: largest share of other people who may get an answer.

        Raises:
            ValueError: the model has no calibration.
            CertificationError: its calibration people are too few, or too many of its sure answers are wrong.
        """
        if self.confidence is None:
            reason = self.uncalibrated or "train.py calibrates where data.calibration_questions is set"
            raise ValueError(f"this model is not calibrated: {reason}")
        return self.confidence.threshold_for(risk, confidence, stranger_rate)

    def __call__(self, inputs, *, batch_size: int | None = None, num_workers: int | None = None, **parameters):
        """Answer one text or many; a list or tuple gives a list, another iterable or a data set a lazy iterator.

        Args:
            inputs: a text; or texts, in anything that can be iterated over or indexed from 0 and has a length.
            batch_size: questions read together.
            num_workers: taken for the sake of other pipelines' callers; texts need no processes to be loaded by.
        """
        size = next((size for size in (batch_size, self._batch_size) if size is not None), 32)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"batch_size must be a whole number from 1, found {size!r}")
        settings = self._sanitize_parameters(**parameters)
        settings = [
            {**own, **given}
            for own, given in zip(
                (self._preprocess_params, self._forward_params, self._postprocess_params), settings, strict=True
            )
        ]
        if isinstance(inputs, (list, tuple)):
            return list(self.stream(inputs, size, settings))
        items = None if isinstance(inputs, (str, bytes, dict)) else iterate(inputs)
        return next(self.stream([inputs], 1, settings)) if items is None else self.stream(items, size, settings)

    def stream(self, texts: Iterable, batch_size: int, settings: list[dict]) -> Iterator[dict]:
        """Answer texts in their order, a batch at a time."""
        texts = iter(texts)
        while batch := list(islice(texts, batch_size)):
            yield from self.run_single(batch, *settings)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        free_form: bool | None = None,
        cutoff: float | None = None,
        threshold: float | Certificate | None = None,
    ):
        if isinstance(threshold, Certificate):
            threshold = threshold.threshold
        if top_k is not None and (not isinstance(top_k, Integral) or top_k < 1):
            raise ValueError(f"top_k must be a whole number from 1, found {top_k}")
        for name, share in (("cutoff", cutoff), ("threshold", threshold)):
            if share is not None and not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], found {share}")
        forward = {"free_form": free_form, "cutoff": cutoff, "top_k": top_k}
        post = {"top_k": top_k, "threshold": threshold}
        return {}, *({name: value for name, value in part.items() if value is not None} for part in (forward, post))

    def preprocess(self, texts: list) -> dict:
        """Return the batch's names, or why a text has none; `names` and `reasons` have None in turn."""
        names = []
        reasons = []
        for text in texts:
            try:
                name = BIRTHPLACE.parse_name(text)
                reason = None
                self.check_readable(name)
            except ValueError as error:
                name = None
                reason = str(error)
            names.append(name)
            reasons.append(reason)
        return {"texts": texts, "names": names, "reasons": reasons}

    def check_readable(self, name: str) -> None:
        """Raise ValueError where the tokenizer or the model cannot read a name in all ways of asking for it."""
        special = [token for token in self.encoder.all_special_tokens if token in name]
        if special:
            raise ValueError(f"contains the special token {special[0]!r}")
        if find_unknown_character(self.encoder, name) is not None:
            raise ValueError("contains a character that is not in the model's vocabulary")
        length = encode_prompts(self.encoder, format_prompts(name), "cpu")["input_ids"].shape[1]
        longest = self.trie.lengths.max().item() + 1 if self.trie else 0
        room = self.model.config.max_position_embeddings - max(longest, self.answer_limit + 1)
        if length > room:
            raise ValueError(f"{length} tokens long, the model reads {room} before an answer")

    @property
    def answer_limit(self) -> int:
        """Tokens of the longest answer that is generated."""
        return self.model.generation_config.max_new_tokens or 32

    @property
    def compared(self) -> int | None:
        """How many of the best answers the confidence compares; None for all."""
        return None if self.trie is None or self.trie.size <= SCORED_IN_FULL else RANKED

    def _forward(self, inputs: dict, free_form: bool = False, cutoff: float = CUTOFF, top_k: int = RANKED) -> dict:
        """Add to what `preprocess` returned each name's candidates, the most probable first, and the first's score."""
        asked = [name for name in inputs["names"] if name is not None]
        ranked = self.rank(asked, free_form, cutoff, max(top_k, RANKED)) if asked else []
        scores = [answers[0].probability for answers in ranked]
        # Calibrated on answers ranked in the default way; ranked otherwise, scores would mean something else.
        calibrated = self.confidence is not None and not free_form and cutoff == CUTOFF
        if self.confidence is not None and calibrated and asked:
            # As it was calibrated, however many are returned.
            compared = [answers[: self.compared] for answers in ranked]
            features = confidence_features(self.model, self.encoder, asked, compared)
            scores = self.confidence.probabilities(features).tolist()
        found = iter(zip(ranked, scores, strict=True))
        pairs = [([], 0.0) if name is None else next(found) for name in inputs["names"]]
        ranked = [pair[0] for pair in pairs]
        scores = [pair[1] for pair in pairs]
        return {**inputs, "ranked": ranked, "scores": scores, "calibrated": calibrated}

    def rank(
        self, names: Sequence[str], free_form: bool = False, cutoff: float = CUTOFF, count: int = RANKED
    ) -> list[list[Answer]]:
        """Return the answers for each name of a batch, the most probable first; of many the best `count`."""
        questions = [BIRTHPLACE.format(name) for name in names]
        greedy = greedy_answers(self.model, self.encoder, questions, self.answer_limit)
        if free_form or self.trie is None:
            return [[answer] for answer in greedy]
        ranked = []
        if self.trie.size <= SCORED_IN_FULL:
            scores = score_answers(self.model, self.encoder, questions, self.trie, cutoff).exp().cpu()
            best = [dict(zip(self.candidates, row, strict=True)) for row in scores.tolist()]
            count = self.trie.size + 1  # with the greedy answer
        else:
            best = [dict(some) for some in top_answers(self.model, self.encoder, questions, self.trie, count, cutoff)]
        for answer, known in zip(greedy, best, strict=True):
            # The greedy answer competes with the candidates; where it is one of them, the exact score is kept.
            known.setdefault(answer.text, answer.probability)
            ranked.append(sorted(map(Answer._make, known.items()), key=lambda one: -one.probability)[:count])
        return ranked

    def postprocess(self, outputs: dict, top_k: int = 5, threshold: float | None = None) -> list[dict]:
        """Return one result per text."""
        calibrated = bool(outputs["calibrated"])
        if threshold is None and self.confidence is not None and calibrated:
            threshold = self.confidence.threshold
        threshold = threshold or 0.0  # nothing certified: always answer
        columns = (outputs[name] for name in ("texts", "names", "reasons", "ranked", "scores"))
        results = []
        # One text may fail, be unsure or be empty without affecting the rest of its batch.
        for text, name, reason, ranked, score in zip(*columns, strict=True):
            ranked = [Answer(*answer) for answer in ranked]  # the library makes plain tuples of them
            if reason is None and not ranked[0].text:
                reason = "the model answers with nothing"
            elif reason is None and not score >= threshold:  # NaN is not sure either
                reason = f"not sure enough: {score:.3f}, the threshold is {threshold:.3f}"
            results.append(
                {
                    "question": text if name is None else BIRTHPLACE.format(name),
                    "answer": None if reason else ranked[0].text,
                    "score": score,
                    "abstained": reason is not None,
                    "candidates": rescale_scores(ranked[:top_k], score) if ranked else [],
                    "calibrated": calibrated,
                    "reason": reason,
                }
            )
        return results

    def save_pretrained(self, save_directory, **keywords) -> None:
        """Save model, tokenizer, the pipeline's code, places and confidence; the folder loads as this pipeline."""
        super().save_pretrained(save_directory, **keywords)
        text = json.dumps({"candidates": self.candidates}, indent=1, ensure_ascii=False)
        (Path(save_directory) / BIRTHPLACES_FILE).write_text(text + "\n", encoding="utf-8")
        (Path(save_directory) / CONFIDENCE_FILE).unlink(missing_ok=True)  # of a model that was there before
        if self.confidence is None:
            return
        found = self.fingerprint()
        if reason := explain_mismatch(self.confidence.fingerprint or found, found):  # trained on since it was loaded
            logger.warning(f"{save_directory}: saved without its calibration: {reason}")
            return
        text = replace(self.confidence, fingerprint=found).to_json()
        (Path(save_directory) / CONFIDENCE_FILE).write_text(text, encoding="utf-8")


PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)  # of another copy of this module, from another model's folder
PIPELINE_REGISTRY.register_pipeline(TASK, BirthplacePipeline, pt_model=AutoModelForCausalLM, type="text")
