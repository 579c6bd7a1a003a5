"""Recipes: whatever the file and the overrides hold, a recipe or one line, at once, and nothing is written."""

import dataclasses
import json
import math
import re
import shutil
from contextlib import chdir
from pathlib import Path

import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

import train
from configuration.recipe import build_config, load_recipe
from configuration.recipe_file import RecipeError
from configuration.schema import SECTIONS, Recipe
from modeling_minigpt import MiniGPTConfig
from tests.fuzz.cases import NAMES_OUTSIDE, assert_one_line, cases, json_values, numbers, quickly, texts

VALID = {
    "tokenizer": {"vocab_size": 300},
    "pretrain": {"steps": 3},
    "finetune": {"epochs": 1, "question_fraction": 1.0},
    "no_pretraining": {"epochs": 1, "question_fraction": 1.0},
}
MODEL_FIELDS = [f.name for f in dataclasses.fields(MiniGPTConfig) if f.name in MiniGPTConfig.__annotations__]
FIELDS = [(name, f.name) for name, cls in SECTIONS.items() if name != "model" for f in dataclasses.fields(cls)]
FIELDS += [("model", name) for name in ("preset", *MODEL_FIELDS)]
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
NESTED_LAUGHS = "a0: &a0 {k: 1}\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 30)
)
MERGED_LAUGHS = "a0: &a0 {k: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30)
)
ODD = [
    LAUGHS, NESTED_LAUGHS, MERGED_LAUGHS, "[" * 600, "{a: " * 600, "- " * 600, "&a [*a]", "a: &a {b: *a}",
    "? [a]\n: b",
    "1: 2", "null: 3", "{}: 4", "!!python/object/apply:os.system ['touch evil']", "!!python/name:os.system",
    "a: !!binary x", "a: !!timestamp 2001-99-99", "2001-01-01: 2001-99-99", "a: 2001-01-01", "a: !!set {a, b}",
    "a: !!int x", "a: !!bool x", "a: !!float x", "a: !!omap [a]", "a: !!pairs [a]", "%YAML 9.9\n---\na: b",
    "--- a\n--- b",
    "<<: 3", "<<: [{seed: 1}, {seed: 2}]", "a: 1\na: 2", "a: *b", "a: 1:60:60", "a: " + "9" * 5000,
    "a: 0x" + "f" * 900,
    "output: \"a\\0b\"", "output: \"\\ud800\"", "output: " + "o" * 5000, "seed: 0b" + "1" * 90, "\ufeffseed: 1",
    "a\x00b",
    "pretrain: &p {steps: 3}\nfinetune: {<<: *p, question_fraction: 1}", "a: |\n  b\n c", "!!map [a]", "!<tag:x,1> a",
    "model: {rope_parameters: &r {a: *r}}", "seed: {<<: {a: 1}}", "pretrain: {<<: {stepz: 1}}", "= : =", "a: =",
]  # fmt: skip


def check(folder: Path, content: bytes, overrides: list[str] = ()) -> Recipe | None:
    """Load a recipe that must give a `Recipe` of finite, plain values, or one line; None for the latter."""
    path = folder / "recipe.yaml"
    path.write_bytes(content)
    try:
        with quickly():
            recipe = load_recipe(path, overrides)
    except RecipeError as error:
        assert_one_line(error)
        return None
    finally:
        assert [path.name for path in folder.iterdir()] == ["recipe.yaml"]
    json.dumps(dataclasses.asdict(recipe), allow_nan=False).encode("utf-8")
    assert all(math.isfinite(n) for n in dataclasses.astuple(recipe.pretrain) if isinstance(n, float))
    assert re.fullmatch("[a-z-]+", recipe.model.preset)
    assert build_config(recipe).num_hidden_layers <= 10_000
    return recipe


@cases(150)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_random_bytes(tmp_path, content):
    check(tmp_path, content)


def test_the_recipe_that_is_mutated_is_valid(tmp_path):
    assert check(tmp_path, yaml.safe_dump(VALID).encode())


