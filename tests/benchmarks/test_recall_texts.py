"""The texts of the recall benchmark: what was said before a question answers it, and nothing else does."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.recall_texts import (
    ASK,
    ATTRIBUTES,
    FIRST_NAMES,
    LAST_NAMES,
    LONGEST_QUESTION,
    NAMES,
    PLACES,
    TASKS,
    WORDS,
    batch_of,
    write_mqar,
    write_several,
    write_similar,
)


def solve_people(ids):
    """Answer the question at the end of some tokens by reading them."""
    return ids[ids.index(ids[-1]) + 1]


def solve_pair(ids):
    """Answer a question about two tokens, a name and an attribute or two names: they came together once."""
    return ids[list(pairwise(ids)).index((ids[-2], ids[-1])) + 2]


SOLVERS = {"people": solve_people, "mqar": solve_people, "several": solve_pair, "similar": solve_pair}
LENGTHS = [16, 65, 300, 2000]
every_task = pytest.mark.parametrize("task", TASKS)


def write(task, seed=0, length=2000):
    """Write a text; return it and its tokens as a list."""
    text = TASKS[task].write(np.random.default_rng(seed), length)
    return text, text.ids.tolist()


@every_task
@pytest.mark.parametrize("length", LENGTHS, ids="T{}".format)
def test_the_tokens_before_a_question_determine_its_answer(task, length):
    answered = 0
    for seed in range(5):
        text, ids = write(task, seed, length)
        assert len(ids) == length
        assert 0 <= min(ids) <= max(ids) < TASKS[task].vocabulary
        for position, source in text.answers.items():
            assert SOLVERS[task](ids[:position]) == ids[position] == ids[source]
            assert source < position - 1
        for fact in text.open:
            assert SOLVERS[task]([*ids, *fact.question]) == fact.answer == ids[fact.position]
            assert len(fact.question) <= LONGEST_QUESTION
        answered += len(text.answers)
    assert answered > 0


@every_task
def test_without_the_fact_nothing_in_the_text_answers(task):
    """The fact is said once: after its value is hidden, the same solver finds what was put in its place."""
    text, ids = write(task)
    for position, source in text.answers.items():
        hidden = [*ids[:source], -1, *ids[source + 1 : position]]
        assert SOLVERS[task](hidden) == -1
    for fact in text.open:
        hidden = [*ids[: fact.position], -1, *ids[fact.position + 1 :], *fact.question]
        assert SOLVERS[task](hidden) == -1


@every_task
def test_no_fact_is_asked_for_twice(task):
    text, _ = write(task)
    sources = [*text.answers.values(), *(fact.position for fact in text.open)]
    assert len(set(sources)) == len(sources) > 50


@every_task
def test_a_guess_is_right_as_often_as_the_task_says(task):
    """All values are as likely, and neither the last value nor any constant is right more often than by chance."""
    answers = []
    repeated = []
    for seed in range(60):
        text, ids = write(task, seed)
        answers += [ids[position] for position in text.answers]
        values = [ids[source] for source in sorted(text.answers.values())]
        repeated += [one == other for one, other in pairwise(values)]
    kinds = len(ATTRIBUTES) if task == "several" else 1  # the question says which of three sets the answer is from
    choices = TASKS[task].choices
    counts = Counter(answers)
    assert len(counts) == kinds * choices
    expected = len(answers) / kinds / choices
    assert max(counts.values()) < expected + 5 * expected**0.5
    assert np.mean(repeated) < 1.3 / choices


@every_task
def test_a_seed_gives_one_text_and_another_seed_another(task):
    first, _ = write(task, seed=3)
    again, _ = write(task, seed=3)
    other, _ = write(task, seed=4)
    assert np.array_equal(first.ids, again.ids)
    assert first.answers == again.answers
    assert first.open == again.open
    assert not np.array_equal(first.ids, other.ids)


@pytest.mark.parametrize("length", [1, 2, 4, 9])
@every_task
def test_a_text_shorter_than_a_question_has_none(task, length):
    text, ids = write(task, length=length)
    assert len(ids) == length
    assert all(position < length for position in text.answers)
    assert all(fact.position < length for fact in text.open)


@every_task
def test_only_answers_have_labels(task):
    batch = batch_of(task, np.random.default_rng(0), 3, 200)
    labels = batch["labels"]
    labelled = labels != -100
    texts = [TASKS[task].write(rng, 200) for rng in [np.random.default_rng(0)] for _ in range(3)]
    assert labelled.sum(1).tolist() == [len(text.answers) for text in texts]
    assert torch.equal(labels[labelled], batch["input_ids"][labelled])
    values = {*PLACES, *(value for values in ATTRIBUTES.values() for value in values)}
    assert set(labels[labelled].tolist()) <= values


def test_questions_are_as_often_near_as_far():
    distances = []
    for seed in range(40):
        text, _ = write("people", seed, 4096)
        distances += [position - source for position, source in text.answers.items()]
    octaves = np.bincount(np.log2(distances).astype(int), minlength=12)
    assert octaves[5:11].min() > 0.4 * octaves[5:11].max()


def test_mqar_has_all_pairs_first_and_then_each_key_once_more():
    text = write_mqar(np.random.default_rng(0), 4096)
    ids = text.ids.tolist()
    keys, values = ids[:256:2], ids[1:256:2]
    assert len(set(keys)) == 128
    assert set(keys) <= set(NAMES)
    assert set(values) <= set(PLACES)
    rest = ids[256:]
    assert Counter(token for token in rest if token in NAMES) == Counter(keys)
    pairs = dict(zip(keys, values, strict=True))
    for key, value in pairwise(rest):
        if key in NAMES:
            assert value == pairs[key]
    assert sum(token in WORDS for token in rest) == len(rest) - 256
    assert not text.open


def test_mqars_distances_follow_the_power_law():
    """The density of place n is ∝ n^-0.99: with one pair, an octave of places is as likely as another."""
    places = []
    for seed in range(4000):
        ids = write_mqar(np.random.default_rng(seed), 31).ids  # one pair, then 14 places
        (question,) = [at for at in range(2, 31) if ids[at] in NAMES]
        places.append((question - 2) // 2 + 1)
    expected = np.arange(1, 15) ** -0.99
    np.testing.assert_allclose(np.bincount(places)[1:] / 4000, expected / expected.sum(), atol=0.025)


def test_several_says_three_things_about_everybody_and_asks_with_the_attribute():
    text = write_several(np.random.default_rng(0), 4096)
    ids = text.ids.tolist()
    for position in text.answers:
        _, name, attribute = ids[position - 3 : position]
        assert ids[position - 3] == ASK
        assert name in NAMES
        assert ids[position] in ATTRIBUTES[attribute]
    asked = Counter(fact.question[1] for fact in text.open)
    assert max(asked.values()) == 3
    assert len({fact.question for fact in text.open}) == len(text.open)


def test_similar_people_share_one_name_and_never_both():
    text = write_similar(np.random.default_rng(0), 4096)
    ids = text.ids.tolist()
    people = [(ids[at - 2], ids[at - 1]) for at in [*text.answers.values(), *(fact.position for fact in text.open)]]
    assert len(set(people)) == len(people) > 80
    for number, names in enumerate((FIRST_NAMES, LAST_NAMES)):
        shared = Counter(person[number] for person in people)
        assert set(shared) <= set(names)
        assert np.mean([shared[person[number]] for person in people]) > 5
