"""Recipes: what is shipped parses, and what cannot be run is refused in one line that says where and why."""

import dataclasses
from pathlib import Path

import pytest

from configuration.recipe import RecipeError, build_config, load_recipe
from modeling_minigpt import MiniGPTForCausalLM
from tests.running import MINIMAL_RECIPE

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configuration" / "recipes").glob("*.yaml"))
LARGE = {"wikipedia": 5_670_272, "wikipedia-1.5m": 45_815_424}  # parameters


LAUGHS = "a0: &a0 {k: 1}\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 30)
)


def recipe_file(folder: Path, text: str = MINIMAL_RECIPE) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_parse_and_build_their_model(path):
    overrides = ["data.path=somewhere"] if path.stem.startswith(("cs224n", "wikipedia")) else []
    recipe = load_recipe(path, overrides)
    assert recipe.output == f"runs/{path.stem}"
    model = MiniGPTForCausalLM(build_config(recipe, vocab_size=recipe.tokenizer.vocab_size or 256))
    assert model.num_parameters() <= LARGE.get(path.stem, 4_200_000)


def test_the_seed_recipe_is_the_practicals():
    recipe = load_recipe(ROOT / "configuration" / "recipes" / "cs224n-seed.yaml", ["data.path=somewhere"])
    assert MiniGPTForCausalLM(build_config(recipe, vocab_size=256)).num_parameters() == 3_323_392
    assert (recipe.corruption.policy, recipe.corruption.max_length) == ("random-span", 112)
    stages = recipe.pretrain, recipe.finetune, recipe.no_pretraining
    assert [(s.epochs, s.batch_size, s.learning_rate) for s in stages] == [
        (650, 128, 6e-3),
        (10, 256, 6e-4),
        (75, 256, 6e-4),
    ]


@pytest.mark.parametrize(("name", "people"), [("wikipedia", 100_000), ("wikipedia-1.5m", 1_500_000)])
def test_a_wikipedia_recipe_has_room_and_rows_for_what_its_comments_say(name, people):
    recipe = load_recipe(ROOT / "configuration" / "recipes" / f"{name}.yaml")
    assert recipe.data.max_people in (people, None)
    model = MiniGPTForCausalLM(build_config(recipe, vocab_size=recipe.tokenizer.vocab_size))
    blocks = sum(parameter.numel() for parameter in model.model.layers.parameters())
    assert blocks >= 12.5 * people  # a bit a parameter
    documents = recipe.pretrain.steps * recipe.pretrain.batch_size * (1 - recipe.pretrain.question_fraction)
    assert documents / people == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("variant", ["linformer", "bigbird", "performer", "selected", "gated_deltanet"])
@pytest.mark.parametrize("base", ["quickstart", "cs224n"])
def test_siblings_differ_from_their_base_in_attention_and_length_and_have_its_size(base, variant):
    folder, overrides = ROOT / "configuration" / "recipes", ["data.path=somewhere"]
    one = load_recipe(folder / f"{base}.yaml", overrides)
    other = load_recipe(folder / f"{base}-{variant.replace('_', '-')}.yaml", overrides)
    changed = {f.name for f in dataclasses.fields(one) if getattr(one, f.name) != getattr(other, f.name)}
    assert changed <= {"output", "model", "pretrain"}
    assert build_config(other).attention_type == variant
    sizes = [MiniGPTForCausalLM(build_config(recipe, vocab_size=2000)).num_parameters() for recipe in (one, other)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)
    assert all(name.startswith((variant, "attention_type")) for name in other.model.fields.keys() - one.model.fields)
    assert dataclasses.replace(other.pretrain, steps=one.pretrain.steps) == one.pretrain
    assert other.pretrain.steps <= one.pretrain.steps


