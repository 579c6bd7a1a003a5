"""Score a model on public question sets, beside the data's own questions.

results.json has them under `sets`:

    {NAME: {"path", "kind", "others", "revision" and "license" or "sha256",
            "relations": {NAME: {"total", "correct", "accuracy", "interval", "contains", "not_asked", "in_texts", …,
                                 "by_popularity": [row, …], "by_documents": [row, …]}, …}}, …}

Intervals are 95 % Wilson intervals. Documents that name a person are counted as in `evaluation.exposure`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from configuration.schema import Recipe
from data_scripts.question_sets import QuestionSet, SetQuestion, read_question_set
from data_scripts.questions import question_about
from data_scripts.splits import TrainingData
from evaluation.exposure import BOUNDS, LABELS, count_exposures
from evaluation.popularity import contains_answer, count_right, popularity_rows
from evaluation.relation_scores import NOT_ASKED, ask_model, ask_pipeline, choose_questions
from evaluation.trained_on import TrainedOn, count_known
from evaluation.trust import EvaluatedAnswers, fraction, is_answered
from modeling_minigpt import ClosedBookPipeline
from modeling_minigpt.relations_minigpt import Relation


@dataclass(frozen=True)
class SetAnswers:
    """Answers to the questions of one relation in one set.

    Attributes:
        of_set: the set.
        relation: what is asked for.
        questions: those that are scored.
        texts: the greedy answer to each; None to one that the model cannot read.
        right: which of these are accepted.
        judged: what the pipeline answers, with its chances.
    """

    of_set: QuestionSet
    relation: Relation
    questions: Sequence[SetQuestion]
    texts: Sequence[str | None]
    right: Sequence[bool]
    judged: EvaluatedAnswers


def read_sets(recipe: Recipe, data: TrainingData) -> list[QuestionSet]:
    """Read the recipe's `evaluate.sets`; none where held-out questions are scored, for tuning.

    Raises:
        DataError: one cannot be read, or asks for nothing that the data have.
    """
    if data.held_out:
        return []
    return [
        read_question_set(name, path, data.relations, recipe.data.properties)
        for name, path in recipe.evaluate.sets.items()
    ]


def ask_sets(
    pipeline: ClosedBookPipeline, sets: Sequence[QuestionSet], recipe: Recipe, data: TrainingData
) -> list[SetAnswers]:
    """Ask all questions of all sets; every process must call this."""
    found = []
    for one in sets:
        for relation in data.relations:
            questions = choose_questions(one.of_relation(relation), recipe.evaluate.questions)
            if questions:
                found.append(ask_set(pipeline, one, relation, questions, recipe))
    return found


def ask_set(
    pipeline: ClosedBookPipeline,
    of_set: QuestionSet,
    relation: Relation,
    questions: Sequence[SetQuestion],
    recipe: Recipe,
) -> SetAnswers:
    """Ask for one relation of one set; every process must call this."""
    tokenizer = pipeline.tokenizer
    # The world has names that a character vocabulary does not: they count as wrong, and do not end the run.
    answers, right = ask_model(
        pipeline.model, tokenizer, [one.question for one in questions], recipe.evaluate, shared=True
    )
    texts = [None if answer is NOT_ASKED else answer.text for answer in answers]
    judged = ask_pipeline(pipeline, relation, [one.question for one in questions], [], [])
    return SetAnswers(of_set, relation, questions, texts, right, judged)


def set_results(found: Sequence[SetAnswers], data: TrainingData, trained_on: TrainedOn) -> dict[str, dict]:
    """Return what `results.json` says of each set, by its name."""
    if not found:
        return {}  # and read no document
    counts, alias_counts = count_documents(found, data)
    results: dict[str, dict] = {}
    first = 0
    for answers in found:
        last = first + len(answers.questions)
        of_set = answers.of_set
        entry = results.setdefault(
            of_set.name,
            {"path": of_set.path, "kind": of_set.kind, "others": of_set.others, **of_set.version, "relations": {}},
        )
        named = {seen: counts[seen][first:last] for seen in ("person", "both")}
        entry["relations"][answers.relation.name] = {
            **describe_answers(answers),
            "trained": count_known([one.question for one in answers.questions], trained_on.questions),
            **describe_exposure(answers, named["person"], named["both"], alias_counts[first:last]),
            **describe_abstention(answers, named["person"]),
        }
        first = last
    return results


def count_documents(found: Sequence[SetAnswers], data: TrainingData) -> tuple[dict[str, list[int]], list[int]]:
    """Return in one pass how many documents name each question's person, answer and both; and a person's aliases."""
    everything = [one for answers in found for one in answers.questions]
    # A last name alone would be found in documents of anybody.
    aliases = [[alias for alias in one.aliases if " " in alias] for one in everything]
    others = [question_about(alias) for names in aliases for alias in names]
    counts = count_exposures([*(one.question for one in everything), *others], data.documents, data.train)
    own = {seen: times[: len(everything)] for seen, times in counts.items()}
    of_alias = iter(counts["person"][len(everything) :])
    return own, [sum(next(of_alias) for _ in names) for names in aliases]


def describe_answers(answers: SetAnswers) -> dict:
    """Return how many answers are right, in total and by how popular the people are."""
    accepted = [one.question.answers for one in answers.questions]
    contains = [contains_answer(text or "", own) for text, own in zip(answers.texts, accepted, strict=True)]
    return {
        "question": answers.relation.question,
        **count_right(answers.right),
        "contains": fraction(contains),
        "not_asked": sum(text is None for text in answers.texts),
        "by_popularity": popularity_rows([one.popularity for one in answers.questions], answers.right),
    }


def describe_exposure(answers: SetAnswers, person: Sequence[int], both: Sequence[int], aliases: Sequence[int]) -> dict:
    """Return how many of the people the training texts name, and how many answers are right by how often they do.

    Args:
        person: documents that name each question's person.
        both: documents that name an accepted answer, too.
        aliases: documents that name the person by an alias.
    """
    ranges = [bisect_right(BOUNDS, times) for times in person]
    rows = []
    for number, label in enumerate(LABELS):
        chosen = [is_right for is_right, place in zip(answers.right, ranges, strict=True) if place == number]
        if chosen:
            rows.append({"times": label, **count_right(chosen)})
    return {
        "in_texts": sum(times > 0 for times in person),
        "only_by_alias": sum(not times and other > 0 for times, other in zip(person, aliases, strict=True)),
        "answer_in_texts": sum(times > 0 for times in both),
        "of_people_in_texts": count_right(
            [is_right for is_right, times in zip(answers.right, person, strict=True) if times]
        ),
        "by_documents": rows,
    }


def describe_abstention(answers: SetAnswers, person: Sequence[int]) -> dict:
    """Return the shares of questions that get an answer at the certified thresholds; None without a certificate.

    To the model a person that no document names is a stranger: the fewer of them get an answer, the better.
    """
    certificate = answers.judged.certificate
    given: list[bool] = []
    if certificate is not None:
        given = [is_answered(answer.scores, certificate) for answer in answers.judged.known]
    pairs = list(zip(given, answers.judged.right, person, strict=bool(given)))
    return {
        "answered": fraction(given),
        "answered_right": fraction([is_right for is_given, is_right, _ in pairs if is_given]),
        "answered_in_texts": fraction([is_given for is_given, _, times in pairs if times]),
        "answered_not_in_texts": fraction([is_given for is_given, _, times in pairs if not times]),
    }
