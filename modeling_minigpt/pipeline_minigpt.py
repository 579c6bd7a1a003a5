"""`pipeline("birthplace-qa")`: a name or a question in, a place out, with its probability and the other candidates.

The places that are weighed against each other travel in the model's folder, in `birthplaces.json`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from transformers import AutoModelForCausalLM, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import cached_file

from .answers_minigpt import Answer, AnswerTrie, encode_prompts, greedy_answers, score_answers

TASK = "birthplace-qa"
BIRTHPLACES_FILE = "birthplaces.json"
QUESTION = re.compile(r"where was (?P<name>.+) born\s*\??", re.IGNORECASE)
NAME_WORDS, NAME_CHARACTERS = 8, 80  # longer than any name


def question_of(text: object) -> str:
    """Return the question that `text`, a name or a question, asks, in the words of the training data.

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
    return f"Where was {name} born?"


def read_birthplaces(name_or_path: str, revision: str | None = None) -> list[str] | None:
    """Return the candidate places of a model's folder or of its repository on the Hub; None where it has none.

    Raises:
        ValueError: the file is not `{"candidates": [place, …]}`.
    """
    path = cached_file(
        name_or_path,
        BIRTHPLACES_FILE,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if path is None:
        return None
    try:
        candidates = json.loads(Path(path).read_text(encoding="utf-8"))["candidates"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: wanted {{"candidates": [place, …]}}: {error!r}') from error
    if not isinstance(candidates, list) or not all(isinstance(place, str) for place in candidates):
        raise ValueError(f"{path}: candidates must be a list of places")
    return candidates


class BirthplacePipeline(Pipeline):
    """Answer "Where was NAME born?".

    The model's own greedy answer is weighed beside the candidate places; the most probable one is the answer.

    Args:
        candidates: places to weigh; those of the model's folder when None, and none at all where it has none.
        batch_size: questions read together, 32 when not given.
        top_k: candidates to return with each answer.
        free_form: take the greedy answer alone and weigh no candidates.
        cutoff: probability below which a candidate is not followed and scores 0; 0 scores every one, in minutes for
            hundreds of questions.

    Calling it with a name, a question, or a list or another iterable of either, returns for each

        {"question", "answer", "score", "abstained", "candidates": [{"answer", "score"}, …], "calibrated", "reason"}

    `score` is the probability that the model gives the answer; "calibrated": False says that it is not the chance that
    the answer is right. What cannot be asked is answered by None, "abstained": True and a `reason`, and harms no other
    item.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *arguments, candidates: list[str] | None = None, **keywords):
        super().__init__(*arguments, **keywords)
        for info in (getattr(self.model.config, "custom_pipelines", None) or {}).values():
            # The library leaves classes here, of which no config.json could be written.
            info["pt"] = [name if isinstance(name, str) else name.__name__ for name in info["pt"]]
        if candidates is None and self.model.name_or_path:
            commit = getattr(self.model.config, "_commit_hash", None)
            candidates = read_birthplaces(self.model.name_or_path, commit)
        self.candidates = list(candidates or [])
        self.trie = AnswerTrie(self.candidates, self.tokenizer) if self.candidates else None

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
        self, top_k: int | None = None, free_form: bool | None = None, cutoff: float | None = None
    ):
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, found {top_k}")
        if cutoff is not None and not 0.0 <= cutoff < 1.0:
            raise ValueError(f"cutoff must be in [0, 1), found {cutoff}")
        forward = {"free_form": free_form, "cutoff": cutoff}
        forward = {name: value for name, value in forward.items() if value is not None}
        return {}, forward, {} if top_k is None else {"top_k": top_k}

    def preprocess(self, texts: list) -> dict:
        """Return the batch's questions, or why a text is none; `questions` and `reasons` have None in turn."""
        questions, reasons = [], []
        for text in texts:
            try:
                question, reason = question_of(text), None
                self.check_readable(question)
            except ValueError as error:
                question, reason = None, str(error)
            questions.append(question)
            reasons.append(reason)
        return {"texts": texts, "questions": questions, "reasons": reasons}

    def check_readable(self, question: str) -> None:
        """Raise ValueError where the tokenizer or the model cannot read a question."""
        special = [token for token in self.tokenizer.all_special_tokens if token in question]
        if special:
            raise ValueError(f"holds {special[0]!r}, which has a meaning of its own")
        try:
            length = encode_prompts(self.tokenizer, [question], "cpu")["input_ids"].shape[1]
        except Exception as error:  # a character tokenizer raises a bare Exception
            raise ValueError("holds a character that the model does not know") from error
        if length >= self.model.config.max_position_embeddings:
            raise ValueError(f"{length} tokens long, the model reads {self.model.config.max_position_embeddings - 1}")

    def _forward(self, inputs: dict, free_form: bool = False, cutoff: float = 1e-4) -> dict:
        """Add each question's candidates, the most probable first, to what `preprocess` returned."""
        asked = [question for question in inputs["questions"] if question is not None]
        ranked = iter(self.rank(asked, free_form, cutoff) if asked else [])
        return {**inputs, "ranked": [None if question is None else next(ranked) for question in inputs["questions"]]}

    def rank(self, questions: list[str], free_form: bool, cutoff: float) -> list[list[Answer]]:
        """Return each question's answers, the most probable first."""
        limit = self.model.generation_config.max_new_tokens or 32
        greedy = greedy_answers(self.model, self.tokenizer, questions, limit)
        if free_form or self.trie is None:
            return [[answer] for answer in greedy]
        ranked = []
        scores = score_answers(self.model, self.tokenizer, questions, self.trie, cutoff).exp().cpu()
        for answer, row in zip(greedy, scores.tolist(), strict=True):
            known = dict(zip(self.candidates, row, strict=True))
            known.setdefault(answer.text, answer.probability)
            ranked.append(sorted(map(Answer._make, known.items()), key=lambda one: -one.probability))
        return ranked

    def postprocess(self, outputs: dict, top_k: int = 5) -> list[dict]:
        """Return one result a text."""
        results = []
        columns = (outputs[name] for name in ("texts", "questions", "reasons", "ranked"))
        for text, question, reason, ranked in zip(*columns, strict=True):
            ranked = [Answer(*answer) for answer in ranked or []]  # the library makes plain tuples of them
            best = ranked[0] if ranked else Answer(None, 0.0)
            results.append(
                {
                    "question": text if question is None else question,
                    "answer": best.text,
                    "score": best.probability,
                    "abstained": question is None,
                    "candidates": [{"answer": a.text, "score": a.probability} for a in ranked[:top_k]],
                    "calibrated": False,
                    "reason": reason,
                }
            )
        return results

    def save_pretrained(self, save_directory, **keywords) -> None:
        """Save model, tokenizer, the pipeline's code and the candidate places; the folder loads as this pipeline."""
        super().save_pretrained(save_directory, **keywords)
        text = json.dumps({"candidates": self.candidates}, indent=1, ensure_ascii=False)
        (Path(save_directory) / BIRTHPLACES_FILE).write_text(text + "\n", encoding="utf-8")


PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)  # of another copy of this module, from another model's folder
PIPELINE_REGISTRY.register_pipeline(TASK, BirthplacePipeline, pt_model=AutoModelForCausalLM, type="text")
