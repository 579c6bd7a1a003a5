"""The comparison of variants: one command measures all, continues, survives what fails, and reports what it found."""

import functools
import importlib.util
import inspect
import json
import sys

import pytest

from benchmarks import attention_subjects, compare, harness
from benchmarks.compare import Effort, RecallTraining, code_of, sizes_of
from benchmarks.compare_report import draw, report
from benchmarks.measurement import time_call
from data_scripts.bios_folder import FILES
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES

TINY = Effort(3, (64, 128, 256), 1, RecallTraining(256, 256, (0, 0, 1, 1, 1), 1))
MINE = """
from modeling_minigpt.attention_minigpt import VanillaAttention

class MineAttention(VanillaAttention):
    pass
"""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Measure as little as can be, in this process, with as few questions as the tiny data have."""
    monkeypatch.setattr(harness, "in_fresh_process", measured_here)
    monkeypatch.setattr(attention_subjects, "time_call", functools.partial(time_call, at_least=0.0))
    monkeypatch.setattr(compare, "FULL", TINY)
    monkeypatch.setattr(compare, "HELD_OUT", 5)


def measured_here(measure, *arguments):
    """Measure in this process, with errors as another process would return them."""
    return harness.catch_errors(measure, *arguments)


@pytest.fixture
def mine(monkeypatch, tmp_path):
    """Register a variant from a file, and return a function that rewrites the file."""
    path = tmp_path / "mine.py"

    def write(text):
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("mine", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "mine", module)
        spec.loader.exec_module(module)
        monkeypatch.setitem(ATTENTION_CLASSES, "mine", module.MineAttention)

    write(MINE)
    return write


@pytest.fixture
def measured(monkeypatch):
    """Return the points that are measured, as they come; what is found is invented."""
    points = []

    def invent(point, *_):
        points.append(str(point))
        found = [one for one in (*training("x", 0, 0.5, 0.5), *scaling("x", 1, [64])) if one["task"] == point.task]
        return found[0]["rounds"][0]

    monkeypatch.setattr(compare, "measure_accuracy", invent)
    monkeypatch.setattr(compare, "measure_point", invent)
    monkeypatch.setattr(compare.attention_recall, "measure", invent)
    return points


def run(recipe, data, output, *words):
    """Run the command on tiny data."""
    given = ["--data", str(data), "--recipe", str(recipe), "--output", str(output), "--threads", "1"]
    return compare.main([*given, *words])


def test_one_command_compares_and_no_dev_line_is_read(recipe, data, tmp_path, mine, capsys):
    output = tmp_path / "compare.json"
    dev = (data / FILES["validation"]).read_bytes()
    (data / FILES["validation"]).write_bytes(b"\xff")  # who reads it fails
    try:
        assert run(recipe, data, output, "--variants", "vanilla", "mine", "--seeds", "0", "1") == 0
    finally:
        (data / FILES["validation"]).write_bytes(dev)
    points = json.loads(output.read_text())["points"]
    assert len(points) == 2 * (3 + 3) + 2 * 2 * 2  # layers and decoding at three lengths; two trainings of two seeds
    assert not any("error" in found for point in points for found in point["rounds"])
    accuracies = [point["rounds"][0] for point in points if point["task"] == "accuracy"]
    assert {(found["split"], found["questions"]) for found in accuracies} == {("held_out", 5)}
    out = capsys.readouterr().out
    assert "20 of 20 points to measure, in about " in out
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    assert text in out
    for row in ("accuracy, %", "recall at any distance, %", "exponent of time", "decoding, ms per token, 256 tokens"):
        assert f"\n| {row} | " in text
    assert text.count("\n| :--") == 1  # one table
    assert str(data) not in text + output.read_text()
    page = output.with_suffix(".svg").read_text(encoding="utf-8")
    for label in ("vanilla", "mine", "peak memory, MiB per token", "recall in a context of 256 tokens"):
        assert f"<!-- {label} -->" in page


def test_an_interrupted_command_is_continued(recipe, data, tmp_path, mine, measured, monkeypatch, capsys):
    words = (recipe, data, tmp_path / "x.json", "--variants", "vanilla", "mine", "--lengths", "64")
    invent = compare.measure_accuracy

    def interrupt(point, plan):
        if point.subject == "mine":
            raise KeyboardInterrupt
        return invent(point, plan)

    monkeypatch.setattr(compare, "measure_accuracy", interrupt)
    assert run(*words) == 130
    assert len(measured) == 7
    monkeypatch.setattr(compare, "measure_accuracy", invent)
    measured.clear()
    assert run(*words) == 0
    assert measured == ["mine, accuracy, seed 0"]
    assert "1 of 8 points to measure" in capsys.readouterr().out
    measured.clear()
    assert run(*words) == 0
    assert measured == []
    assert run(*words, "--steps", "4") == 2
    assert "steps was 3, now 4" in capsys.readouterr().err


def test_a_variant_whose_file_has_changed_is_measured_again_and_no_other(
    recipe, data, tmp_path, mine, measured, capsys
):
    words = (recipe, data, tmp_path / "x.json", "--variants", "vanilla", "mine", "--lengths", "64")
    assert run(*words) == 0
    measured.clear()
    mine(MINE + "    # now it is another\n")
    assert run(*words) == 0
    assert len(measured) == 4
    assert all(point.startswith("mine, ") for point in measured)
    assert "mine: its file has changed" in capsys.readouterr().out


def test_a_file_that_changes_meanwhile_is_measured_again_by_the_next_command(
    recipe, data, tmp_path, mine, measured, monkeypatch
):
    words = (recipe, data, tmp_path / "x.json", "--variants", "mine", "--lengths", "64")
    invent = compare.measure_accuracy

    def edit(point, plan):
        mine(MINE + "    # edited while it was trained\n")
        return invent(point, plan)

    with monkeypatch.context() as patch:
        patch.setattr(compare, "measure_accuracy", edit)
        assert run(*words) == 0
    measured.clear()
    assert run(*words) == 0
    assert len(measured) == 4


def test_a_variant_that_fails_is_reported_and_loses_no_other(recipe, data, tmp_path, mine, capsys):
    mine(MINE + "    def forward(self, *arguments, **settings):\n        raise ValueError('not written yet')\n")
    output = tmp_path / "x.json"
    assert run(recipe, data, output, "--variants", "vanilla", "mine", "--lengths", "64") == 1
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| forward + backward, ms per token, 64 tokens")]
    assert row.endswith(" | fails |")
    assert not row.endswith("| fails | fails |")
    for what in ("layer, 64", "decode, 64", "people, seed 0", "accuracy, seed 0"):
        assert f"- mine, {what}: ValueError: not written yet" in text
    assert output.with_suffix(".svg").is_file()


def test_wrong_words_and_wrong_data_are_refused_in_one_line(recipe, data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(recipe, data, tmp_path / "x.json", "--variants", "magic")
    assert "'magic'" in capsys.readouterr().err
    for option in ("--steps", "--rounds", "--threads", "--lengths"):
        with pytest.raises(SystemExit):
            run(recipe, data, tmp_path / "x.json", "--variants", "vanilla", option, "0")
        assert f"argument {option}: must be at least 1, found 0" in capsys.readouterr().err
    assert run(recipe, tmp_path / "nowhere", tmp_path / "x.json", "--variants", "vanilla") == 2
    assert "no such folder" in capsys.readouterr().err
    assert run(recipe, data, tmp_path / "x.json", "--variants", "vanilla", "--set", "data.source=bios") == 2
    assert "data.source is bios, which has data of its own" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def plan_of(recipe, data=None, *overrides):
    """Return the plan of a recipe."""
    return compare.Plan(compare.find_recipe(recipe), overrides, data, None, TINY.recall, "cpu", 1, {})


def test_a_variant_is_trained_with_the_sizes_of_its_recipe_unless_the_user_sets_them(tmp_path):
    plan = plan_of("quickstart")
    assert sizes_of(plan, "bigbird") == ["model.bigbird_block=4", "model.bigbird_window=2"]
    assert sizes_of(plan, "vanilla") == sizes_of(plan, "window") == []
    sizes = sizes_of(plan, "bigbird")
    assert plan.load(tmp_path, sizes).model.fields["bigbird_block"] == 4
    # A recipe that needs a path gets the user's.
    assert sizes_of(plan_of("cs224n", None, f"data.path={tmp_path}"), "linformer")
    own = plan_of("quickstart", None, "model.bigbird_block=8")
    assert own.load(tmp_path, sizes).model.fields["bigbird_block"] == 8


def test_dev_questions_are_asked_of_invented_people_alone(data, tmp_path):
    assert plan_of("quickstart").load(tmp_path).data.validation_questions == 0
    assert plan_of("quickstart", data).load(tmp_path).data.validation_questions == 5
    assert plan_of("quickstart", data, "data.validation_questions=7").load(tmp_path).data.validation_questions == 7
    assert plan_of("quickstart", None, "data.source=bios_uniform").load(tmp_path).data.validation_questions == 0
    # What a prepared corpus holds out was decided when it was prepared.
    assert plan_of("quickstart", data, "data.source=prepared").load(tmp_path).data.validation_questions == 0


def test_a_new_line_in_the_list_of_variants_changes_no_other_variants_code(mine, monkeypatch):
    before = {name: code_of(name) for name in ("vanilla", "mine")}
    real = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda part: real(part) + "\n# new" * inspect.ismodule(part))
    assert code_of("vanilla") == before["vanilla"]
    assert code_of("mine") != before["mine"]


def training(variant, seed, accuracy, recall):
    """Return two invented points: 0 % of what is near is recalled, and a share of all else."""
    far = {"questions": 8, "recall": recall}
    parts = [{"above": 0, "to": 64, **far, "recall": 0.0}, {"above": 64, "to": 131, **far}]
    scored = {"settings": [], "split": "held_out", "questions": 40, "minutes": 2.0, "parameters": 1_500_000}
    return [
        {"subject": variant, "task": "accuracy", "seed": seed, "rounds": [{"accuracy": accuracy, **scored}]},
        {"subject": variant, "task": "people", "seed": seed, "rounds": [{"reads": [
            {"length": 128, "scaling": "none", **far, "by_distance": parts}]}]},
    ]  # fmt: skip


def scaling(variant, power, lengths=(512, 1024, 2048)):
    """Return invented points: time and memory follow a power of the length, decoding and the cache are constant."""
    points = []
    for length in lengths:
        one = {"seconds": 1e-6 * length**power, "bytes": 2**10 * length**power}
        constant = {"decode": {"seconds": 0.003, "bytes": 2**21}}
        points.append({"subject": variant, "task": "layer", "size": length, "rounds": [{"forward+backward": one}]})
        points.append({"subject": variant, "task": "decode", "size": length, "rounds": [constant]})
    return points


def content(*points, variants=("vanilla", "mine")):
    """Return invented results."""
    recall = {"length": 128, "tokens": 128, "steps": [1, 2, 3, 4, 5], "contexts": 1}
    return {
        "machine": {"device": "x", "threads": 1, "torch": "2"},
        **{"recipe": "quickstart", "overrides": ["a.b=1"], "data": {"name": "bios"}, "steps": 30, "recall": recall},
        "variants": list(variants),
        "points": [point for some in points for point in some],
    }


def rows_of(text):
    """Return the cells of each row of the one table, by its first."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in lines}


