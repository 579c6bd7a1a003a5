"""Read a recipe: a YAML file of `configuration/recipes/`, `--set section.key=value` overrides, strict dataclasses.

A recipe may name another one, beside it or shipped, as its `base` and contain only what differs. Every complaint is
one line: the file and line (or the override), the key, what was found and the nearest valid name.
"""

import dataclasses
import json
import math
import os
import typing
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from configuration.data_schema import RelationArguments, default_relations
from configuration.field_bounds import PATH
from configuration.field_values import Plain, read_as, takes_text
from configuration.model_size import check_fits
from configuration.recipe_file import RecipeError, check_text, check_value, parse_value, parse_yaml, place_of
from configuration.recipe_names import RECIPES, nearest
from configuration.recipe_source import as_recipe_error, settle_source
from configuration.schema import DERIVED_MODEL_FIELDS, FILE_NAME_PART, NOT_SECTIONS, SECTIONS, Recipe
from modeling_minigpt import MiniGPTConfig
from modeling_minigpt.rotary_minigpt import MiniGPTRotaryEmbedding

MODELS_FOLDER = Path(__file__).parent / "models"
FIELD_TYPES: dict[tuple[str, ...], object] = {
    ("output",): str,
    ("seed",): int,
    **{(name, key): kind for name, cls in SECTIONS.items() for key, kind in typing.get_type_hints(cls).items()},
    **{("model", key): kind for key, kind in MiniGPTConfig.__annotations__.items()},
}
# Fields whose keys are the user's: each may be set by itself, as `data.columns.name=title`.
DICTIONARIES = [keys for keys, kind in FIELD_TYPES.items() if kind == dict[str, str]]
RELATION_TYPES = typing.get_type_hints(RelationArguments)
PATHS = {
    *((field.name,) for field in dataclasses.fields(Recipe) if field.metadata == PATH),
    *(
        (name, field.name)
        for name, cls in SECTIONS.items()
        for field in dataclasses.fields(cls)
        if field.metadata == PATH
    ),
}


def field_type(keys: tuple[str, ...]) -> object:
    """Return the type of a recipe's field, by its path of names; `Any` where it has none."""
    if keys[:1] == ("relations",) and len(keys) == 3:
        return RELATION_TYPES.get(keys[2], typing.Any)
    if keys[:2] in DICTIONARIES and len(keys) == 3:
        return str
    return FIELD_TYPES.get(keys, typing.Any)


def read_with_base(path: Path, children: tuple[Path, ...] = ()) -> tuple[dict, dict[tuple, str]]:
    """Read a recipe over its `base`, if it names one, section by section; `output` is each recipe's own."""
    values, places = parse_yaml(path)
    if "base" not in values:
        return values, places
    name = read_as(values.pop("base"), str)
    where = place_of(places, "base")
    # One beside this recipe comes before a shipped one of the same name.
    known = {recipe.stem: recipe for folder in (RECIPES, path.parent) for recipe in sorted(folder.glob("*.yaml"))}
    if not isinstance(name, str) or name not in known:
        names = [one for one, recipe in known.items() if recipe != path]
        raise RecipeError(f"{where}: no recipe {name!r} beside this one or shipped; {nearest(name, names)}")
    base = known[name]
    if base == path and base.parent != RECIPES and (RECIPES / base.name).is_file():
        base = RECIPES / base.name  # a recipe that is named like the shipped one that it changes
    if base in (path, *children):
        raise RecipeError(f"{where}: base {name} leads back to this recipe")
    inherited, inherited_places = read_with_base(base, (path, *children))
    inherited.pop("output", None)
    for key, value in values.items():
        both_sections = isinstance(value, dict) and isinstance(inherited.get(key), dict)
        inherited[key] = {**inherited[key], **value} if both_sections else value
    return inherited, {**inherited_places, **places}


def apply_overrides(values: dict, places: dict[tuple, str], overrides: list[str]) -> None:
    """Put `section.key=value` overrides over the file's values; the last one of a key wins."""
    for override in overrides:
        name, equals, text = override.partition("=")
        keys = tuple(name.strip().split("."))
        most = 3 if keys[0] == "relations" or keys[:2] in DICTIONARIES else 2
        if not equals or not all(keys) or len(keys) > most or keys[0] == "base":
            raise RecipeError(
                f"--set {override}: wanted section.key=value, relations.NAME.key=value, output=FOLDER or seed=NUMBER"
            )
        try:
            check_text(name, "the key")
            value = parse_override(keys, text.strip())
        except RecipeError as error:
            raise RecipeError(f"--set {override}: {error}") from error
        section = values
        for key in keys[:-1]:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise RecipeError(f"--set {override}: {key} is not a section")
        if len(keys) > 1 and keys[0] in ("output", "seed"):
            raise RecipeError(f"--set {override}: {keys[0]} is not a section")
        section[keys[-1]] = value
        places[keys] = f"--set {override}"


