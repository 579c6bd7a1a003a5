"""`pipeline("closed-book-qa")`: a question in; an answer and the chance that it is right out, or why there is none.

A model answers questions of its relations. They, their candidates, their calibrations and the names of training are
stored in the model's folder, in `facts.json`, `confidence.json` and `names.txt`. `pipeline("birthplace-qa")` does the
same.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from transformers import AutoModelForCausalLM, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .answer_search_minigpt import top_answers
from .answers_minigpt import Answer, greedy_answers, score_answers
from .confidence_minigpt import Confidence, Scores
from .evaluation_mode_minigpt import computes_as_calibrated
from .facts_minigpt import RelationFacts
from .features_minigpt import confidence_features, explain_unreadable
from .inputs_minigpt import CERTIFIED, check_count, check_share, check_threshold, iterate, parse_question
from .knowledge_minigpt import KnowledgeMixin
from .reading_minigpt import ReadTexts, read_questions
from .relations_minigpt import Relation
from .results_minigpt import answer_result, refusal_result
from .risk_control_minigpt import Certificate
from .saving_minigpt import upload_afterwards

TASK = "closed-book-qa"
BIRTHPLACE_TASK = "birthplace-qa"
# What the Hub calls the task, and so what the code on a model's page there asks `pipeline` for. The library's own
# pipeline of that name, where there is one, reads the answer from a text.
HUB_TASK = "question-answering"
# An answer is at most as probable as its first token, so a candidate that begins less probably than this can neither
# be the answer nor move its score.
CUTOFF = 1e-3
# Up to this number of candidates all are scored; of more, the best are searched for: `RANKED`, or `top_k` if larger.
SCORED_IN_FULL = 200
RANKED = 20


def is_searched(facts: RelationFacts) -> bool:
    """Return whether the best of a relation's candidates are searched for, because there are many."""
    return len(facts.candidates) > SCORED_IN_FULL