def test_the_table_has_the_numbers_of_the_results():
    trainings = [training("vanilla", seed, 0.4 + 0.1 * seed, 0.5) for seed in range(3)]
    trainings += [training("mine", seed, 0.41 + 0.11 * seed, 0.25 * seed) for seed in range(3)]
    text = report(content(*trainings, scaling("vanilla", 2), scaling("mine", 1)))
    rows = rows_of(text)
    assert rows["accuracy, %"] == ["50.0 ± 10.0", "52.0 ± 11.0"]
    assert rows["accuracy gain over vanilla, points ± 95 %"] == ["–", "+2.0 ± 2.5"]  # of +1, +2 and +3
    assert rows["parameters, M"] == ["1.50", "1.50"]
    assert rows["recall 1 to 64 tokens back, %"] == ["0.0 ± 0.0", "0.0 ± 0.0"]
    assert rows["recall over 64 tokens back, %"] == ["50.0 ± 0.0", "25.0 ± 25.0"]
    assert rows["forward + backward, ms per token, 512 tokens"] == ["0.512", "0.001"]
    assert rows["peak memory, MiB per token, 1,024 tokens"] == ["1", "0.000977"]
    assert rows["exponent of time"] == ["2.00 (2.00 to 2.00)", "1.00 (1.00 to 1.00)"]
    assert rows["decoding, ms per token, 2,048 tokens"] == ["3", "3"]
    assert rows["exponent of cache"] == ["0.00 (0.00 to 0.00)"] * 2
    assert "`quickstart a.b=1` on bios, 30 steps of pretraining on 40 held-out training questions" in text
    assert "Seeds: 0, 1, 2" in text


