"""`pipeline("birthplace-qa")`: a name or a question in, a place and the probability that it is right out, or nothing.

The candidate places and the calibration are stored in the model's folder, in `birthplaces.json` and `confidence.json`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import cached_file

from .answers_minigpt import Answer, AnswerTrie, encode_prompts, greedy_answers, score_answers
from .confidence_minigpt import CONFIDENCE_FILE, PROMPT_TEMPLATES, Confidence, confidence_features
from .questions_minigpt import BIRTHPLACE
from .risk_control_minigpt import Certificate, RiskTarget

TASK = "birthplace-qa"
BIRTHPLACES_FILE = "birthplaces.json"
QUESTION = BIRTHPLACE.pattern
# Longer than any name: a text above these is a sentence, and asking about it would be a guess.
NAME_WORDS = 8
NAME_CHARACTERS = 80
# An answer is at most as probable as its first token, so a place that begins less probably than this can neither be
# the answer nor move its score.
CUTOFF = 1e-3


def parse_name(text: object) -> str:
    """Return the name that `text`, a name or a question, asks about.

    Raises:
        ValueError: it is neither; the message is the reason.
    """
    if not isinstance(text, str):
        raise ValueError(f"not a text but {type(text).__name__}")
    text = text.strip()
    asked = QUESTION.fullmatch(text)
    name = " ".join((asked["name"] if asked else text).split())
    if not any(character.isalpha() for character in name):
        raise ValueError("no name in it")
    if len(name) > NAME_CHARACTERS or len(name.split()) > NAME_WORDS or (not asked and ("?" in name or "\n" in text)):
        raise ValueError('neither a name nor "Where was NAME born?"')
    return name


def load_sidecar(name_or_path: str, file: str, parse: Callable[[str], Any], revision: str | None = None) -> Any:
    """Return a parsed text file of a model's folder or of its repository on the Hub; None where it has none.

    Raises:
        ValueError: `parse` cannot read it.
    """
    path = cached_file(
        name_or_path,
        file,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if path is None:
        return None
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not what it should hold: {error!r}") from error


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
    "calibrated": False means that the model has no calibration, or was asked in another way than it was calibrated for
    (`free_form`, `cutoff`): then scores are the probabilities that the model gives to its answers. Without a
    calibration, or with one that could not certify a threshold (`confidence.refusal` says why), every question is
    answered unless `threshold` is given. The other candidates share what the first leaves, in proportion to the
    model's probabilities. What cannot be asked, and what the model is not sure enough of, is answered by None,
    "abstained": True and a `reason`, and does not affect the rest of the batch.
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
        if candidates is None and self.model.name_or_path:
            source = self.model.name_or_path
            commit = getattr(self.model.config, "_commit_hash", None)
            candidates = load_sidecar(source, BIRTHPLACES_FILE, parse_birthplaces, commit)
            if confidence is None:
                confidence = load_sidecar(source, CONFIDENCE_FILE, Confidence.from_json, commit)
        self.candidates = list(candidates or [])
        self.confidence = confidence
        self.check_candidates()
        self.trie = AnswerTrie(self.candidates, self.tokenizer) if self.candidates else None

    def check_candidates(self) -> None:
        """Raise ValueError where a candidate is longer than what the model reads: the trie grows with its square."""
        context = self.model.config.max_position_embeddings
        read = self.tokenizer(self.candidates)["input_ids"] if self.candidates else []
        for place, ids in zip(self.candidates, read, strict=True):
            if len(ids) >= context:
                raise ValueError(f"candidate {place[:40]!r} is {len(ids)} tokens long, the model reads {context}")

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
            raise ValueError(
                "this model is not calibrated; train.py calibrates where data.calibration_questions is set"
            )
        return self.confidence.threshold_for(risk, confidence, stranger_rate)

    def __call__(self, inputs, *, batch_size: int | None = None, **parameters):
        """Answer one text or many; a list or tuple gives a list, another iterable a lazy iterator."""
        batch_size = batch_size or self._batch_size or 32
        settings = self._sanitize_parameters(**parameters)
        settings = [
            {**own, **given}
            for own, given in zip(
                (self._preprocess_params, self._forward_params, self._postprocess_params), settings, strict=True
            )
        ]
        if isinstance(inputs, (list, tuple)):
            return list(self.stream(inputs, batch_size, settings))
        if isinstance(inputs, Iterable) and not isinstance(inputs, (str, bytes, dict)):
            return self.stream(inputs, batch_size, settings)
        return next(self.stream([inputs], 1, settings))

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
        forward = {"free_form": free_form, "cutoff": cutoff}
        post = {"top_k": top_k, "threshold": threshold}
        return {}, *({name: value for name, value in part.items() if value is not None} for part in (forward, post))

    def preprocess(self, texts: list) -> dict:
        """Return the batch's names, or why a text has none; `names` and `reasons` have None in turn."""
        names = []
        reasons = []
        for text in texts:
            try:
                name = parse_name(text)
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
        special = [token for token in self.tokenizer.all_special_tokens if token in name]
        if special:
            raise ValueError(f"contains the special token {special[0]!r}")
        prompts = [prompt.format(name=name) for prompt in PROMPT_TEMPLATES.values()]
        try:
            length = encode_prompts(self.tokenizer, prompts, "cpu")["input_ids"].shape[1]
        except Exception as error:  # a character tokenizer raises a bare Exception
            raise ValueError("contains a character that is not in the model's vocabulary") from error
        longest = self.trie.lengths.max().item() + 1 if self.trie else 0
        room = self.model.config.max_position_embeddings - max(longest, self.answer_limit + 1)
        if length > room:
            raise ValueError(f"{length} tokens long, the model reads {room} before an answer")

    @property
    def answer_limit(self) -> int:
        """Tokens of the longest answer that is generated."""
        return self.model.generation_config.max_new_tokens or 32

    def _forward(self, inputs: dict, free_form: bool = False, cutoff: float = CUTOFF) -> dict:
        """Add to what `preprocess` returned each name's candidates, the most probable first, and the first's score."""
        asked = [name for name in inputs["names"] if name is not None]
        ranked = self.rank(asked, free_form, cutoff) if asked else []
        scores = [answers[0].probability for answers in ranked]
        # Calibrated on answers ranked in the default way; ranked otherwise, scores would mean something else.
        calibrated = self.confidence is not None and not free_form and cutoff == CUTOFF
        if self.confidence is not None and calibrated and asked:
            features = confidence_features(self.model, self.tokenizer, asked, ranked)
            scores = self.confidence.probabilities(features).tolist()
        found = iter(zip(ranked, scores, strict=True))
        pairs = [([], 0.0) if name is None else next(found) for name in inputs["names"]]
        ranked = [pair[0] for pair in pairs]
        scores = [pair[1] for pair in pairs]
        return {**inputs, "ranked": ranked, "scores": scores, "calibrated": calibrated}

    def rank(self, names: Sequence[str], free_form: bool = False, cutoff: float = CUTOFF) -> list[list[Answer]]:
        """Return the answers for each name of a batch, the most probable first."""
        questions = [BIRTHPLACE.format(name) for name in names]
        greedy = greedy_answers(self.model, self.tokenizer, questions, self.answer_limit)
        if free_form or self.trie is None:
            return [[answer] for answer in greedy]
        ranked = []
        scores = score_answers(self.model, self.tokenizer, questions, self.trie, cutoff).exp().cpu()
        for answer, row in zip(greedy, scores.tolist(), strict=True):
            known = dict(zip(self.candidates, row, strict=True))
            # The greedy answer competes with the candidates; where it is one of them, the exact score is kept.
            known.setdefault(answer.text, answer.probability)
            ranked.append(sorted(map(Answer._make, known.items()), key=lambda one: -one.probability))
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
        if self.confidence is not None:
            (Path(save_directory) / CONFIDENCE_FILE).write_text(self.confidence.to_json(), encoding="utf-8")


PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)  # of another copy of this module, from another model's folder
PIPELINE_REGISTRY.register_pipeline(TASK, BirthplacePipeline, pt_model=AutoModelForCausalLM, type="text")
