"""Score a model on the questions of one relation: its answers, its baselines, its confidence, what it was shown.

All processes of a run ask together; the main process alone then computes the figures.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accelerate.logging import get_logger
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from configuration.schema import EvaluateArguments
from data_scripts.person_splits import hash_of
from data_scripts.questions import Question
from data_scripts.splits import TrainingData
from evaluation.answers import answer_questions, exact_matches
from evaluation.baselines import ceiling, popular_places
from evaluation.birthplace_accuracy.birthplace_accuracy import BirthplaceAccuracy
from evaluation.exposure import chances_by_exposure, exposure_rows
from evaluation.processes import cut_batches, map_batches
from evaluation.trust import EvaluatedAnswers, JudgedAnswer, confidence_metrics, fraction, is_answered
from modeling_minigpt import ClosedBookPipeline, MiniGPTForCausalLM
from modeling_minigpt.answers_minigpt import Answer, find_unknown_character
from modeling_minigpt.confidence_minigpt import Scores
from modeling_minigpt.relations_minigpt import Relation

MAX_WRONG_ANSWERS = 20  # wrong answers that are listed, those with the highest scores
SAMPLES = 3  # questions shown with their answers, before one about a stranger
BATCH = 64  # names that the pipeline is asked about together
NOT_ASKED = Answer("", 0.0)  # to a question that the model cannot read

logger = get_logger(__name__)


@dataclass(frozen=True)
class RelationAnswers:
    """Answers to the questions of one relation.

    Attributes:
        relation: what is asked for.
        questions: those with known answers.
        models: by name, "pretrained" and perhaps "no_pretraining", a model's answers and which of them are right.
        seconds: how long the first took.
        asked: what the pipeline answers, to the same questions, about the strangers and about withheld people.
        samples: what a user of the pipeline is shown for the first questions and one stranger.
        example: the same for the question that the model answers most surely and rightly; None where it answers none.
    """

    relation: Relation
    questions: Sequence[Question]
    models: Mapping[str, tuple[list[Answer], list[bool]]]
    seconds: float
    asked: EvaluatedAnswers
    samples: Sequence[dict]
    example: dict | None = None

    @property
    def texts(self) -> list[str]:
        """The pretrained model's answers."""
        return [answer.text for answer in self.models["pretrained"][0]]


def choose_questions(questions: Sequence[Question], count: int | None) -> list[Question]:
    """Return the questions of the people whose names have the smallest hashes, in their order; all where None.

    The same people are chosen for every relation, and from every order of the file.
    """
    if count is None or count >= len(questions):
        return list(questions)
    by_hash = sorted(range(len(questions)), key=lambda index: hash_of(questions[index].name))
    return [questions[index] for index in sorted(by_hash[:count])]


def can_be_read(tokenizer: PreTrainedTokenizerBase, text: str, context: int) -> bool:
    """Return whether a model with `context` positions can read a question and has room for an answer."""
    if find_unknown_character(tokenizer, text) is not None:
        return False
    return len(tokenizer(text, verbose=False)["input_ids"]) + 1 < context  # the sentinel


def ask_readable(
    model: MiniGPTForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    how: EvaluateArguments,
    shared: bool = False,
) -> list[Answer]:
    """Return a model's answers, `NOT_ASKED` to the questions that it cannot read; the arguments as `ask_model`."""
    # One name that is too long, or has a character that a vocabulary lacks, must not cost the scores of all others.
    context = model.config.max_position_embeddings
    readable = [can_be_read(tokenizer, text, context) for text in texts]
    asked = [text for text, can in zip(texts, readable, strict=True) if can]
    if len(asked) < len(texts):
        logger.warning(
            f"{len(texts) - len(asked)} of {len(texts)} questions get no answer: they are too long for the model or "
            f"have a character that it does not know; the first is {texts[readable.index(False)]!r:.100}"
        )
    answers = iter(answer_questions(model, tokenizer, asked, how.batch_size, how.max_new_tokens, shared))
    return [next(answers) if can else NOT_ASKED for can in readable]


def ask_model(
    model: MiniGPTForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    how: EvaluateArguments,
    shared: bool = False,
) -> tuple[list[Answer], list[bool]]:
    """Return a model's answers to questions, and which of them are right: none that it cannot read.

    Args:
        shared: whether every process of a run calls this with the same arguments; each then does a part of the work.
    """
    answers = ask_readable(model, tokenizer, [question.text for question in questions], how, shared)
    are_right = exact_matches([answer.text for answer in answers], questions)
    return answers, [right and answer is not NOT_ASKED for answer, right in zip(answers, are_right, strict=True)]


def ask_pipeline(
    pipeline: ClosedBookPipeline,
    relation: Relation,
    questions: Sequence[Question],
    made_up: Sequence[str],
    withheld: Sequence[Question],
) -> EvaluatedAnswers:
    """Ask the pipeline, abstention aside, about known people and both kinds of strangers; every process calls this."""
    confidence = pipeline.facts[relation.name].confidence
    has_heads = confidence is not None and confidence.known is not None

    def judge(result: dict) -> JudgedAnswer:
        scores = Scores(result["known"], result["correct"], result["score"])
        if has_heads and scores.known is None:  # what cannot be asked about is never answered
            scores = Scores(0.0, 0.0, 0.0)
        return JudgedAnswer(result["answer"] or "", scores)

    def ask(names: Sequence[str]) -> list[JudgedAnswer]:
        return list(map(judge, pipeline(names, batch_size=BATCH, threshold=0.0, relation=relation.name)))

    def ask_all(names: Sequence[str]) -> list[JudgedAnswer]:
        batches = map_batches(ask, cut_batches(names, BATCH), shared=True)
        return [answer for batch in batches for answer in batch]

    known = ask_all([question.name for question in questions])
    return EvaluatedAnswers(
        known,
        exact_matches([answer.text for answer in known], questions),
        ask_all(made_up),
        ask_all([question.name for question in withheld]),
        confidence=confidence,
    )