def parse_override(keys: tuple[str, ...], text: str) -> object:
    """Return an override's value: of a text field the text, `#` and all, without quotes around it; else as YAML.

    Raises:
        RecipeError: not YAML.
    """
    kind = field_type(keys)
    if not takes_text(kind) or (text.startswith("[") and kind == str | list[str]):
        return parse_value(text)[0]
    # What comes from a script may have the quotes that a shell would have removed.
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] and text.count(text[0]) == 2:
        return text[1:-1]
    # A tilde alone is YAML's null, but in a shell the home folder.
    return text if text == "~" and keys[:2] in PATHS else Plain(text)


def read_values(values: dict, places: dict[tuple, str]) -> dict:
    """Return the recipe's values, each read by its field's type; RecipeError, with the key, for what no recipe has."""

    def read(value: object, *keys: str) -> object:
        found = read_as(value, field_type(keys))
        place = place_of(places, *keys)
        try:
            check_value(found, ".".join(keys))
        except RecipeError as error:
            raise RecipeError(f"{place}: {error}") from error
        if keys[:2] in DICTIONARIES and len(keys) == 3 and not isinstance(found, str | None):
            raise RecipeError(f"{place}: {'.'.join(keys)}: found {found!r}, wanted a text")
        return expand_home(found, place) if keys[:2] in PATHS and isinstance(found, str) else found

    def read_all(value: object, depth: int, *keys: str) -> object:
        if not isinstance(value, dict) or (depth <= 0 and keys not in DICTIONARIES):
            return read(value, *keys)
        found = {str(key): read_all(part, depth - 1, *keys, str(key)) for key, part in value.items()}
        # `evaluate.sets.popqa=null` removes a set of the file, as `relations.hand=null` removes a relation.
        return {key: part for key, part in found.items() if part is not None} if keys in DICTIONARIES else found

    # A section has keys; below `relations` there is a section of keys for each name.
    depths = {**dict.fromkeys(SECTIONS, 1), "relations": 2}
    return {str(name): read_all(section, depths.get(name, 0), str(name)) for name, section in values.items()}


def expand_home(path: str, place: str) -> str:
    """Return a path with the home folder in place of its `~`; RecipeError where nobody has that name."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise RecipeError(f"{place}: no home folder for {path}; write ./{path} for a folder of that name")
    return expanded


def build_section(name: str, cls: type, values: dict, places: dict[tuple, str]):
    """Make the dataclass of one section, or raise RecipeError for an unknown key or a bad value."""
    keys = name.split(".")
    where = place_of(places, *keys)
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: {name} must be a section of `key: value`, found {values!r}")
    wanted = typing.get_type_hints(cls)
    for key in values:
        if key not in wanted:
            raise RecipeError(f"{place_of(places, *keys, key)}: unknown key {name}.{key}; {nearest(key, wanted)}")
    with as_recipe_error(name, values, places):
        return cls(**values)


def build_relations(values: dict, places: dict[tuple, str]) -> dict[str, RelationArguments]:
    """Make the relations of a recipe, or raise RecipeError for an unknown key or a bad value.

    Args:
        values: by name the keys of each relation; None in place of them removes a relation.
    """
    where = place_of(places, "relations")
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: relations must be sections of `key: value` by name, found {values!r}")
    relations = {
        name: build_section(f"relations.{name}", RelationArguments, keys, places)
        for name, keys in values.items()
        if keys is not None
    }
    if not relations:
        raise RecipeError(f"{where}: relations is empty; wanted at least one")
    asked: dict[str, str] = {}
    for name, arguments in relations.items():
        if not FILE_NAME_PART.fullmatch(name):  # it becomes a part of files' names
            raise RecipeError(
                f"{place_of(places, 'relations', name)}: relation {name!r}: wanted a name of letters, digits, _ and -"
            )
        for wording in arguments.relation(name).wordings:
            other = asked.setdefault(wording.casefold(), name)
            if other != name:
                raise RecipeError(
                    f"{place_of(places, 'relations', name)}: relations {other} and {name} both ask {wording!r}"
                )
    return relations


def split_model_section(values: dict, places: dict[tuple, str]) -> dict:
    """Separate the preset's name from the MiniGPTConfig fields that the recipe changes."""
    if not isinstance(values, dict):
        raise RecipeError(f"{place_of(places, 'model')}: model must be a section of `key: value`, found {values!r}")
    known = [f.name for f in dataclasses.fields(MiniGPTConfig) if f.name in MiniGPTConfig.__annotations__]
    for key in values:
        if key in DERIVED_MODEL_FIELDS:
            raise RecipeError(
                f"{place_of(places, 'model', key)}: model.{key} comes from the tokenizer and cannot be set"
            )
        if key not in ("preset", *known):
            raise RecipeError(
                f"{place_of(places, 'model', key)}: unknown key model.{key}; {nearest(key, ['preset', *known])}"
            )
    changed = dict(values)
    preset = changed.pop("preset", "minigpt")
    return {"preset": preset, "fields": changed}


