"""A recipe is named by its name or its file; a misspelt one is answered before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from configuration.recipe_file import RecipeError
from configuration.recipe_names import RECIPES, find_recipe

ROOT = Path(__file__).parents[2]


def test_a_bare_name_is_a_shipped_recipe_unless_a_file_has_it(tmp_path, monkeypatch):
    assert find_recipe("quickstart") == RECIPES / "quickstart.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("seed: 1\n")
    assert find_recipe("quickstart") == Path("quickstart")
    assert find_recipe(RECIPES / "cs224n.yaml") == RECIPES / "cs224n.yaml"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("quikstart", "quikstart: no such recipe; did you mean quickstart?"),
        ("recipes/cs224m.yaml", "recipes/cs224m.yaml: no such recipe; did you mean cs224n?"),
        ("zzz", "zzz: no such recipe; known: cs224n, "),
        ("x" * 5000, "no such recipe"),
        ("a\0b", "no such recipe"),
    ],
    ids=["name", "path", "nothing near", "long", "null"],
)
def test_a_recipe_that_is_not_there_gets_the_nearest_name(name, answer):
    with pytest.raises(RecipeError) as refusal:
        find_recipe(name)
    assert answer in str(refusal.value)


def run_train(words: list[str], before: str = "") -> subprocess.CompletedProcess:
    """Run train.py in a process of its own, after some lines; it ends by naming the heavy modules it imported."""
    script = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{before}\nimport train\nstatus = train.main({words!r})\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if sys.modules.get(name)])\nsys.exit(status)"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


def test_a_misspelt_name_is_answered_before_any_heavy_import():
    run = run_train(["all", "--config", "quikstart"])
    assert run.returncode == 2
    assert run.stderr == "error: quikstart: no such recipe; did you mean quickstart?\n"
    assert run.stdout == "[]\n"


def test_without_the_environment_a_line_says_what_to_do():
    run = run_train(["all", "--config", "quickstart"], before="sys.modules['transformers'] = None")
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("error: the Python module transformers is not installed; activate the environment")
