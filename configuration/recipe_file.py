"""Read one YAML file of a recipe into plain values, and refuse what no recipe has.

A hostile file is small and grows when read: aliases of aliases, nesting, numbers of a million digits. So the size, the
depth and the values, aliases unfolded, are limited before any of them is made.
"""

import math
import re
from pathlib import Path

import yaml

from configuration.errors import UserError
from configuration.field_values import Plain, resolve

# Of a recipe, checked before anything is made of it; the shipped ones have 2 kB, 60 values and 3 levels.
MAX_BYTES = 100_000
MAX_VALUES = 10_000
MAX_DEPTH = 16
LARGEST = 2**63 - 1  # no whole number of a recipe is larger


class RecipeError(UserError, ValueError):
    """A recipe that cannot be run; the message is one line for the user."""


class RecipeLoader(yaml.SafeLoader):
    """Read mappings, lists and texts; scalars without quotes stay `Plain`. Any other tag is refused."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<"))]}
    yaml_constructors = {}


def construct_text(loader: RecipeLoader, node: yaml.ScalarNode) -> str:
    """Return a scalar's text, marked where it has no quotes."""
    text = loader.construct_scalar(node)
    return Plain(text) if node.style is None else text


RecipeLoader.add_constructor("tag:yaml.org,2002:str", construct_text)
RecipeLoader.add_constructor("tag:yaml.org,2002:map", RecipeLoader.construct_yaml_map)
RecipeLoader.add_constructor("tag:yaml.org,2002:seq", RecipeLoader.construct_yaml_seq)
RecipeLoader.add_constructor(None, RecipeLoader.construct_undefined)


def key_lines(node: yaml.Node, prefix: tuple = ()) -> dict[tuple, int]:
    """Map each key of a composed YAML mapping, as a path of names, to its line number."""
    lines = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"line {line}: a key must be a name, found a list or a section")
            if key.style is None and not isinstance(found := resolve(key.value), str):
                raise RecipeError(
                    f"line {line}: {'.'.join(prefix) or 'the recipe'}: a key must be a name, found {found}"
                )
            check_text(key.value, ".".join(prefix) or "the recipe")
            path = (*prefix, key.value)
            if path in lines and key.value != "<<":  # a merge, of which there may be several
                raise RecipeError(f"line {line}: {'.'.join(path)} is given twice")
            lines[path] = line
            lines.update(key_lines(value, path))
    return lines


def check_growth(node: yaml.Node, known: dict[int, int] | None = None, depth: int = 0) -> int:
    """Return how many values a composed node has, its aliases unfolded.

    Raises:
        RecipeError: more than `MAX_VALUES`, deeper than `MAX_DEPTH`, or a node that contains itself.
    """
    known = {} if known is None else known
    line = node.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise RecipeError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
    if id(node) not in known:
        known[id(node)] = 0  # being counted
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        flat = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(check_growth(part, known, depth + 1) for part in flat)
    elif not known[id(node)]:
        raise RecipeError(f"line {line}: contains itself")
    if known[id(node)] > MAX_VALUES:
        raise RecipeError(f"line {line}: more than {MAX_VALUES:,} values")
    return known[id(node)]


def check_text(text: str, name: str) -> None:
    """Raise RecipeError where a text cannot be written as UTF-8, or has a NUL, which no path may."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise RecipeError(f"{name}: {text!r} has a NUL or half of a surrogate pair, which no text may have")


def check_value(value: object, name: str) -> None:
    """Raise RecipeError, with the key's name, where a value has what is not text, or a number that is not finite."""
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            check_value(part, name)
    elif isinstance(value, str):
        check_text(value, name)
    elif value is not None and not (abs(value) <= LARGEST if isinstance(value, int) else math.isfinite(value)):
        raise RecipeError(f"{name}: wanted a finite number of at most {LARGEST}")


def parse_value(text: str) -> tuple[object, dict[tuple, int]]:
    """Return a YAML text's value, in which scalars without quotes are `Plain`, and the line of each key.

    Raises:
        RecipeError: not YAML, or what no recipe has; the message may begin with the line.
    """
    loader = None
    try:
        loader = RecipeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        check_growth(node)
        lines = key_lines(node)
        value = loader.construct_document(node)
    except RecipeError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise RecipeError(f"{where}not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise RecipeError(f"nested deeper than {MAX_DEPTH} levels") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # PyYAML's own, of an odd tag
        raise RecipeError(f"not YAML: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()
    return value, lines


def parse_yaml(path: Path) -> tuple[dict, dict[tuple, str]]:
    """Return the file's mapping, and the place of each key: `file:line`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(f"{path}: longer than {MAX_BYTES:,} bytes")
        text = content.decode("utf-8-sig")
    except RecipeError:
        raise
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: byte {error.start + 1} is not UTF-8 text") from error
    except (OSError, ValueError) as error:  # the latter for a NUL in the name
        raise RecipeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        values, lines = parse_value(text)
    except RecipeError as error:
        message = str(error)
        place = message.removeprefix("line ")
        raise RecipeError(f"{path}:{place}" if place != message else f"{path}: {message}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: found {type(values).__name__}, wanted sections of `key: value`")
    return values, {key: f"{path}:{line}" for key, line in lines.items()}


def place_of(places: dict[tuple, str], *keys: str) -> str:
    """Return the file and line of a key; of its section where those are unknown, as for merged keys.

    A dict whose entries were set one by one has the place of its last entry.
    """
    entries = [place for path, place in places.items() if path[: len(keys)] == keys]
    if keys not in places and entries:
        return entries[-1]
    return next((places[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in places), "recipe")
