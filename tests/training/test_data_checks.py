"""What cannot be scored is refused once the data are read, before anything is trained, or said in one line."""

import json

import pytest

from tests.running import call

NAMES = [
    f"{first} {last}" for first in ("Ada", "Bela", "Cyd", "Dee", "Eno") for last in ("Stone", "Nagy", "Moss", "Finn")
]


@pytest.fixture
def train(recipe, tmp_path):
    """Return a function that writes a table and trains on it; it returns the exit status."""

    def run(change, *sets, command="all"):
        rows = [
            {
                "name": name,
                "text": f"{name} was born in Rome.",
                "birthplace": "Rome",
                "split": "dev" if n > 14 else "train",
            }
            for n, name in enumerate(NAMES)
        ]
        path = tmp_path / "people.jsonl"
        path.write_text("".join(json.dumps({**row, **change(n, row)}) + "\n" for n, row in enumerate(rows)))
        return call(command, recipe, path, tmp_path / "run", *sets)

    return run


@pytest.fixture
def refusal(train, tmp_path, capfd):
    """Return a function that does the same where nothing may be trained; it returns the one line of the refusal."""

    def run(*arguments):
        assert train(*arguments) == 2
        assert not (tmp_path / "run" / "pretrain").exists()
        [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return run


def test_a_table_with_nobody_to_score_is_refused(refusal):
    assert "nobody is left to be scored: found no dev question" in refusal(lambda n, row: {"split": "train"})


def test_answers_that_are_all_too_long_are_refused_with_the_longest(refusal):
    line = refusal(
        lambda n, row: {"birthplace": "by the sea of Xyzzy, beyond all maps and roads"}, "evaluate.max_new_tokens=2"
    )
    assert "15 of 15 training answers are longer than evaluate.max_new_tokens (2)" in line


def test_what_is_not_scored_and_what_cannot_be_right_is_said_before_training(train, tmp_path, caplog):
    def change(n, row):
        studied = {"studied": "Yale"} if row["split"] == "train" else {}
        return {**studied, "birthplace": "the sea beyond all maps and roads" if n == 3 else "Rome"}

    question = "relations.studied.question=Where did {name} study?"
    assert train(change, question, "evaluate.max_new_tokens=8") == 0
    assert "studied is not scored: there is no dev question of it" in caplog.text
    assert "1 of 30 training answers are longer than evaluate.max_new_tokens (8)" in caplog.text
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["relations"]) == ["birthplace"]
    assert results["dev"]["total"] == 5
