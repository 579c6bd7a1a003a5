"""What answers look like: an answer that no training question has is found by the words around it."""

import statistics

import pytest

from configuration.schema import CorruptionOptions
from data_scripts import annotated_texts
from data_scripts.annotated_texts import ANSWER, LIKELY_ANSWER, NO_ANSWER, Annotator
from data_scripts.answer_patterns import AnswerPatterns, features_of
from data_scripts.phrases import salient_phrases
from data_scripts.questions import question_about
from data_scripts.span_corruption import TextCorruptor
from data_scripts.titles import split_title
from modeling_minigpt.relations_minigpt import Relation

BODY = "Ada Stone (born 3 May 1841 in Győr, Hungary) was a painter ."
PLACES = {"Lind": "Umeå", "Berg": "Lund", "Holm": "Malmö"}
TOWNS = {"Bo Lind": "Umeå", "Ida Berg": "Lund", "Per Holm": "Malmö", "Eva Dahl": "Kalmar"}


def spans_of(body, *phrases):
    return [(body.index(phrase), body.index(phrase) + len(phrase)) for phrase in phrases]


def observe(document, answers, patterns):
    title, body = split_title(document, set())
    spans = salient_phrases(title, body)
    patterns.observe(features_of(body, spans), [body[start:end] in answers for start, end in spans])


def find(document, patterns):
    title, body = split_title(document, set())
    spans = salient_phrases(title, body)
    found = patterns.find(features_of(body, spans))
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
        learned.observe(features_of(body, spans_of(body, town, "東京")), [True, False])
    learned.fit()
    body = "神戸に生まれ札幌に住む。"
    assert learned.find(features_of(body, spans_of(body, "神戸", "札幌"))) == 0


def annotator_of(questions, documents):
    return Annotator.for_questions(questions, CorruptionOptions(likely_answer_fraction=0.5), documents)


def test_a_name_that_ends_with_a_full_stop_teaches_too():
    questions = [question_about("Bo Lind Jr.", "Umeå")]
    (patterns,) = annotator_of(questions, ["Bo Lind Jr.. Lind was born in Umeå, Sweden ."]).patterns
    assert patterns.documents == 1


def test_titles_that_a_table_gives_are_known_of_people_who_are_not_asked_about_too():
    texts = ["Mr. Ek goes to Rome. It was made in Oslo .", "Bo Lind Jr. He was born in Umeå ."]
    titles = ["Mr. Ek goes to Rome", "Bo Lind Jr."]
    ends = [len("Mr. Ek goes to Rome."), len("Bo Lind Jr.")]
    for policy in ("salient-span", "random-span"):
        annotator = Annotator.for_questions([], CorruptionOptions(policy=policy), texts, titles)
        annotated, _ = annotator.annotate(texts)
        assert (annotated.title_ends - annotated.starts[:-1]).tolist() == ends
        assert annotator.names == {"Mr. Ek goes to Rome"}  # what texts show by themselves is not stored


def test_namesakes_have_the_answers_of_all_of_them():
    documents = ["Bo Lind. Lind was born in Umeå, Sweden .", "Bo Lind. Lind was born in Lund, Sweden ."]
    questions = [question_about("Bo Lind", "Umeå"), question_about("Bo Lind", "Lund")]
    (patterns,) = annotator_of(questions, documents).patterns
    assert patterns.documents == 2
    assert patterns.observed == [2, 2]  # Sweden twice, and both towns


def test_a_relation_whose_people_come_late_is_observed_as_well(monkeypatch):
    monkeypatch.setattr(annotated_texts, "OBSERVED", 2)
    died = Relation("deathplace", "Where did {name} die?")
    first = [f"Bo Lind{number}. Born in Umeå, he moved to Oslo ." for number in range(5)]
    last = [f"Ida Ek{number}. She died in Boden, near Oslo ." for number in range(5)]
    questions = [question_about(f"Bo Lind{number}", "Umeå") for number in range(5)]
    questions += [question_about(f"Ida Ek{number}", "Boden", relation=died) for number in range(5)]
    texts = iter([*first, *last])
    assert [one.documents for one in annotator_of(questions, texts).patterns] == [2, 2]
    assert list(texts)  # the rest is not read


@pytest.mark.parametrize("policy", ["random-span", "salient-span"])
def test_only_salient_spans_learn_patterns(policy):
    options = CorruptionOptions(policy=policy, likely_answer_fraction=0.5)
    annotator = Annotator.for_questions([question_about("Bo Lind", "Umeå")], options, ["Bo Lind. Born in Umeå ."])
    assert len(annotator.patterns) == (policy == "salient-span")


@pytest.mark.parametrize(
    ("fraction", "share"),
    [pytest.param(1.0, 1.0, id="always"), (0.5, 2 / 3), pytest.param(0.0, 1 / 3, id="by-chance")],
)
def test_what_looks_like_an_answer_is_preferred(fraction, share):
    options = CorruptionOptions(short_fraction=1.0, salient_fraction=1.0, max_spans=1, likely_answer_fraction=fraction)
    known = [f"Bo {name}. {name} was born in {place}, Sweden, and died in Oslo ." for name, place in PLACES.items()]
    questions = [question_about(f"Bo {name}", place) for name, place in PLACES.items()]
    annotator = Annotator.for_questions(questions, options, known)
    text = "Ida Ek. Ek was born in Kiruna, Lapland, and died in Falun ."  # no training answer is in it
    corruptor = TextCorruptor([text], options, patterns=annotator.patterns)
    found = [one.endswith("⁇Kiruna⁇") for one in corruptor.corrupt(0, range(1500), [0] * 1500, "⁇")]
    assert statistics.mean(found) == pytest.approx(share, abs=0.03)