def test_a_recipe_changes_its_base_key_by_key(tmp_path):
    recipe_file(tmp_path, MINIMAL_RECIPE + "output: there\nseed: 5\n").rename(tmp_path / "first.yaml")
    (tmp_path / "second.yaml").write_text("base: first\npretrain:\n  batch_size: 7\n")
    (tmp_path / "third.yaml").write_text("base: second\nseed: 6\n")
    recipe = load_recipe(tmp_path / "third.yaml", ["pretrain.learning_rate=1"])
    assert (recipe.pretrain.steps, recipe.pretrain.batch_size, recipe.pretrain.learning_rate) == (3, 7, 1.0)
    assert (recipe.seed, recipe.output) == (6, "runs/third")


def test_a_recipe_anywhere_changes_a_shipped_one(tmp_path):
    for name in ("mine", "quickstart"):  # the second is named like the one that it changes
        (tmp_path / f"{name}.yaml").write_text("base: quickstart\npretrain:\n  batch_size: 7\n")
        recipe = load_recipe(tmp_path / f"{name}.yaml")
        assert (recipe.pretrain.batch_size, recipe.data.people) == (7, 900)
    (tmp_path / "quickstart.yaml").write_text(MINIMAL_RECIPE)
    assert load_recipe(tmp_path / "mine.yaml").pretrain.steps == 3  # the one beside it comes first


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param(
            "base: recipee\n",
            "child.yaml:1: no recipe 'recipee' beside this one or shipped; did you mean recipe",
            id="name",
        ),
        pytest.param("base: 3\n", "child.yaml:1: no recipe '3'", id="type"),
        pytest.param("base:\n", "child.yaml:1: no recipe None", id="empty"),
        pytest.param("base: ../recipes/child\n", "child.yaml:1: no recipe '../recipes/child' beside", id="path"),
        pytest.param("seed: 1\nbase: child\n", "child.yaml:2: base child leads back", id="cycle"),
        pytest.param(
            "base: recipe\npretrain:\n  stepz: 3\n", "child.yaml:3: unknown key pretrain.stepz", id="child key"
        ),
        pytest.param("base: broken\n", "broken.yaml:4: unknown key pretrain.stepz", id="base key"),
        pytest.param("base: recipe\npretrain: 3\n", "child.yaml:2: pretrain must be a section", id="section"),
    ],
)
def test_a_bad_base_is_refused_with_its_file_and_line(tmp_path, text, wanted):
    recipe_file(tmp_path)
    (tmp_path / "broken.yaml").write_text(MINIMAL_RECIPE.replace("steps", "stepz"))
    (tmp_path / "child.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "child.yaml")
    assert wanted in str(caught.value)


def test_overrides_take_yaml_values_and_the_last_one_wins(tmp_path):
    overrides = ["pretrain.learning_rate=1e-4", "pretrain.steps=7", "pretrain.steps=9", "output=there", "seed=3"]
    recipe = load_recipe(recipe_file(tmp_path), overrides)
    assert (recipe.pretrain.learning_rate, recipe.pretrain.steps) == (1e-4, 9)
    assert (recipe.output, recipe.seed) == ("there", 3)


def test_an_exponent_without_a_point_and_a_whole_number_are_numbers(tmp_path):
    text = MINIMAL_RECIPE.replace("steps: 3", "steps: 3\n  learning_rate: 6e-3\n  gradient_clipping: 1")
    assert load_recipe(recipe_file(tmp_path, text)).pretrain.learning_rate == 0.006


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL_RECIPE.replace("\n", "\r\n").encode())
    assert load_recipe(path).pretrain.steps == 3


