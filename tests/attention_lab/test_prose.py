"""The README says of the trained model what its results file says."""

import pytest

from attention_lab import prose


@pytest.fixture
def record():
    return prose.read_results()


def test_the_readme_says_what_the_results_say():
    assert prose.main(["--check"]) == 0, "run: python -m attention_lab.prose"


def test_other_results_are_other_sentences(record, monkeypatch, tmp_path):
    record["heads"]["change_without_copying"] = -9.9
    record["structure"]["low_rank_error"][3] = 0.123
    record["found"]["recall_by_blocks"]["8"] = 0.77
    text = prose.write_readme(prose.README.read_text(encoding="utf-8"), record)
    assert "without all five 9.9" in text
    assert "rank 8 is 12 % off" in text
    assert "answer 77 % with 8" in text
    monkeypatch.setattr(prose, "README", tmp_path / "README.md")
    prose.README.write_text(text, encoding="utf-8")
    assert prose.main(["--check"]) == 1
    assert prose.main([]) == 0
    assert prose.main(["--check"]) == 0


def test_a_page_without_marks_is_refused(record):
    with pytest.raises(ValueError, match="one <!-- heads: begin -->"):
        prose.write_readme("# A page", record)
