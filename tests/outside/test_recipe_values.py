"""Values of recipes as people write them: read as meant, or refused in one line."""

import os
from pathlib import Path

import pytest

from configuration.recipe import RecipeError, load_recipe
from configuration.recipe_names import find_recipe
from tests.running import MINIMAL_RECIPE


def write_recipe(folder: Path, text: str = MINIMAL_RECIPE) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read_key(recipe, key: str):
    """Return the value of `section.key`."""
    section, _, name = key.partition(".")
    name, _, entry = name.partition(".")
    found = getattr(recipe, section)
    if not name:
        return found
    value = found.fields[name] if section == "model" and name != "preset" else getattr(found, name)
    return value[entry] if entry else value


AS_MEANT = [
    ("output", "runs/exp #2", "runs/exp #2"),
    ("output", "runs/a: b", "runs/a: b"),
    ("output", "010", "010"),
    ("output", "1:30", "1:30"),
    ("output", "2024-01-01", "2024-01-01"),
    ("output", "yes", "yes"),
    ("output", "[a]", "[a]"),
    ("output", "{a}", "{a}"),
    ("output", "*a", "*a"),
    ("output", "@a", "@a"),
    ("output", "!a", "!a"),
    ("output", "a's", "a's"),
    ("output", "'a' and 'b'", "'a' and 'b'"),
    ("output", "'runs/a b'", "runs/a b"),
    ("output", "a=b", "a=b"),
    ("data.path", "1_000", "1_000"),
    ("data.path", "C:\\data #1", "C:\\data #1"),
    ("data.path", "null", None),
    ("data.path", "None", None),
    ("data.path", "", None),
    ("pretrain.start_from", "user/1e3", "user/1e3"),
    ("evaluate.model", "true", "true"),
    ("run.mixed_precision", "no", "no"),
    ("model.attention_type", "[vanilla, bigbird, vanilla, bigbird]", ["vanilla", "bigbird", "vanilla", "bigbird"]),
    ("seed", "010", 10),
    ("seed", "0099", 99),
    ("seed", "+7", 7),
    ("seed", "1_000", 1000),
    ("seed", "7 # a comment", 7),
    ("pretrain.steps", "0012", 12),
    ("pretrain.learning_rate", "1e-3", 0.001),
    ("pretrain.learning_rate", "00.5", 0.5),
    ("pretrain.learning_rate", "010", 10.0),
    ("pretrain.title_loss", "no", False),
    ("pretrain.title_loss", "Off", False),
    ("model.qk_norm", "FALSE", False),
    (
        "model.rope_parameters",
        "{rope_theta: 1e4, rope_type: default}",
        {"rope_theta": 10000.0, "rope_type": "default"},
    ),
]


@pytest.mark.row("T18")
@pytest.mark.parametrize(("key", "text", "wanted"), AS_MEANT)
def test_an_override_is_read_as_it_is_meant(tmp_path, key, text, wanted):
    found = read_key(load_recipe(write_recipe(tmp_path), [f"{key}={text}"]), key)
    assert type(found) is type(wanted)
    assert found == wanted


@pytest.mark.row("T18")
@pytest.mark.parametrize(
    ("text", "key", "wanted"),
    [
        ("output: 010", "output", "010"),
        ("output: 2024-01-01", "output", "2024-01-01"),
        ("output: 1:30", "output", "1:30"),
        ("output: no", "output", "no"),
        ("output: 'null'", "output", "null"),
        ("seed: 010", "seed", 10),
        ("seed: 1_0", "seed", 10),
        ("data: {path: 12}", "data.path", "12"),
        ("data: {path: ~}", "data.path", None),
        ("run: {mixed_precision: no, compile: yes}", "run.mixed_precision", "no"),
        ("run: {mixed_precision: no, compile: yes}", "run.compile", True),
        ("model: {initializer_range: 1e-2}", "model.initializer_range", 0.01),
        ("evaluate: {model: 0x10}", "evaluate.model", "0x10"),
    ],
)
def test_a_file_s_values_are_read_by_their_fields_types(tmp_path, text, key, wanted):
    found = read_key(load_recipe(write_recipe(tmp_path, f"{MINIMAL_RECIPE}{text}\n")), key)
    assert type(found) is type(wanted)
    assert found == wanted


DICTIONARIES = ["data.columns.name", "data.properties.name", "evaluate.sets.name"]


