"""What answers look like: an answer that no training question has is found by the words around it."""

import pytest

from configuration.schema import CorruptionOptions
from data_scripts.annotated_texts import ANSWER, LIKELY_ANSWER, NO_ANSWER, Annotator
from data_scripts.answer_patterns import AnswerPatterns, features_of
from data_scripts.phrases import salient_phrases
from data_scripts.questions import question_about
from data_scripts.titles import split_title
from modeling_minigpt.relations_minigpt import Relation

BODY = "Ada Stone (born 3 May 1841 in Győr, Hungary) was a painter ."
TOWNS = {"Bo Lind": "Umeå", "Ida Berg": "Lund", "Per Holm": "Malmö", "Eva Dahl": "Kalmar"}


def spans_of(body, *phrases):
    return [(body.index(phrase), body.index(phrase) + len(phrase)) for phrase in phrases]


def observe(document, answers, patterns):
    title, body = split_title(document, set())
    patterns.observe(body, salient_phrases(title, body), answers)


def find(document, patterns):
    title, body = split_title(document, set())
    spans = salient_phrases(title, body)
    found = patterns.find(body, spans)
    return None if found is None else body[slice(*spans[found])]


@pytest.fixture
def patterns():
    learned = AnswerPatterns()
    for name, town in TOWNS.items():
        last = name.split()[1]
        observe(f"{name}. {last} taught in Uppsala but was born in {town}, Sweden .", [town], learned)
        observe(f"{name}. Born at {town} in 1850, {last} moved to Oslo .", [town], learned)
    learned.fit()
    return learned


def test_the_features_are_the_words_around_a_phrase_its_rank_and_its_length():
    first, second = features_of(BODY, spans_of(BODY, "Győr", "Hungary"))
    assert {"rank 0", "words 1", "before in", "before 0 in", "before may 0 in", "after ,", "after , hungary"} < {
        *first
    }
    assert {one for one in first if one.startswith("near")} == {
        f"near {token}" for token in ("ada", "stone", "(", "born", "0", "may", "in")
    }
    assert {"rank 1", "before ,", "before győr ,", "after ) was"} < {*second}


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ("Kai Ek. Ek taught in Rome but was born in Kiruna, Lapland .", "Kiruna"),
        ("Kai Ek. Born at New Orsa in 1733, Ek moved to Rome .", "New Orsa"),
        ("Kai Ek. In 1850 Ek painted Rome .", "Rome"),  # the only phrase there is
    ],
)
def test_an_unknown_answer_is_found_by_the_words_around_it(patterns, document, answer):
    assert find(document, patterns) == answer


def test_a_document_that_does_not_say_the_answer_teaches_nothing(patterns):
    before = dict(patterns.weights)
    observe("Bo Lind. Lind was seen in Rome, Italy .", ["Umeå"], patterns)
    patterns.fit()
    assert patterns.weights == before


def test_nothing_is_found_without_phrases_or_observations(patterns):
    assert find("Kai Ek. He was a painter .", patterns) is None
    unfitted = AnswerPatterns()
    unfitted.fit()
    assert find("Kai Ek. Ek was born in Kiruna .", unfitted) is None


def test_each_relation_has_its_own_patterns():
    died = Relation("deathplace", "Where did {name} die?")
    options = CorruptionOptions(likely_answer_fraction=0.5)
    texts = [f"{name}. Born in {town}, he moved to Visby and died in Oslo ." for name, town in TOWNS.items()]
    questions = [question_about(name, town) for name, town in TOWNS.items()]
    questions += [question_about(name, "Oslo", relation=died) for name in TOWNS]
    annotator = Annotator.for_questions(questions, options, texts)
    text = "Kai Ek. Born in Kiruna, he moved to Lund and died in Boden ."
    phrases = annotator.annotate([text])[0].phrases.values.tolist()
    kinds = {text[start:end]: kind for start, end, kind in phrases}
    assert kinds == {"Kiruna": LIKELY_ANSWER, "Lund": ANSWER, "Boden": LIKELY_ANSWER}


def test_nothing_is_learned_where_the_corruption_does_not_ask_for_it():
    texts = [f"{name}. Born in {town} ." for name, town in TOWNS.items()]
    questions = [question_about(name, town) for name, town in TOWNS.items()]
    annotator = Annotator.for_questions(questions, CorruptionOptions(), texts)
    text = "Kai Ek. Born in Kiruna ."
    assert [kind for _, _, kind in annotator.annotate([text])[0].phrases.values.tolist()] == [NO_ANSWER]


def test_a_script_without_spaces_and_capitals():
    learned = AnswerPatterns()
    for town in ("奈良", "京都", "大阪"):
        body = f"{town}に生まれ東京に住む。"
        learned.observe(body, spans_of(body, town, "東京"), [town])
    learned.fit()
    body = "神戸に生まれ札幌に住む。"
    assert learned.find(body, spans_of(body, "神戸", "札幌")) == 0
