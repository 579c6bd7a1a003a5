"""`facts.json`: read as it was written, and refused in one line wherever it is anything else."""

import json
import re

import pytest

from modeling_minigpt import ClosedBookPipeline, build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.facts_minigpt import RelationFacts, build_facts, facts_to_json, parse_facts
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.source_minigpt import WeightsSource
from tests.pipelines import NAMES, RELATIONS, calibration, pipeline_factory

STUDIED = Relation(
    "studied", "Where did {name} study?", ("{name}. studied at",), ("{name}'s university?",), "university"
)
LINES = ["Where was Ada Stone born in Rome?", "Where did Béla Nagy study and at which university?"]


def written(**changes):
    """Return the values of a file of one relation, with changes; a value of None leaves the key out."""
    values = json.loads(facts_to_json([RelationFacts(STUDIED, ["Oslo", "Turin"])]))
    values["relations"][0] |= changes
    values["relations"][0] = {key: value for key, value in values["relations"][0].items() if value is not None}
    return values


def test_facts_are_read_as_they_were_written():
    facts = [RelationFacts(BIRTHPLACE, ["Rome", "Łódź"]), RelationFacts(STUDIED, [])]
    text = facts_to_json(facts)
    assert parse_facts(text) == [(BIRTHPLACE, ["Rome", "Łódź"]), (STUDIED, [])]
    assert list(json.loads(text)["relations"][0]) == [
        "name", "question", "prompts", "paraphrases", "answers", "candidates",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "relations must be a list of 1 to 200"),
        ({"relations": {}}, "relations must be a list of 1 to 200"),
        ({"relations": []}, "relations must be a list of 1 to 200"),
        ({"relations": written()["relations"] * 5000}, "relations must be a list of 1 to 200"),
        ({"relations": written()["relations"] * 2}, "two relations have the name 'studied'"),
        ({"relations": ["studied"]}, "relation 1 must have answers, candidates, name, paraphrases, prompts, question"),
        (written(prompts=None), "relation 1 must have answers, candidates, name"),
        (written(name=7), "name of relation 1 must be a text of 1 to 300 printable characters, found 7"),
        (written(name=""), "name of relation 1 must be a text"),
        (written(answers=[]), "answers of relation 1 must be a text"),
        (written(question="Where did she study?"), "a question template has {name} exactly once"),
        (written(question="Where did {name}\nstudy?"), "question of relation 1 must be a text"),
        (written(question="Where did {name} study" + "?" * 400), "question of relation 1 must be a text"),
        (written(prompts="{name}."), "prompts of relation studied must be a list of texts"),
        (written(prompts=["{name}.", 7]), "prompts of relation studied must be a list of texts"),
        (written(prompts=["{name}.", "{name}."]), "'{name}.' is given twice"),
        (written(prompts=["born in"]), "a question template has {name} exactly once"),
        (written(paraphrases=[f"{number} of {{name}}?" for number in range(99)]), "paraphrases of relation studied"),
        (written(candidates={"Oslo": 1}), "candidates of relation studied must be a list of texts"),
        (written(candidates=["Oslo", None]), "candidates of relation studied must be a list of texts"),
        (written(candidates=["Oslo"] * 1_000_001), "candidates of relation studied must be at most 1000000"),
    ],
)  # fmt: skip
def test_a_file_that_is_anything_else_is_refused_in_one_line(tmp_path, values, reason):
    (tmp_path / "facts.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"facts\.json is not what it should be") as caught:
        WeightsSource(str(tmp_path)).read_parsed("facts.json", parse_facts)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_relations_with_the_same_candidates_share_a_trie():
    tokenizer = build_bpe_tokenizer(LINES, 300, 64)
    other = Relation("died", "Where did {name} die?")
    candidates = {"birthplace": ["Rome", "Oslo"], "died": ["Rome", "Oslo"], "studied": ["Turin"]}
    facts = build_facts([BIRTHPLACE, other, STUDIED], candidates, tokenizer, 64)
    assert facts["birthplace"].trie is facts["died"].trie
    assert facts["studied"].trie is not facts["died"].trie
    assert build_facts([STUDIED], {}, tokenizer, 64)["studied"].trie is None


def test_candidates_are_normalised_as_the_answers_of_training_are():
    given = ["Rome\n", " New\u00a0 York\t", "Gyo\u030br", "Os\u200blo"]
    ask = pipeline_factory()()
    ask = ClosedBookPipeline(model=ask.model, tokenizer=ask.tokenizer, candidates=given)
    assert ask.candidates == list(ask.trie.texts) == ["Rome", "New York", "Győr", "Oslo"]


@pytest.mark.parametrize(
    ("question", "reason"),
    [("Где {name} study?", "contains 'Г', which is not in the model's vocabulary"),
     ("Where did {name} study ⁇?", "contains '⁇', which is a special token")],
)  # fmt: skip
def test_a_question_that_the_tokenizer_cannot_write_is_refused(question, reason):
    tokenizer = build_character_tokenizer(LINES, 64)
    with pytest.raises(ValueError, match="relation studied: ") as caught:
        build_facts([Relation("studied", question)], {}, tokenizer, 64)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"candidates": "Rome"}, "candidates must be given as a list, found the text 'Rome'"),
        ({"candidates": {"birthplace": "Rome"}}, "candidates must be given as a list, found the text 'Rome'"),
        ({"candidates": [1, 2]}, "candidates must be texts, found 1"),
        ({"candidates": ["Rome", "\u200b \n"]}, "candidates must not be empty, found '\\u200b \\n'"),
        ({"candidates": ["Rome", "Rome\n"]}, "answers 1 and 2 are the same: 'Rome'"),
        ({"names": "Ada Stone"}, "names must be a list of texts, found the text 'Ada Stone'"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(given, refusal):
    ask = pipeline_factory()()
    with pytest.raises(ValueError, match=re.escape(refusal)):
        ClosedBookPipeline(model=ask.model, tokenizer=ask.tokenizer, **given)


@pytest.mark.parametrize("missing", ["mask_token", "eos_token", "pad_token"])
def test_a_tokenizer_without_a_token_that_is_needed_is_refused(missing):
    ask = pipeline_factory()()
    setattr(ask.tokenizer, missing, None)
    with pytest.raises(ValueError, match=f"its tokenizer has no {missing}, so it cannot be asked"):
        ClosedBookPipeline(model=ask.model, tokenizer=ask.tokenizer)


@pytest.mark.parametrize("limit", [-1, 0, 72])
def test_an_answer_as_long_as_the_context_leaves_no_room_for_a_question(limit):
    ask = pipeline_factory()()
    context = ask.model.config.max_position_embeddings
    ask.model.generation_config.max_new_tokens = context + limit
    refusal = f"no room for a question: max_new_tokens is {context + limit}, the model reads {context} tokens"
    assert [result["reason"] for result in ask(["Ada Stone", "???"])] == [refusal, "no name in it"]


@pytest.mark.parametrize("is_calibrated", [False, True], ids=["uncalibrated", "calibrated"])
@pytest.mark.parametrize("original", [4, 32])
def test_a_question_past_the_limit_of_the_rotary_frequencies_is_abstained_from(original, is_calibrated):
    ask = pipeline_factory()()
    model = ask.model
    factors = [1.0] * (model.config.head_dim // 2)
    scaling = {"rope_type": "longrope", "original_max_position_embeddings": original, "rope_theta": 10_000.0,
               "short_factor": factors, "long_factor": factors}  # fmt: skip
    config = type(model.config)(**{**model.config.to_dict(), "rope_parameters": scaling})
    limited = type(model)(config).eval()
    limited.load_state_dict(model.state_dict())
    limited.generation_config.max_new_tokens = 6
    candidates = {name: facts.candidates[:3] for name, facts in ask.facts.items()}
    confidence = {relation.name: calibration(relation) for relation in RELATIONS} if is_calibrated else None
    knowledge = {"relations": RELATIONS, "candidates": candidates, "confidence": confidence, "names": NAMES}
    limited_ask = ClosedBookPipeline(model=limited, tokenizer=ask.tokenizer, **knowledge)
    reasons = [limited_ask(f"Bo{' Lind' * count}", threshold=0)["reason"] for count in range(8)]
    assert (reasons[0] is None) == (original == 32)
    assert reasons[-1].endswith(" before an answer" if original == 32 else ", the model reads 4 tokens")