def build_config(recipe: Recipe, **derived) -> MiniGPTConfig:
    """Return the model's config: the preset, the recipe's changes, and what the tokenizer decides (`derived`).

    Raises:
        RecipeError: no such preset, or values that MiniGPTConfig refuses.
    """
    path = MODELS_FOLDER / f"{recipe.model.preset}.json"
    names = sorted(preset.stem for preset in MODELS_FOLDER.glob("*.json"))
    if recipe.model.preset not in names:
        raise RecipeError(f"model.preset: no preset {recipe.model.preset!r}; {nearest(recipe.model.preset, names)}")
    try:
        config = MiniGPTConfig(
            **{**json.loads(path.read_text(encoding="utf-8-sig")), **recipe.model.fields, **derived}
        )
        check_fits(config)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:  # the libraries' too
        raise RecipeError(f"model: {error.__cause__ or error}") from error
    return config


def load_recipe(path: str | Path, overrides: list[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: `section.key=value` strings; the last one of a key wins.

    Raises:
        RecipeError: unreadable, not YAML, an unknown key, a value of the wrong type, or values that contradict.
    """
    path = Path(path)
    values, places = read_with_base(path)
    values.setdefault("relations", {name: dataclasses.asdict(one) for name, one in default_relations().items()})
    apply_overrides(values, places, list(overrides))
    values = read_values(values, places)
    given = settle_source(values.get("data"), places, path)
    for key in values:
        if key not in (*NOT_SECTIONS, *SECTIONS):
            known = ["base", *NOT_SECTIONS, *SECTIONS]
            where = next((place for keys, place in places.items() if keys[0] == key), "recipe")
            raise RecipeError(f"{where}: unknown key {key}; {nearest(key, known)}")
    output = values.get("output", f"runs/{path.stem}")
    seed = values.get("seed", 0)
    if not isinstance(output, str) or not output:
        raise RecipeError(f"{place_of(places, 'output')}: output must be a folder, found {output!r}")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise RecipeError(
            f"{place_of(places, 'seed')}: seed must be a whole number from 0 to 2**32 - 1, found {seed!r}"
        )
    if "model" in values:
        values["model"] = split_model_section(values["model"], places)
    sections = {name: build_section(name, cls, values.get(name, {}), places) for name, cls in SECTIONS.items()}
    for name in given:
        with as_recipe_error("data", values["data"], places):
            sections["data"].check_is_read(name)
    relations = build_relations(values["relations"], places)
    recipe = Recipe(output=output, seed=seed, relations=relations, **sections)
    check_contradictions(recipe, path)
    return recipe


def recipe_from_json(values: dict) -> Recipe:
    """Return the recipe that a run has written down; keys newer than the run have their defaults.

    Raises:
        RecipeError: it has a key that no recipe has any more, or a value that none may have.
    """
    relations = values.get("relations") or {name: dataclasses.asdict(one) for name, one in default_relations().items()}
    sections = {name: build_section(name, cls, values.get(name, {}), {}) for name, cls in SECTIONS.items()}
    return Recipe(values["output"], values["seed"], build_relations(relations, {}), **sections)


def check_rotation(config: MiniGPTConfig) -> None:
    """Raise RecipeError unless the library can make the rotary positions that the config asks for."""
    if config.position_embedding_type != "rotary":
        return
    try:
        rotation = MiniGPTRotaryEmbedding(config)
        finite = rotation.inv_freq.isfinite().all() and math.isfinite(rotation.attention_scaling)
    except Exception as error:  # as many kinds as there are scalings
        raise RecipeError(f"model.rope_parameters: {config.rope_parameters}: {error!r}") from error
    if not finite:
        raise RecipeError(f"model.rope_parameters: {config.rope_parameters} give no finite frequencies")


def check_contradictions(recipe: Recipe, path: Path) -> None:
    """Raise RecipeError where two sections of the recipe cannot both hold."""
    config = build_config(recipe, vocab_size=recipe.tokenizer.vocab_size or 256)
    check_rotation(config)
    context = config.max_position_embeddings
    longest = recipe.corruption.max_length + 2  # the sentinels
    if recipe.tokenizer.type == "character" and longest > context:
        raise RecipeError(
            f"{path}: corruption.max_length ({recipe.corruption.max_length}) and two sentinels do not fit "
            f"model.max_position_embeddings ({context}) characters"
        )
    for name in ("finetune", "no_pretraining"):
        if getattr(recipe, name).question_fraction == 0.0:
            raise RecipeError(f"{path}: {name}.question_fraction is 0, but this stage trains on questions")
    if recipe.no_pretraining.start_from is not None:
        raise RecipeError(f"{path}: no_pretraining.start_from is set, but this baseline starts from random weights")
    if recipe.pretrain.start_from and recipe.finetune.start_from:
        raise RecipeError(f"{path}: both pretrain.start_from and finetune.start_from are set; choose one")
    if recipe.pretrain.question_fraction == 1.0:
        raise RecipeError(f"{path}: pretrain.question_fraction is 1, which leaves no documents to pretrain on")