def test_a_failed_seed_is_counted_and_a_failed_length_has_no_exponent():
    lost = [{"subject": "mine", "task": "accuracy", "seed": 1, "rounds": [{"error": "killed"}]}]
    points = [training("vanilla", 0, 0.4, 0.5), training("mine", 0, 0.5, None), lost, scaling("mine", 1, (512, 1024))]
    broken = [{"subject": "mine", "task": "layer", "size": 2048, "rounds": [{"error": "out of memory"}]}]
    text = report(content(*points, broken))
    rows = rows_of(text)
    assert rows["accuracy, %"] == ["40.0", "50.0, 1 of 2 fail"]
    assert rows["accuracy gain over vanilla, points ± 95 %"] == ["–", "+10.0"]
    assert rows["recall at any distance, %"] == ["50.0", "–"]
    assert rows["forward + backward, ms per token, 2,048 tokens"] == ["–", "fails"]
    assert rows["exponent of time"] == ["–", "–"]
    assert "- mine, accuracy, seed 1: killed" in text
    assert "- mine, layer, 2,048: out of memory" in text


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [((512, 1000, 2000), "2.00 (2.00 to 2.00)"), ((1000, 2000, 5000), "2.00 (2.00 to 2.00)"), ((512, 1024), "–")],
)
def test_an_exponent_is_of_three_lengths_or_more_whatever_lies_between_them(lengths, wanted):
    assert rows_of(report(content(scaling("vanilla", 2, lengths))))["exponent of time"][0] == wanted


def test_only_the_variants_asked_for_are_shown():
    points = [training(variant, 0, 0.5, 0.5) for variant in ("vanilla", "window", "mine")]
    text = report(content(*points, variants=("mine", "vanilla")))
    assert "window" not in text
    assert rows_of(text)["quantity"] == ["mine", "vanilla"]


def test_the_page_of_plots_is_the_same_each_time_and_has_plain_labels(tmp_path):
    points = [training("vanilla", seed, 0.4 + seed / 10, 0.5) for seed in range(2)]
    found = content(*points, scaling("vanilla", 2), scaling("mine", 1))
    for name in ("one.svg", "two.svg"):
        draw(found, tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    for label in ("512", "1k", "2k", "vanilla", "mine", "decoding, ms per token"):
        assert f"<!-- {label} -->" in text
