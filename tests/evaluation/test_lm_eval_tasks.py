"""The task files for the lm-evaluation-harness name functions that are there, and these return the public sets."""

import re

import pytest

from evaluation.lm_eval_tasks import minigpt_data
from tests.question_sets import popqa_row, write_entity_questions, write_popqa
from tests.running import ROOT


def test_every_task_names_functions_that_are_there():
    tasks = sorted((ROOT / "evaluation" / "lm_eval_tasks").glob("*.yaml"))
    named = {path.stem: re.findall(r"!function minigpt_data\.(\w+)", path.read_text()) for path in tasks}
    assert {"popqa_birthplace", "entity_questions_birthplace"} < named.keys()
    assert all(callable(getattr(minigpt_data, name)) for names in named.values() for name in names)
    assert all(f"\ntask: {path.stem}\n" in path.read_text() for path in tasks)


def test_public_sets_have_their_questions_with_all_accepted_answers(tmp_path):
    rows = [popqa_row(0, "Ada Stone", ["Rome", "Roma"], 5), popqa_row(1, "Bo", ["actor"], 7, (22, "occupation"))]
    (row,) = minigpt_data.popqa(str(write_popqa(tmp_path / "test.tsv", rows)))["test"]
    assert (row["question"], row["popularity"]) == ("Where was Ada Stone born?", 5)
    assert minigpt_data.accepted_answers(row) == ["Rome", "Roma"]
    path = write_entity_questions(tmp_path / "test/P19.test.json", {"Bo Lind": ["Oslo"]})
    (row,) = minigpt_data.entity_questions(str(path.parent))["test"]
    assert (row["question"], row["answers"], row["popularity"]) == ("Where was Bo Lind born?", ["Oslo"], None)
    with pytest.raises(ValueError, match="give --metadata dataset=PATH"):
        minigpt_data.entity_questions()