def test_model_fields_change_the_preset(tmp_path):
    recipe = load_recipe(recipe_file(tmp_path), ["model.hidden_size=64", "model.num_attention_heads=2"])
    config = build_config(recipe, vocab_size=300)
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (64, 256, 4)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        pytest.param(("steps: 3", "stepz: 3"), ":4: unknown key pretrain.stepz; did you mean steps?", id="key"),
        pytest.param(("pretrain:", "pretrane:"), ":3: unknown key pretrane; did you mean pretrain?", id="section"),
        pytest.param(("steps: 3", "steps: many"), ":4: pretrain:", id="type"),
        pytest.param(("steps: 3", "steps: 3\n  steps: 4"), ":5: pretrain.steps is given twice", id="twice"),
        pytest.param(("steps: 3", "steps: 3\n  epochs: 2"), "either steps or epochs", id="both lengths"),
        pytest.param(("steps: 3", "batch_size: 8"), "either steps or epochs", id="no length"),
        pytest.param(("steps: 3", "steps: 0"), "steps must be at least 1, found 0", id="no steps"),
        pytest.param(("steps: 3", "steps: 3\n  optimizer: sgd"), ":5: pretrain:", id="choice"),
        pytest.param(("steps: 3", "steps: 3\n  learning_rate: -1"), "must be above 0, found -1", id="range"),
        pytest.param(("vocab_size: 300", "vocab_size: null"), "vocab_size is not set", id="no vocabulary size"),
        pytest.param(("vocab_size: 300", "type: character\n  vocab_size: 3"), "vocabulary from the text", id="both"),
        pytest.param(("  steps: 3", "  - steps"), "pretrain must be a section", id="list"),
        pytest.param(("steps: 3", "steps: [3"), "not YAML", id="syntax"),
        pytest.param(
            ("steps: 3", "steps: 3\n  learning_rate: .inf"), "pretrain.learning_rate: wanted a finite", id="inf"
        ),
        pytest.param(
            ("steps: 3", "steps: 3\n  learning_rate: 1e999"), ":5: pretrain.learning_rate: wanted a", id="overflow"
        ),
        pytest.param(
            ("steps: 3", "steps: 3\n  weight_decay: 1.0e+18"),
            "weight_decay must be at most 1000000, found",
            id="decay",
        ),
        pytest.param(
            ("steps: 3", "steps: 3\n  learning_rate: 1e40"),
            "learning_rate must be at most 1e+30, found",
            id="too fast",
        ),
        pytest.param(("steps: 3", "steps: 3\n  beta2: 1.5"), r"beta2 must be in [0, 1), found 1.5", id="beta"),
        pytest.param(("steps: 3", "steps: 100000000000000000000"), "pretrain.steps: wanted a finite", id="huge"),
        pytest.param(("steps: 3", "steps: 10000000000"), "steps must be at most 1000000000, found", id="too long"),
        pytest.param(("steps: 3", "steps: 2001-99-99"), ":4: pretrain: Field 'steps'", id="no date"),
        pytest.param(("steps: 3", "steps: 3\n  1: 2"), "pretrain: a key must be a name, found 1", id="number as key"),
        pytest.param(("steps: 3", "steps: 3\n  ? [a]\n  : b"), ":5: a key must be a name", id="list as key"),
        pytest.param(("steps: 3", 'steps: 3\n  "a\\nb": 2'), "unknown key pretrain.a b", id="two lines"),
        pytest.param(("steps: 3", "steps: 3\n  <<: {stepz: 4}"), ":3: unknown key pretrain.stepz", id="merged key"),
        pytest.param(("steps: 3", "steps: &a [*a]"), ":4: contains itself", id="recursion"),
        pytest.param(("steps: 3", "steps: " + "[" * 900 + "]" * 900), "nested deeper than 16 levels", id="depth"),
        pytest.param(
            ("steps: 3", "steps: " + "[" * 30 + "]" * 30), ":4: nested deeper than 16 levels", id="some depth"
        ),
        pytest.param(("pretrain:", f"{LAUGHS}pretrain:"), "more than 10,000 values", id="aliases of aliases"),
        pytest.param(("pretrain:", "#" * 100_000 + "\npretrain:"), "longer than 100,000 bytes", id="length"),
        pytest.param(("pretrain:", 'output: "a\\0b"\npretrain:'), "output: 'a\\x00b' has a NUL", id="NUL"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line(tmp_path, change, wanted):
    path = recipe_file(tmp_path, MINIMAL_RECIPE.replace(*change))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert wanted in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        pytest.param("pretrain.stepz=3", "did you mean steps?", id="key"),
        pytest.param("pretrian.steps=3", "--set pretrian.steps=3: unknown key pretrian; did you mean", id="section"),
        pytest.param("pretrain.steps", "wanted section.key=value", id="no value"),
        pytest.param("a.b.c=1", "wanted section.key=value", id="too deep"),
        pytest.param("seed.x=1", "seed is not a section", id="not a section"),
        pytest.param("seed=-1", "seed must be a whole number", id="seed"),
        pytest.param("output=", "output must be a folder", id="output"),
        pytest.param("model.hidden_sise=3", "did you mean hidden_size?", id="model key"),
        pytest.param("model.vocab_size=3", "comes from the tokenizer", id="derived key"),
        pytest.param("model.hidden_size=30", "multiple", id="heads"),
        pytest.param("model.preset=minigtp", "did you mean minigpt", id="preset"),
        pytest.param("data.source=folder", "path is not set", id="no path"),
        pytest.param("corruption.policy=span", "random-span, salient-span", id="policy"),
        pytest.param("finetune.question_fraction=0", "this stage trains on questions", id="no questions"),
        pytest.param("base=quickstart", "wanted section.key=value", id="base"),
        pytest.param("no_pretraining.start_from=there", "starts from random weights", id="baseline start"),
        pytest.param("pretrain.question_fraction=1", "leaves no documents", id="no documents"),
        pytest.param("seed=4294967296", "seed must be a whole number from 0 to 2**32 - 1", id="large seed"),
        pytest.param("seed=\n- !!python/name:os.system", "not YAML", id="code"),
        pytest.param("pretrain.x\ny=1", "unknown key pretrain.x y", id="two lines"),
        pytest.param("pretrain.learning_rate=" + "9" * 400, "wanted a finite number", id="long number"),
        pytest.param("model.preset=../models/minigpt", "no preset '../models/minigpt'", id="preset elsewhere"),
        pytest.param("model.num_hidden_layers=1000000000", "num_hidden_layers must be at most 10000", id="layers"),
        pytest.param("model.hidden_size=1000000", "its weights take 192,0", id="memory"),
        pytest.param("model.bigbird_block=1000000000", "bigbird_block must be at most 1048576", id="block"),
        pytest.param("model.norm_eps=1.0e+9", "norm_eps must be in [0, 1e6]", id="eps"),
        pytest.param("model.rope_parameters={rope_theta: 0}", "rope_theta must be a number from 1", id="theta"),
        pytest.param(
            "model.rope_parameters={rope_theta: [1]}", "rope_theta must be a number from 1", id="theta's type"
        ),
        pytest.param(
            "model.rope_parameters={rope_type: yarn, factor: x}", "model.rope_parameters: {'rope_type'", id="factor"
        ),
        pytest.param("corruption.max_length=[1]", "max_length must be of type int, found [1]", id="corruption's type"),
        pytest.param("corruption.max_spans=1000000000", "max_spans must be in [1, 1000]", id="spans"),
        pytest.param("evaluate.batch_size=0", "batch_size must be at least 1, found 0", id="nothing at a time"),
        pytest.param("tokenizer.vocab_size=1000000000000", "vocab_size must be at most 1000000,", id="vocabulary"),
    ],
)
def test_a_bad_override_is_refused_in_one_line(tmp_path, override, wanted):
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file(tmp_path), [override])
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (
            ["data.source=lahman", "data.path=people.jsonl"],
            "--set data.path=people.jsonl: data: path is 'people.jsonl', but data.source is lahman, which has data of "
            "its own; to read the path, set data.source=jsonl, too",
        ),
        (["data.source=bios", "data.path=a/b"], "data.source is bios, which has data of its own"),
        (["data.columns.name=title"], "--set data.columns.name=title: data: columns is {'name': 'title'}, but data."),
        (
            ["data.max_people=3"],
            "data.source is synthetic, which does not read it; wanted data.source=jsonl or csv or lahman or hub or "
            "structured_wikipedia, or data.max_people=null",
        ),
        (["data.path=somewhere", "data.train_fraction=0.9"], "or data.train_fraction=0.5"),
        (["data.path=people.csv", "data.split=test"], "data.source is csv, which does not read it"),
        (["data.source=lahman", "data.statements=x"], "wanted data.source=structured_wikipedia, or"),
        (["data.source=synthetic", "data.path=there"], "to read the path, set data.source=folder, too"),
        (["data.places=500"], "data.source is synthetic, which does not read it; wanted data.source=bios, or data.pl"),
        (["data.source=bios", "data.wordings=9"], "wanted data.source=bios_uniform, or data.wordings=5"),
        (["data.names=all"], "--set data.names=all: data: names is 'all', but data.source is synthetic"),
        (["data.path=people.csv", "data.people=50"], "data.source is csv, which does not read it"),
        (["data.source=folder", "data.path=people.csv"], "path is a file (csv), but data.source is folder"),
    ],
)
def test_a_key_that_the_source_does_not_read_is_refused_with_both_names(tmp_path, overrides, wanted):
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file(tmp_path), overrides)
    assert wanted in str(caught.value)


