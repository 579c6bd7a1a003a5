"""The report of the recall benchmark: means over seeds, each length read, and a figure, from results alone."""

from benchmarks.recall_report import draw, report

MACHINE = {"device": "x", "threads": 2, "torch": "2"}


def read(length, recall, scaling="none", questions=40):
    """Return an invented score: a range with nothing in it, then all questions."""
    found = {"questions": questions, "recall": recall}
    empty = {"questions": 0, "recall": None}
    parts = [{"above": 0, "to": 64, **empty}, {"above": 64, "to": length + 3, **found}]
    return {"length": length, "scaling": scaling, **found, "by_distance": parts}


def point(subject, reads, seed=0, task="people"):
    """Return an invented point."""
    return {"subject": subject, "task": task, "seed": seed, "rounds": [{"loss": 0.5, "reads": reads}]}


def timing(subject, *milliseconds):
    """Return the invented times of a subject, of one round each."""
    return {"subject": subject, "rounds": [{"milliseconds": value} for value in milliseconds]}


def content(*points):
    """Return invented results of a model trained on 128 tokens."""
    return {"machine": MACHINE, "length": 128, "steps": [1, 2, 3, 4, 5], "tokens": 128, "points": list(points)}


def row(text, heading, label):
    """Return the cells of a row below a heading."""
    table = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_several_seeds_give_the_mean_and_range_and_one_its_interval():
    text = report(
        content(
            point("vanilla", [read(128, 0.8)], seed=0),
            point("vanilla", [read(128, 0.9)], seed=2),
            point("window", [read(128, 0.25)], seed=0),
            timing("vanilla", 0.1, 0.2, 0.5),
        )
    )
    heading = "people: a context of 128 tokens"
    both = "85.0 % (80.0–90.0)"
    assert row(text, heading, "vanilla") == ["–", both, both, "0.50", "0.200"]
    assert row(text, heading, "window") == ["–", "25.0 % (14.2–40.2)", "25.0 % (14.2–40.2)", "0.50", "–"]
    assert row(text, heading, "questions") == ["0", "40", "40", "", ""]
    assert "Seeds: 0, 2." in text
    assert "15 steps of 128 tokens" in text
    assert "**people**: one place a person, a guess is right for 3.1 %" in text
    assert "by the length" not in text


def test_each_length_has_a_table_and_a_scaled_rotation_has_a_row():
    reads = [read(128, 0.8), read(512, 0.1, questions=50), read(512, 0.6, "yarn", questions=50)]
    text = report(content(point("vanilla", reads, task="similar"), point("window", reads, task="similar")))
    assert row(text, "similar: a context of 512 tokens", "vanilla")[-1] == "10.0 % (4.3–21.4)"
    assert row(text, "similar: a context of 512 tokens", "vanilla, yarn")[-1] == "60.0 % (46.2–72.4)"
    assert row(text, "similar: a context of 512 tokens", "questions") == ["0", "50", "50"]
    by_length = "similar: by the length of the context"
    assert row(text, by_length, "vanilla") == ["80.0 % (65.2–89.5)", "10.0 % (4.3–21.4)"]
    assert row(text, by_length, "vanilla, yarn") == ["–", "60.0 % (46.2–72.4)"]
    order = [line.split(" | ")[0] for line in text.split(by_length)[1].splitlines() if line.startswith("| ")]
    assert order == ["| recall", "| :--", "| vanilla", "| vanilla, yarn", "| window", "| window, yarn"]
    assert "people" not in text


def test_tasks_are_apart():
    text = report(content(point("vanilla", [read(128, 0.8)]), point("vanilla", [read(128, 0.2)], task="mqar")))
    assert row(text, "people: a context of 128 tokens", "vanilla")[1] == "80.0 % (65.2–89.5)"
    assert row(text, "mqar: a context of 128 tokens", "vanilla")[1] == "20.0 % (10.5–34.8)"


def test_the_figure_has_every_subject_and_scaling_and_is_the_same_each_time(tmp_path):
    reads = [read(128, 0.8), read(512, 0.1), read(512, 0.6, "yarn")]
    several = content(
        point("vanilla", reads),
        point("vanilla", reads, seed=1),
        point("untimed", reads, task="mqar"),
        point("unscored", [read(128, None, questions=0)], task="mqar"),
        timing("vanilla", 0.2),
        timing("unscored", 0.1),
    )
    for name in ("one.svg", "two.svg"):
        draw(several, tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    for label in ("vanilla", "vanilla, yarn", "untimed, yarn", "people: recall, %", "a context of 512 tokens"):
        assert f"<!-- {label} -->" in text