def ask_relation(
    relation: Relation,
    pipelines: Mapping[str, ClosedBookPipeline],
    questions: Sequence[Question],
    strangers: Sequence[str],
    withheld: Sequence[Question],
    how: EvaluateArguments,
) -> RelationAnswers:
    """Ask for one relation; every process must call this.

    Args:
        relation: what to ask for.
        pipelines: by name, "pretrained" and perhaps "no_pretraining"; the confidence is the first's.
        questions: of the relation.
        strangers: made-up names.
        withheld: questions of the relation about people withheld from training.
        how: the recipe's section.
    """
    models = {}
    seconds = {}
    for name, pipeline in pipelines.items():
        start = time.monotonic()
        models[name] = ask_model(pipeline.model, pipeline.tokenizer, questions, how, shared=True)
        seconds[name] = time.monotonic() - start
    asked = ask_pipeline(pipelines["pretrained"], relation, questions, strangers, withheld)
    samples = sample_answers(pipelines["pretrained"], relation, questions, strangers)
    best = sample_answers(pipelines["pretrained"], relation, surest_right(questions, asked), [])
    return RelationAnswers(relation, questions, models, seconds["pretrained"], asked, samples, next(iter(best), None))


def surest_right(questions: Sequence[Question], asked: EvaluatedAnswers) -> list[Question]:
    """Return the question with the highest score among those with a right answer, or none."""
    scores = asked.chances("known", "score")
    right = [index for index, is_right in enumerate(asked.right) if is_right]
    return [questions[max(right, key=scores.__getitem__)]] if right else []


def accuracy(texts: Sequence[str], questions: Sequence[Question]) -> dict:
    """Score answers by the `birthplace_accuracy` metric."""
    # Not by `evaluate.load`, which copies the code to the home folder's cache: that may be read-only, or full.
    with tempfile.TemporaryDirectory() as cache:
        metric = BirthplaceAccuracy(keep_in_memory=True, cache_dir=cache)
    return metric.compute(predictions=texts, references=[list(question.answers) for question in questions])


def sample_answers(
    pipeline: ClosedBookPipeline, relation: Relation, questions: Sequence[Question], strangers: Sequence[str]
) -> list[dict]:
    """Return the pipeline's results, at its own thresholds, for the first questions and one made-up person.

    Each has only the best candidate, and the right answer as "place", whatever the relation; None for the made-up
    person. "accepted" has all right answers if there are several.
    """
    samples = []
    for question in questions[:SAMPLES]:
        sample = {**pipeline(question.name, relation=relation.name, top_k=1), "place": question.answer}
        if len(question.answers) > 1:
            sample["accepted"] = list(question.answers)
        samples.append(sample)
    for name in strangers[:1]:
        samples.append({**pipeline(name, relation=relation.name, top_k=1), "place": None})
    return samples


def surest_wrong(questions: Sequence[Question], asked: EvaluatedAnswers) -> list[dict]:
    """Return the pipeline's wrong answers with the highest scores, the surest first.

    Returns:
        Rows `{"question", "answer", "right", "known", "correct", "score", "given"}`: a chance is None where the model
        has one score alone, and "given" says whether the certified thresholds let the answer through. "accepted" has
        all right answers where they are several.
    """
    judged = zip(questions, asked.known, asked.right, strict=True)
    wrong = [(question, answer) for question, answer, is_right in judged if not is_right]
    rows = []
    for question, answer in sorted(wrong, key=lambda pair: -pair[1].scores.score)[:MAX_WRONG_ANSWERS]:
        row: dict = {"question": question.text, "answer": answer.text, "right": question.answer}
        if len(question.answers) > 1:
            row["accepted"] = list(question.answers)
        given = asked.certificate is not None and is_answered(answer.scores, asked.certificate)
        rows.append({**row, **answer.scores._asdict(), "given": given})
    return rows


def relation_results(answers: RelationAnswers, data: TrainingData, counts: dict[str, list[int]]) -> dict:
    """Return what `results.json` says of one relation, except why a confidence is missing.

    Args:
        answers: to its questions.
        data: of the run.
        counts: of `count_exposures`, for these questions.
    """
    questions = answers.questions
    name = answers.relation.name
    popular = popular_places((question.answer for question in data.train if question.relation == name), 2)
    baseline = answers.models.get("no_pretraining")
    said = [answer.scores for answer in answers.asked.known]
    # Where there is one score, what it says by exposure is in the other table.
    by_exposure = chances_by_exposure(counts["person"], said, answers.asked.right) if answers.asked.has_heads else []
    return {
        "question": answers.relation.question,
        "answers": answers.relation.answers,
        **accuracy(answers.texts, questions),
        "seconds": answers.seconds,
        "majority": accuracy(popular[:1] * len(questions), questions)["accuracy"] if popular else None,
        "majority_answer": popular[0] if popular else None,
        "no_pretraining": None if baseline is None else fraction(baseline[1]),
        "ceiling": ceiling(data.documents, questions),
        "wrong_answers": surest_wrong(questions, answers.asked),
        "trust": confidence_metrics(answers.asked, popular),
        "exposure": exposure_rows(counts, answers.models),
        "reliability_by_exposure": by_exposure,
        "samples": list(answers.samples),
        "example": answers.example,
    }
