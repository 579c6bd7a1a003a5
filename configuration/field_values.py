"""Read a recipe's values by the types of their fields: text as it is, numbers in base ten, flags as people write them.

YAML decides by a scalar's looks alone: in YAML 1.1 `010` is 8, `1:30` is 90, `no` is false and `2024-01-01` a date,
whatever the field. Here a scalar without quotes stays a text until its field is known.
"""

import math
import re
import types
import typing

DIGITS = r"[0-9]+(?:_[0-9]+)*"
INTEGER = re.compile(rf"[-+]?{DIGITS}")
FLOAT = re.compile(rf"[-+]?(?:{DIGITS}\.?(?:{DIGITS})?|\.{DIGITS})(?:[eE][-+]?[0-9]+)?")
MAX_DIGITS = 400  # of a whole number; Python refuses to read thousands
NULLS = ("", "~", "null", "Null", "NULL", "None")  # the last is how the page of all keys writes it
FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NOT_FINITE = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}


class Plain(str):
    """A scalar without quotes: what it means depends on the type of its field."""


def resolve(text: str) -> object:
    """Return what a scalar without quotes means where no type is known: None, a flag, a number, or text."""
    if text in NULLS:
        return None
    if text.lower() in ("true", "false"):
        return FLAGS[text.lower()]
    if INTEGER.fullmatch(text):
        return int(text) if len(text) <= MAX_DIGITS else math.inf
    if FLOAT.fullmatch(text):
        return float(text)
    return NOT_FINITE.get(text.lower(), text)


def alternatives(wanted: object) -> tuple:
    """Return the types of a union; of another type, itself alone."""
    is_union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    return typing.get_args(wanted) if is_union else (wanted,)


def takes_text(wanted: object) -> bool:
    """Return whether a field takes any text, or one of several."""
    return any(kind is str or typing.get_origin(kind) is typing.Literal for kind in alternatives(wanted))


def read_as(value: object, wanted: object) -> object:
    """Return a value as its field's type reads it; what cannot be read so is left for the type's own check.

    Args:
        value: plain values, in which scalars without quotes are `Plain`.
        wanted: the field's type; `Any` where it has none.
    """
    kinds = alternatives(wanted)
    if isinstance(value, dict):
        return {str(key): read_as(part, typing.Any) for key, part in value.items()}
    if isinstance(value, list):
        parts = next((typing.get_args(kind) for kind in kinds if typing.get_origin(kind) is list), ())
        return [read_as(part, parts[0] if parts else typing.Any) for part in value]
    if isinstance(value, str) and float in kinds and FLOAT.fullmatch(value):
        number = float(value)
        return number if math.isfinite(number) or isinstance(value, Plain) else value
    if not isinstance(value, Plain):
        return value
    text = str(value)
    if takes_text(wanted):
        return None if text in NULLS else text
    if bool in kinds and text.lower() in FLAGS:
        return FLAGS[text.lower()]
    found = resolve(text)
    # Python takes a flag for a number, but nobody means `steps: true`.
    is_flag_for_number = isinstance(found, bool) and bool not in kinds and wanted is not typing.Any
    return text if is_flag_for_number else found