def test_a_path_decides_a_source_that_was_given_before_it(tmp_path):
    invented = recipe_file(tmp_path, MINIMAL_RECIPE + "data:\n  source: synthetic\n  people: 50\n")
    divided = tmp_path / "divided.yaml"
    divided.write_text(f"base: {invented.stem}\ndata:\n  source: folder\n  path: {tmp_path}\n")

    def source(path, *overrides):
        return load_recipe(path, list(overrides)).data.source

    # What the recipe says of invented people does not count for others.
    found = [source(invented, f"data.path={path}") for path in (tmp_path, "people.csv", "somebody/people")]
    assert found == ["folder", "csv", "hub"]
    assert source(divided) == "folder"
    assert source(divided, "data.path=people.jsonl") == "jsonl"
    # A folder that is not there is no data set on the Hub.
    assert source(divided, "data.path=data/cs224n") == "folder"
    assert source(invented, "data.source=folder", "data.path=data/cs224n") == "folder"
    assert source(invented, "data.source=lahman") == "lahman"


def test_a_prepared_corpus_accepts_the_recipe_it_was_made_with(tmp_path):
    recipe = load_recipe(
        ROOT / "configuration" / "recipes" / "wikipedia.yaml", ["data.source=prepared", f"data.path={tmp_path}"]
    )
    assert (recipe.data.source, recipe.data.max_people) == ("prepared", 100_000)