@pytest.mark.row("T18")
@pytest.mark.parametrize("key", DICTIONARIES)
@pytest.mark.parametrize("text", ["0", "2024", "010", "1e3", "true", "no", "2024-01-01", "1:30", "'null'"])
def test_an_entry_of_a_dict_is_text_whatever_it_looks_like(tmp_path, key, text):
    section, name, entry = key.split(".")
    source = "data: {source: jsonl, path: a.jsonl}\n"
    own = f"{section}: {{{name}: {{{entry}: {text}}}}}"
    (tmp_path / "plain.yaml").write_text(MINIMAL_RECIPE + source)
    for recipe in (
        load_recipe(tmp_path / "plain.yaml", [f"{key}={text}"]),
        load_recipe(write_recipe(tmp_path, f"base: plain\n{own}\n")),
    ):
        assert read_key(recipe, f"{section}.{name}") == {entry: text.strip("'")}


@pytest.mark.row("T18")
@pytest.mark.parametrize("key", DICTIONARIES)
def test_null_removes_an_entry_of_a_dict(tmp_path, key):
    section, name, _ = key.split(".")
    path = write_recipe(tmp_path, f"{MINIMAL_RECIPE}{section}: {{{name}: {{name: a, text: b}}}}\n")
    files = ["data.source=jsonl", "data.path=a.jsonl"] if section == "data" else []
    assert read_key(load_recipe(path, [f"{key}=null", *files]), f"{section}.{name}") == {"text": "b"}


@pytest.mark.row("T18")
def test_an_entry_that_is_no_text_is_refused_with_its_own_name_and_line(tmp_path):
    path = write_recipe(tmp_path, f"{MINIMAL_RECIPE}data:\n  columns:\n    text: a\n    name: [b]\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:14: data\.columns\.name: found \['b'\], wanted a text"):
        load_recipe(path)
    path = write_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"--set data\.columns=.*: data\.columns\.name: found \{'a': "):
        load_recipe(path, ["data.columns={name: {a: b}}"])


NO_NUMBERS = [
    "1:30",
    "1:30:00",
    "0x10",
    "0o10",
    "0b11",
    "1e3",
    "3.0",
    "true",
    "yes",
    "1 000",
    "1,000",
    "\u0661",
    "'7'",
]


@pytest.mark.row("T18")
@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("key", ["seed", "pretrain.steps", "data.people"])
def test_what_is_no_whole_number_in_base_ten_is_refused(tmp_path, key, text):
    section, _, name = key.partition(".")
    line = f"{section}:\n  {name}: {text}" if name else f"{key}: {text}"
    steps = MINIMAL_RECIPE.replace("pretrain:\n  steps: 3\n", "") if section == "pretrain" else MINIMAL_RECIPE
    for path, overrides in (
        (write_recipe(tmp_path), [f"{key}={text}"]),
        (write_recipe(tmp_path, f"{steps}{line}\n"), []),
    ):
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, overrides)
        message = str(caught.value)
        assert message.startswith(f"--set {key}={text}: " if overrides else f"{path}:")
        assert name in message


@pytest.mark.row("T18")
@pytest.mark.parametrize(
    "key",
    [
        "output",
        "data.path",
        "prepare.folder",
        "pretrain.start_from",
        "finetune.start_from",
        "evaluate.model",
        "evaluate.sets.a",
    ],
)
def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch, key):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    section, _, name = key.partition(".")
    for text, wanted in (("~/a #1", tmp_path / "home" / "a #1"), ("~", tmp_path / "home"), ("a~b", Path("a~b"))):
        assert Path(read_key(load_recipe(write_recipe(tmp_path), [f"{key}={text}"]), key)) == wanted
    first, _, second = name.partition(".")
    value = f"{{{second}: ~/b}}" if second else "~/b"
    line = f"{section}: {{{first}: {value}}}" if name else "output: ~/b"
    file = write_recipe(tmp_path, f"base: plain\n{line}\n")
    (tmp_path / "plain.yaml").write_text(MINIMAL_RECIPE)
    assert read_key(load_recipe(file), key) == os.path.join(tmp_path, "home", "b")
    with pytest.raises(RecipeError, match=r"no home folder for ~nobody-here/b; write \./~nobody-here/b"):
        load_recipe(write_recipe(tmp_path), [f"{key}=~nobody-here/b"])


@pytest.mark.row("T18")
def test_statements_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe(find_recipe("wikipedia"), ["data.statements=~/statements", "data.path=~/articles"])
    assert recipe.data.statements == str(tmp_path / "statements")
    assert recipe.data.path == str(tmp_path / "articles")


@pytest.mark.row("T18")
def test_a_recipe_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_recipe(tmp_path)
    assert find_recipe("~/recipe.yaml") == path