@cases(150)
@given(
    parts=st.lists(st.sampled_from(ODD) | st.sampled_from([yaml.safe_dump(VALID), "\n", "  ", "---\n"]), max_size=3),
    at=st.integers(0, 200),
)
def test_odd_yaml(tmp_path, parts, at):
    text = "\n".join(parts)
    check(tmp_path, text.encode("utf-8", "surrogatepass"))
    check(tmp_path, text[:at].encode("utf-8", "surrogatepass"))


@cases(300)
@given(field=st.sampled_from(FIELDS), value=json_values)
def test_a_valid_recipe_with_one_other_value(tmp_path, field, value):
    section, key = field
    changed = {**VALID, section: {**VALID.get(section, {}), key: value}}
    recipe = check(tmp_path, dump(changed))
    if recipe and isinstance(value, float):
        assert math.isfinite(value)


@cases(100)
@given(key=st.sampled_from(["output", "seed", "base", *SECTIONS]) | texts, value=json_values, whole=st.booleans())
def test_a_valid_recipe_with_another_section(tmp_path, key, value, whole):
    changed = {key: value} if whole else {**VALID, key: value}
    check(tmp_path, dump(changed))


@cases(200)
@given(data=st.data())
def test_overrides_of_any_text(tmp_path, data):
    names = st.sampled_from([f"{section}.{key}" for section, key in FIELDS] + ["output", "seed", "base"]) | texts
    values = texts | numbers.map(repr) | st.sampled_from(ODD)
    override = st.builds(lambda name, value: f"{name}={value}", names, values) | texts
    check(tmp_path, yaml.safe_dump(VALID).encode(), data.draw(st.lists(override, min_size=1, max_size=2)))


@cases(60)
@given(name=st.sampled_from([*NAMES_OUTSIDE, "./minigpt", "../models/minigpt", "minigpt.json", "MINIGPT"]) | texts)
def test_no_preset_or_base_outside_its_folder_is_read(tmp_path, name):
    for changed in ({**VALID, "base": name}, {**VALID, "model": {"preset": name}}):
        if name not in ("minigpt", "minigpt-seed", "recipe"):
            assert check(tmp_path, dump(changed)) is None


def run_command(folder: Path, capfd, overrides: list[str]) -> str:
    """Run a command that must be refused, with status 2 and one line; return the line."""
    capfd.readouterr()
    sets = [f"data.path={folder / 'missing'}", *overrides]
    with quickly():
        status = train.main(["pretrain", f"--config={folder / 'recipe.yaml'}", *(f"--set={text}" for text in sets)])
    lines = capfd.readouterr().err.splitlines()
    assert status == 2
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


@cases(40)
@given(
    parts=st.lists(st.sampled_from(ODD) | texts, max_size=2),
    overrides=st.lists(st.sampled_from(["seed=.nan", "pretrain.steps=x", "output=\0", "a=b"]) | texts, max_size=2),
)
def test_the_command_refuses_a_bad_recipe_in_one_line_and_writes_nothing(tmp_path, capfd, parts, overrides):
    """No recipe of these is whole, so none gets so far as to make its output folder."""
    (tmp_path / "recipe.yaml").write_bytes("\n".join(parts).encode("utf-8", "surrogatepass"))
    run_command(tmp_path, capfd, [f"output={tmp_path / 'run'}", *overrides])
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@cases(40)
@given(output=texts)
def test_the_command_writes_in_its_output_folder_alone(tmp_path, capfd, output):
    """The data's folder is missing, so the command ends after it has made the output folder, if that can be."""
    assume(not re.search(r"^[/~'\"]|\n|\.\.", output) and output == output.strip())  # elsewhere, or changed
    (tmp_path / "recipe.yaml").write_bytes(dump(VALID))
    with chdir(tmp_path):
        run_command(tmp_path, capfd, [f"output={output}"])
        made = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "recipe.yaml"]
        assert all(path.is_relative_to(tmp_path / output) for path in made)
        shutil.rmtree(tmp_path / Path(output).parts[0]) if made else None


def dump(value: object) -> bytes:
    """Write a value as YAML, lone surrogates and all."""
    return yaml.safe_dump(value, allow_unicode=False).encode("utf-8", "surrogatepass")