@pytest.mark.parametrize("name", ["people.parquet", "people.jsonl.gz", "people.txt"])
@pytest.mark.parametrize("overrides", [[], ["data.source=folder"]], ids=["inferred", "folder"])
def test_a_file_of_an_unknown_kind_is_refused_with_the_kinds_that_are_read(tmp_path, name, overrides):
    path = tmp_path / name
    path.write_text("x")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file(tmp_path), [f"data.path={path}", *overrides])
    assert f"path is the file '{path}', wanted one that ends in .jsonl, .json, .csv, .tsv, or a folder" in str(
        caught.value
    )


def test_two_stages_cannot_both_start_from_a_model(tmp_path):
    with pytest.raises(RecipeError, match=r"both pretrain\.start_from and finetune\.start_from"):
        load_recipe(recipe_file(tmp_path), ["pretrain.start_from=a", "finetune.start_from=b"])


def test_characters_that_do_not_fit_the_context_are_refused(tmp_path):
    text = MINIMAL_RECIPE.replace("vocab_size: 300", "type: character") + "corruption:\n  max_length: 127\n"
    with pytest.raises(RecipeError, match=r"max_length \(127\).*max_position_embeddings \(128\)"):
        load_recipe(recipe_file(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"absent\.yaml: cannot be read"):
        load_recipe(tmp_path / "absent.yaml")
