"""What every key of a recipe means, read from the schema, and the page that lists them all.

python -m configuration.reference            # write docs/recipe.md
python -m configuration.reference --check    # exit 1 if the page does not say what the schema says
"""

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import types
import typing
from itertools import pairwise
from pathlib import Path

from configuration.data_schema import RelationArguments
from configuration.field_values import alternatives
from configuration.schema import DERIVED_MODEL_FIELDS, SECTIONS, ModelArguments
from modeling_minigpt import MiniGPTConfig

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"
HEAD = """\
# Every key of a recipe

Written from the schema by `python -m configuration.reference`. A recipe is a YAML file of sections; `--set
section.key=value` overrides a key. Besides the sections there are `output`, the folder for everything that the run
writes (by default `runs/` and the recipe's name), `seed` (by default 0), and `base`, another recipe whose values this
one overrides.

Text is taken literally, even with `#` and `:` in `--set`; numbers are in base ten; a flag is `true`, `yes`, `on` or
`false`, `no`, `off`; `null` unsets a value that may be None, or removes a relation or an entry of a dict. In a path,
`~` is the home folder.
"""


def describe_fields(section: type) -> dict[str, str]:
    """Read what each field of a class means: the docstring below it, or its entry in the class's docstring."""
    entries: dict[str, str] = {}
    documentation = inspect.cleandoc(section.__doc__ or "")  # Python 3.13 has removed the indentation already
    for names, text in re.findall(r"(?ms)^ {4}([\w, ]+): (.+?)(?=^ {4}\S|^\s*$|\Z)", documentation):
        for name in names.split(", "):
            entries[name] = " ".join(text.split())
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in pairwise(definition.body):
        # Python throws attribute docstrings away; they are read from the source.
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                entries[name] = " ".join(meaning.split())
    return entries


def name_type(annotation: object) -> str:
    """Write a field's type as a person would: the values of a Literal, the name of a class, "or" in a union."""
    names = []
    for kind in alternatives(annotation):
        if typing.get_origin(kind) is typing.Literal:
            names.append(", ".join(map(str, typing.get_args(kind))))
        elif kind is types.NoneType:
            names.append("None")
        else:
            names.append(kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind))
    return " or ".join(names)


def list_keys(section: type) -> list[tuple[str, str, str, str]]:
    """Return (key, type, default, meaning) of every field of a section."""
    meanings = describe_fields(section)
    types = typing.get_type_hints(section)
    rows = []
    for field in dataclasses.fields(section):
        has_factory = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if has_factory else field.default
        rows.append((field.name, name_type(types[field.name]), str(default), meanings.get(field.name, "")))
    return rows


def list_model_keys() -> list[tuple[str, str, str, str]]:
    """Return the same of the model section: the preset, and the fields of `MiniGPTConfig` that a recipe may change."""
    meanings = describe_fields(MiniGPTConfig)
    rows = [row for row in list_keys(ModelArguments) if row[0] == "preset"]
    for field in dataclasses.fields(MiniGPTConfig):
        if field.name in MiniGPTConfig.__annotations__ and field.name not in DERIVED_MODEL_FIELDS:
            kind = name_type(MiniGPTConfig.__annotations__[field.name])
            rows.append((field.name, kind, str(field.default), meanings.get(field.name, "")))
    return rows


def write_page() -> str:
    """Return the page: a table for each section."""
    parts = [HEAD]
    names: dict[type, list[str]] = {}  # the three stages have the same keys, and share a table
    for name, section in {"relations.NAME": RelationArguments, **SECTIONS}.items():
        names.setdefault(section, []).append(name)
    for section, those in names.items():
        name = "`, `".join(those)
        rows = list_model_keys() if section is ModelArguments else list_keys(section)
        summary = " ".join((section.__doc__ or "").split("\n\n")[0].split())
        lines = [f"| `{key}` | {kind} | `{default}` | {meaning} |" for key, kind, default, meaning in rows]
        parts.append(
            "\n".join(
                [
                    f"## `{name}`\n",
                    f"{summary}\n",
                    "| key | type | default | meaning |",
                    "| :-- | :-- | :-- | :-- |",
                    *lines,
                    "",
                ]
            )
        )
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    arguments = parser.parse_args(argv)
    if arguments.check:
        if PAGE.read_text(encoding="utf-8") == write_page():
            return 0
        print("docs/recipe.md is not what the schema says; run python -m configuration.reference", file=sys.stderr)
        return 1
    PAGE.write_text(write_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
