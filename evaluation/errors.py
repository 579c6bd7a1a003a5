"""Where the wrong answers come from: each is in exactly one class, the first of `CLASSES` that fits.

Where was Ada Stone born? Right is Paris, and the documents are

    Ada Stone. Stone was born in Paris, France, and moved to Oslo .     Ada May. Born in Rome .
    Cyd Moss. Moss left Lima for Paris, France .                        Bo Stone. Born in Bern .

    France    part_or_whole       "Paris, France" is written in two documents: Paris is in France
    Pariss    other_spelling      no document has it, and it differs in few letters
    Oslo      own_document        another phrase of the person's own document
    Bern      same_last_name      the answer of Bo Stone
    Rome      same_first_name     the answer of Ada May
    Lima      other_person        the answer of Cyd Moss, the nearest in name
    Parma     made_up             no document and no training answer has it

Were Kyoto the right answer, all of these would be `not_in_documents`: nothing could be learned, as no document whose
title is the person has it. That class is first, so that all others could have been right. After it the order is from
the narrowest explanation to the widest: of people with the answer, more share a first name than a last one.

An answer is found in documents as whole words; a document is of the person, or of all people of that name, that its
title names.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from functools import partial
from itertools import chain
from typing import NamedTuple

from data_scripts.questions import Question
from data_scripts.words import WORD, is_named
from evaluation.answers import exact_matches
from evaluation.error_evidence import Evidence, WrongAnswer
from modeling_minigpt.answers_minigpt import Answer
from modeling_minigpt.names_minigpt import fold

EXAMPLES = 10  # of each class, those that the model is surest of
MAX_EDITS = 2  # letters, in which another spelling differs,
LETTERS_PER_EDIT = 3  # and it has at least as many letters for each
MIN_SIMILARITY = 0.8  # of another spelling: twice the letters in common over all letters


def letters(text: str) -> str:
    """Return the letters of a text: "St. Émile-Nord" has those of "st emile nord"."""
    return "".join(WORD.findall(fold(text)))


def is_similar(answer: str, right: str) -> bool:
    """Return whether two different sequences of letters may be spellings of one answer."""
    # torchmetrics takes seconds to load.
    from torchmetrics.functional.text import edit_distance

    edits = min(MAX_EDITS, len(right) // LETTERS_PER_EDIT)
    if SequenceMatcher(None, answer, right, autojunk=False).ratio() >= MIN_SIMILARITY:
        return True
    return abs(len(answer) - len(right)) <= edits and int(edit_distance(answer, right)) <= edits


def is_part_or_whole(wrong: WrongAnswer, evidence: Evidence) -> bool:
    """Return whether an answer is in a right one or a right one in it: by their words, or as documents write them."""
    answer = fold(wrong.text)
    for right in map(fold, wrong.question.answers):
        # "ROME" is no part of "Rome", but all of it.
        if answer and right and answer != right and (is_named(answer, right) or is_named(right, answer)):
            return True
    return evidence.place_around(wrong) is not None


def is_other_spelling(wrong: WrongAnswer, evidence: Evidence) -> bool:
    """Return whether only case, accents or marks differ from a right answer; or letters, and nobody has the answer.

    Else Northampton, where others are born, would be a spelling of Southampton.
    """
    answer = letters(wrong.text)
    right = [letters(one) for one in wrong.question.answers]
    if not answer or answer in right:
        return bool(answer)
    return not evidence.is_known(wrong.text) and any(is_similar(answer, one) for one in right)


def is_not_in_documents(wrong: WrongAnswer, evidence: Evidence) -> bool:
    """Return whether no document of the person has a right answer."""
    return all((wrong.title, right) not in evidence.taught for right in wrong.question.answers)


def is_in_own_document(wrong: WrongAnswer, evidence: Evidence) -> bool:
    """Return whether a document of the person, or a training answer about the person, has the wrong answer."""
    return (wrong.title, wrong.text) in evidence.own


def has_relative(wrong: WrongAnswer, evidence: Evidence, side: str) -> bool:
    """Return whether somebody with the person's first or last name has the answer."""
    return evidence.relative(wrong, side) is not None


class ErrorClass(NamedTuple):
    """A class of wrong answers.

    Attributes:
        label: what the report calls it.
        has: whether an answer that is in no earlier class is in it.
        is_about_person: whether that depends on who is asked about and on the answer, and may be by chance.
    """

    label: str
    has: Callable[[WrongAnswer, Evidence], bool]
    is_about_person: bool = False


