"""`facts.json`: read as it was written, and refused in one line wherever it is anything else."""

import json

import pytest

from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.facts_minigpt import RelationFacts, build_facts, facts_to_json, parse_facts
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.source_minigpt import WeightsSource

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
