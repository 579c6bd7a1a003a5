"""One command draws every figure, the same bytes each time, and the page shows each of them."""

import json
import re
import subprocess
import sys

import pytest

from attention_lab import figures
from attention_lab.model_report import write_tables
from tests.running import ROOT

HERE = ROOT / "attention_lab"
OF_A_MODEL = [f"quickstart_{part}" for part in ("heads", "answer", "key_norms", "structure")] + ["recall_found"]


def test_what_is_on_paper_needs_no_torch():
    script = (
        "import sys, attention_lab.figures, attention_lab.heads, attention_lab.noise, attention_lab.routing\n"
        "sys.exit(', '.join({'torch', 'transformers', 'modeling_minigpt'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("name", ["copying", "stretched_key", "routing"])
def test_figures_are_the_same_bytes_each_time(name, tmp_path):
    for copy in ("one", "other"):
        assert figures.main(["--only", name, "--output", str(tmp_path / copy)]) == 0
    one, other = ((tmp_path / copy / "figures" / f"{name}.svg").read_bytes() for copy in ("one", "other"))
    assert one == other
    assert one.startswith(b"<?xml")
    assert len(one) < 150_000


@pytest.mark.parametrize("name", [*figures.FIGURES, *OF_A_MODEL])
def test_the_page_shows_every_figure(name):
    assert f"](figures/{name}.svg)" in (HERE / "README.md").read_text(encoding="utf-8")
    assert 5_000 < (HERE / "figures" / f"{name}.svg").stat().st_size < 150_000


def test_no_figure_is_left_over_and_every_link_leads_somewhere():
    drawn = {path.stem for path in (HERE / "figures").iterdir()}
    assert drawn == {*figures.FIGURES, *OF_A_MODEL}
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", (HERE / "README.md").read_text(encoding="utf-8")):
        assert (HERE / link).is_file(), link


def test_every_test_that_the_page_names_is_there():
    page = (HERE / "README.md").read_text(encoding="utf-8")
    written = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "attention_lab").glob("test_*.py")
    )
    named = re.findall(r"`(test_\w+)`", page)
    assert len(named) > 15
    assert not [name for name in named if f"def {name}(" not in written]


def test_the_tables_say_what_the_results_file_says():
    record = json.loads((HERE / "results" / "quickstart.json").read_text(encoding="utf-8"))
    assert write_tables("quickstart", record) == (HERE / "results" / "quickstart.md").read_text(encoding="utf-8")


def test_a_model_is_measured_and_drawn(toy, toy_folders, tmp_path):
    model, data = toy_folders
    words = ["--only", "averaging", "--model", model, "--data", data, "--name", "toy", "--output", tmp_path]
    assert figures.main([str(word) for word in words]) == 0
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"averaging.svg", *(f"toy_{part}.svg" for part in ("heads", "answer", "key_norms", "structure"))}
    record = json.loads((tmp_path / "results" / "toy.json").read_text())
    heads, structure = record["heads"], record["structure"]
    assert 0 < heads["questions"] <= len(toy.questions)
    assert len(heads["heads"]) == 8
    assert structure["low_rank_error"] == sorted(structure["low_rank_error"], reverse=True)
    for whole, far in zip(structure["low_rank_error"], structure["far_low_rank_error"], strict=True):
        assert far < whole
    for masses in (structure["bigbird_mass"], structure["bigbird_mass_uniform"]):
        assert masses["all"] == pytest.approx(masses["window"] + masses["global"] + masses["random"])
    assert "# The heads of `toy`" in (tmp_path / "results" / "toy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "somewhere"], "--model and --data go together"),
        (["--name", "../x"], "argument --name: must be a name without a folder, found '../x'"),
        (["--only", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_refusals_are_one_line(words, message, tmp_path, capsys):
    if "--only" not in words:
        words = [*words, "--only", "averaging"]
    with pytest.raises(SystemExit):
        figures.main([*words, "--output", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_a_model_that_knows_nothing_is_refused(toy, toy_folders, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for path in toy_folders[1].iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    (data / "birth_places_train.tsv").write_text("Where was Nobody Known born?\tNowhere at all\n")
    words = ["--only", "averaging", "--output", str(tmp_path), "--data", str(data), "--model"]
    assert figures.main([*words, str(toy_folders[0])]) == 2
    assert "knows none of 1 answers" in capsys.readouterr().err
    assert figures.main([*words, "nowhere"]) == 2
    assert "nowhere: no model that can be loaded" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line_before_anything_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "FIGURES", dict.fromkeys(figures.FIGURES))
    (tmp_path / "file").write_text("a file")
    assert figures.main(["--output", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'file' / 'figures'}: cannot be written to: ")