class ClosedBookPipeline(KnowledgeMixin, Pipeline):
    """Answer questions about people from the model's weights alone, or abstain.

    The model's own greedy answer competes with the candidates; the most probable one is the answer. A calibrated model
    then gives the chance that the person is in the texts that it was trained on, and the chance that the answer is
    right if so; and no answer where one of them is below its certified threshold.

    Args:
        relations: what may be asked, the main one first; those of the model's folder when None, and the birthplace
            where it has none.
        candidates: answers to rank, of each relation by its name, or a list where there is one relation; those of the
            model's folder when None, and none at all where it has none.
        confidence: the calibrations, likewise; those of the model's folder when None, and none where `candidates` are
            given, for which they were not made.
        names: of the people in the training texts; those of the model's folder when None.
        batch_size: questions read together, 32 when not given.
        relation: the name of the relation to ask under; when None, a question's own, and the first for a bare name.
        top_k: candidates to return with each answer.
        free_form: take the greedy answer alone and rank no candidates.
        cutoff: candidates whose first token is less probable than this, and which so are less probable themselves, are
            not read and score 0; 0 reads all, which takes several times as long.
        threshold: "certified", the default, abstains below the relation's certified thresholds, and always if none
            could be certified; a certificate of `threshold_for` has its own thresholds; a number abstains below that
            score, so 0 always answers.

    Calling it with a name, a question, or a list or another iterable of either, returns for each

        {"question", "answer", "known", "correct", "score", "abstained", "candidates": [{"answer", "score"}, …],
         "calibrated", "reason", "failed", "relation", "matched_name"}

    "known" is the probability that the person is in the training texts, calibrated for equal numbers of known people
    and strangers; "correct" is the probability that the answer is right, given that; "score", to act on, is their
    product. The other candidates share what the first leaves, in proportion to the model's probabilities.

    "calibrated" is False if the relation has no calibration, if the model or the relation has changed since
    (`uncalibrated` says what), or if the question is asked in another way than in the calibration (`free_form`,
    `cutoff`): then "known" and "correct" are None, and scores are the model's own probabilities. They are also None
    with an older calibration, which has one score for both.

    The model computes without dropout and autocast, as in the calibration; its mode is its own again afterwards.

    A text that is neither a name nor a question, and an answer below its threshold, give "answer": None, "abstained":
    True and a "reason", without affecting the rest of the batch. "failed" is "known" or "correct" if that one was too
    low. "relation" is the name of the relation, None if the text is not a question. "matched_name" is the training
    texts' spelling of the name if it was typed in another one, else None.

    `facts` has each relation's candidates, trie, confidence and `uncalibrated`; as attributes of the pipeline, these
    are the first relation's.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(
        self,
        *arguments,
        relations: Sequence[Relation] | None = None,
        candidates: list[str] | Mapping[str, list[str]] | None = None,
        confidence: Confidence | Mapping[str, Confidence] | None = None,
        names: Sequence[str] | None = None,
        **keywords,
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
        self.load_knowledge(relations, candidates, confidence, names)
        self.find_facts(self._preprocess_params.get("relation"))  # one that is not known is refused

    def __call__(self, inputs, *, batch_size: int | None = None, num_workers: int | None = None, **parameters):
        """Answer one text or many; a list or tuple gives a list, another iterable or a data set a lazy iterator.

        Args:
            inputs: a text; or texts, in anything that can be iterated over or indexed from 0 and has a length.
            batch_size: questions read together.
            num_workers: taken for the sake of other pipelines' callers; texts need no processes to be loaded by.
        """
        size = next((size for size in (batch_size, self._batch_size) if size is not None), 32)
        size = check_count(size, "batch_size")
        settings = self._sanitize_parameters(**parameters)
        merged: list[dict[str, Any]] = [
            {**own, **given}
            for own, given in zip(
                (self._preprocess_params, self._forward_params, self._postprocess_params), settings, strict=True
            )
        ]
        self.find_facts(merged[0].get("relation"))  # unknown: refused now, not when a lazy iterator is read
        if isinstance(inputs, (list, tuple)):
            return list(self.stream(inputs, size, merged))
        items = iterate(inputs)
        return next(self.stream([inputs], 1, merged)) if items is None else self.stream(items, size, merged)

    def stream(self, texts: Iterable, batch_size: int, settings: list[dict]) -> Iterator[dict]:
        """Answer texts in their order, a batch at a time."""
        texts = iter(texts)
        while batch := list(islice(texts, batch_size)):
            yield from self.run_single(batch, *settings)

    def _sanitize_parameters(
        self,
        relation: str | None = None,
        top_k: int | None = None,
        free_form: bool | None = None,
        cutoff: float | None = None,
        threshold: float | Certificate | str | None = None,
    ):
        top_k = None if top_k is None else check_count(top_k, "top_k")
        cutoff = None if cutoff is None else check_share(cutoff, "cutoff")
        threshold = None if threshold is None else check_threshold(threshold)
        steps = (
            {"relation": relation},
            {"free_form": free_form, "cutoff": cutoff, "top_k": top_k},
            {"top_k": top_k, "threshold": threshold},
        )
        return tuple({name: value for name, value in step.items() if value is not None} for step in steps)

    def preprocess(self, texts: list, relation: str | None = None) -> dict:
        """Return the batch's names and what is asked about each, or why a text cannot be asked.

        Returns:
            "texts"; "names", None where there is a reason; "matched_names", None where the name is as typed;
            "relations", by name; "reasons", None where there is a name.
        """
        rows = [self.parse(text, relation) for text in texts]
        for asked, facts in self.facts.items():
            own = [row for row in rows if row["relations"] == asked and row["reasons"] is None]
            names = [row["names"] for row in own]
            for row, reason in zip(own, self.explain_unreadable(names, facts), strict=True):
                if reason is not None:
                    row.update(self.refuse(relation, reason))
        keys = ("names", "matched_names", "relations", "reasons")
        return {"texts": list(texts), **{key: [row[key] for row in rows] for key in keys}}

    def refuse(self, relation: str | None, reason: str) -> dict:
        """Return a text's row of `preprocess` where it cannot be asked."""
        asked = self.find_facts(relation).relation.name
        return {"names": None, "matched_names": None, "relations": asked, "reasons": reason}

    def parse(self, text: object, relation: str | None) -> dict:
        """Return a text's row of `preprocess`, before it is known whether the model can read the name."""
        wanted = None if relation is None else self.find_facts(relation).relation
        try:
            asked, name = parse_question(text, list(self.relations.values()), wanted, self.names)
        except ValueError as error:
            return self.refuse(relation, str(error))
        matched = self.names.match(name)
        return {"names": matched or name, "matched_names": matched, "relations": asked.name, "reasons": None}

    def explain_unreadable(self, names: Sequence[str], facts: RelationFacts) -> list[str | None]:
        """Return why the model cannot read each name in all ways of asking about it; None where it can."""
        rotary = self.model.base_model.rotary_emb
        limit = None if rotary is None else rotary.limit
        context = self.model.config.max_position_embeddings
        room = facts.question_room(context, self.answer_limit, limit)
        if room < 1:
            read = min(context, limit or context)
            refusal = f"no room for a question: max_new_tokens is {self.answer_limit}, the model reads {read} tokens"
            return [refusal] * len(names)
        return explain_unreadable(self.encoder, names, facts.relation, room)

    @property
    def answer_limit(self) -> int:
        """Tokens of the longest answer that is generated."""
        return self.model.generation_config.max_new_tokens or 32

    @computes_as_calibrated
    def _forward(self, inputs: dict, free_form: bool = False, cutoff: float = CUTOFF, top_k: int = RANKED) -> dict:
        """Add each name's candidates, the most probable first, and its `Scores` to what `preprocess` returned."""
        ranked: list[list[Answer]] = [[] for _ in inputs["names"]]
        scores = [Scores(None, None, 0.0)] * len(ranked)
        confidences = self.current_confidences()
        # Calibrated on answers ranked in the default way; ranked otherwise, scores would mean something else.
        usual = not free_form and cutoff == CUTOFF
        for relation, facts in self.facts.items():
            rows = [
                row
                for row, (name, asked) in enumerate(zip(inputs["names"], inputs["relations"], strict=True))
                if name is not None and asked == relation
            ]
            if not rows:
                continue
            names = [inputs["names"][row] for row in rows]
            read = read_questions(self.model, self.encoder, list(map(facts.relation.format, names)))
            found = self.rank(names, free_form, cutoff, relation, max(top_k, RANKED), read)
            said = [Scores(None, None, answers[0].probability) for answers in found]
            if relation in confidences and usual:
                # As it was calibrated, however many are returned.
                compared = [answers[:RANKED] for answers in found] if is_searched(facts) else found
                features = confidence_features(self.model, self.encoder, names, compared, facts.relation, read)
                said = confidences[relation].scores(features, facts.relation)
            for row, answers, score in zip(rows, found, said, strict=True):
                ranked[row] = answers
                scores[row] = score
        calibrated = [usual and relation in confidences for relation in inputs["relations"]]
        return {**inputs, "ranked": ranked, "scores": scores, "calibrated": calibrated}

    def _ensure_tensor_on_device(self, inputs, device):
        """Return what is passed from step to step as it is: the library looks for tensors in it, and it has none."""
        return inputs

    @computes_as_calibrated
    def rank(
        self,
        names: Sequence[str],
        free_form: bool = False,
        cutoff: float = CUTOFF,
        relation: str | None = None,
        count: int = RANKED,
        read: ReadTexts | None = None,
    ) -> list[list[Answer]]:
        """Return the answers for each name of a batch, the most probable first; where there are many, `count`.

        `read` are the questions, where they have been read.
        """
        facts = self.find_facts(relation)
        questions = [facts.relation.format(name) for name in names]
        read = read or read_questions(self.model, self.encoder, questions)
        greedy = greedy_answers(self.model, self.encoder, questions, self.answer_limit, read)
        if free_form or facts.trie is None:
            return [[answer] for answer in greedy]
        ranked = []
        if is_searched(facts):
            found = top_answers(self.model, self.encoder, questions, facts.trie, count, cutoff, read=read)
            best = [dict(answers) for answers in found]
        else:
            scores = score_answers(self.model, self.encoder, questions, facts.trie, cutoff, read=read).exp().cpu()
            best = [dict(zip(facts.candidates, row, strict=True)) for row in scores.tolist()]
            count = len(facts.candidates) + 1  # with the greedy answer
        for answer, known in zip(greedy, best, strict=True):
            # The greedy answer competes with the candidates; where it is one of them, the exact score is kept.
            known.setdefault(answer.text, answer.probability)
            ranked.append(sorted(map(Answer._make, known.items()), key=lambda one: -one.probability)[:count])
        return ranked

    def postprocess(
        self, outputs: dict, top_k: int = 5, threshold: float | Certificate | str = CERTIFIED
    ) -> list[dict]:
        """Return one result per text."""
        keys = ("texts", "names", "matched_names", "relations", "reasons", "ranked", "scores", "calibrated")
        results = []
        # One text may fail, be unsure or be empty without affecting the rest of its batch.
        for text, name, matched, relation, reason, ranked, scores, calibrated in zip(
            *(outputs[key] for key in keys), strict=True
        ):
            if reason is not None:
                results.append(refusal_result(text, reason, calibrated))
                continue
            facts = self.facts[relation]
            lowest = facts.find_threshold(threshold, calibrated)
            results.append(answer_result(facts.relation, name, matched, ranked, scores, calibrated, lowest, top_k))
        return results

    def save_pretrained(self, save_directory, push_to_hub=False, **keywords) -> None:
        """Save model, tokenizer, the pipeline's code, facts, confidences and names; it loads as this pipeline."""
        with upload_afterwards(self.model, save_directory, push_to_hub, keywords):
            super().save_pretrained(save_directory, **keywords)
            self.save_knowledge(save_directory)


class BirthplacePipeline(ClosedBookPipeline):
    """The same under the name of its first task, for models that are asked for birthplaces before all else."""


for task, pipeline_class in ((TASK, ClosedBookPipeline), (BIRTHPLACE_TASK, BirthplacePipeline)):
    PIPELINE_REGISTRY.supported_tasks.pop(task, None)  # of another copy of this module, from another model's folder
    PIPELINE_REGISTRY.register_pipeline(task, pipeline_class, pt_model=AutoModelForCausalLM, type="text")

# A model that is saved answers to all names, whichever class has saved it. The Hub's name is the model's alone: in the
# registry it would replace the library's pipeline for every other model.
for pipeline_class in (ClosedBookPipeline, BirthplacePipeline):
    pipeline_class._registered_impl = {
        task: {**PIPELINE_REGISTRY.supported_tasks[TASK], "impl": pipeline_class}
        for task in (TASK, BIRTHPLACE_TASK, HUB_TASK)
    }