# In the order in which they are tried; the last takes the rest.
CLASSES = {
    "not_in_documents": ErrorClass("the right answer is in no document of the person", is_not_in_documents),
    "empty": ErrorClass("no answer", lambda wrong, _: not wrong.text),
    "part_or_whole": ErrorClass("a part of the right answer, or what contains it", is_part_or_whole, True),
    "other_spelling": ErrorClass("the right answer in another spelling", is_other_spelling, True),
    "own_document": ErrorClass("another phrase of the person's documents", is_in_own_document, True),
    "same_last_name": ErrorClass(
        "the answer of somebody with the same last name", partial(has_relative, side="last"), True
    ),
    "same_first_name": ErrorClass(
        "the answer of somebody with the same first name", partial(has_relative, side="first"), True
    ),
    "other_person": ErrorClass("the answer of somebody else", lambda wrong, evidence: wrong.text in evidence.others),
    "made_up": ErrorClass("made up: in no document", lambda wrong, evidence: not evidence.is_known(wrong.text)),
    "elsewhere": ErrorClass("elsewhere: in documents about nobody", lambda wrong, evidence: True),
}


def classify(wrong: WrongAnswer, evidence: Evidence) -> str:
    """Return the class of a wrong answer."""
    return next(name for name, error in CLASSES.items() if error.has(wrong, evidence))


def explain(name: str, wrong: WrongAnswer, evidence: Evidence) -> dict:
    """Return what is to be seen of why an answer is in a class, "whose", "phrase" or "documents"; perhaps nothing."""
    if name == "not_in_documents":
        return {"documents": evidence.documents[wrong.title]}
    if name == "part_or_whole":
        phrase = evidence.place_around(wrong)
        return {} if phrase is None else {"phrase": phrase}
    if name == "own_document":
        return {"phrase": evidence.own[wrong.title, wrong.text]}
    if name in ("same_last_name", "same_first_name"):
        return {"whose": evidence.relative(wrong, "last" if name == "same_last_name" else "first")}
    if name == "other_person":
        return {"whose": get_close_matches(wrong.title, evidence.others[wrong.text], n=1, cutoff=0.0)[0]}
    return {}


def example(name: str, wrong: WrongAnswer, evidence: Evidence) -> dict:
    """Return a wrong answer as `results.json` has it; "accepted" has all right answers where they are several."""
    question = wrong.question
    found: dict = {"question": question.text, "answer": wrong.text, "right": question.answer}
    if len(question.answers) > 1:
        found["accepted"] = list(question.answers)
    return {**found, "probability": wrong.probability, **explain(name, wrong, evidence)}


def wrong_answers(
    questions: Sequence[Question], answers: Sequence[Answer], right: Sequence[bool]
) -> list[WrongAnswer]:
    """Return the answers that are not right."""
    return [
        WrongAnswer(question, answer.text.strip(), answer.probability)
        for question, answer, is_right in zip(questions, answers, right, strict=True)
        if not is_right
    ]


def swap_answers(wrong: Sequence[WrongAnswer]) -> list[WrongAnswer]:
    """Return the same questions, each with the answer to the one half of them further on, where that is wrong, too.

    They are as popular as the wrong answers are: so often somebody of the same name has such an answer by chance.
    """
    if len(wrong) < 2:
        return []
    half = len(wrong) // 2
    others = [one.text for one in (*wrong[half:], *wrong[:half])]
    right = exact_matches(others, [one.question for one in wrong])
    return [one._replace(text=text) for one, text, is_right in zip(wrong, others, right, strict=True) if not is_right]


def error_table(wrong: Sequence[WrongAnswer], swapped: Sequence[WrongAnswer], evidence: Evidence) -> dict[str, dict]:
    """Return what `results.json` says of a relation's wrong answers, by class: all of `CLASSES`, in their order.

    Returns:
        {CLASS: {"count", "share": of the wrong answers, "by_chance": share of the swapped ones, "examples"}}; a share
        of none is None, and so is that by chance where the person does not matter to the class.
    """
    members: dict[str, list[WrongAnswer]] = {name: [] for name in CLASSES}
    for one in wrong:
        members[classify(one, evidence)].append(one)
    chance = Counter(classify(one, evidence) for one in swapped)
    table = {}
    for name, own in members.items():
        surest = sorted(own, key=lambda one: -one.probability)[:EXAMPLES]
        table[name] = {
            "count": len(own),
            "share": len(own) / len(wrong) if wrong else None,
            "by_chance": chance[name] / len(swapped) if swapped and CLASSES[name].is_about_person else None,
            "examples": [example(name, one, evidence) for one in surest],
        }
    return table


def find_errors(
    asked: Mapping[str, tuple[Sequence[Question], Sequence[Answer], Sequence[bool]]],
    documents: Iterable[str],
    train: Iterable[Question],
) -> dict[str, dict[str, dict]]:
    """Sort the wrong answers of all relations into classes, in one pass over the documents.

    Args:
        asked: by relation, its questions, a model's answers, and which of them are right.
        documents: what was pretrained on.
        train: the training questions.

    Returns:
        By relation, what `error_table` returns.
    """
    wrong = {relation: wrong_answers(*own) for relation, own in asked.items()}
    swapped = {relation: swap_answers(own) for relation, own in wrong.items()}
    evidence = Evidence(chain(*wrong.values(), *swapped.values()))
    if evidence.people:
        for question in train:
            evidence.add_training_question(question)
        for document in documents:
            evidence.add_document(document)
    return {relation: error_table(own, swapped[relation], evidence) for relation, own in wrong.items()}
