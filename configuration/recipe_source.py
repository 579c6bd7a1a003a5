"""Which source a recipe's data have, where the recipe, its base and the command line say different things."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from configuration.data_schema import INHERITED, infer_source
from configuration.recipe_file import RecipeError, place_of


@contextmanager
def as_recipe_error(name: str, values: dict, places: dict[tuple, str]) -> Iterator[None]:
    """Raise what a section's dataclass raises as a RecipeError, with the place of the key that the message names."""
    try:
        yield
    except (StrictDataclassError, ValueError, TypeError) as error:
        keys = name.split(".")
        message = str(error.__cause__ or error)
        culprit = next(
            (place_of(places, *keys, key) for key in values if key in message.replace("'", " ").split()),
            place_of(places, *keys),
        )
        raise RecipeError(f"{culprit}: {name}: {message}") from error


def settle_source(data: object, places: dict[tuple, str], recipe: Path) -> list[str]:
    """Let a path that is given later than the source decide it: by `--set` over a recipe, or in it over its base.

    Of a path that is given with the source, or before it, nothing is inferred.

    Returns:
        Those of `INHERITED` that are given no earlier than what decides the source, which so has to read them.

    Raises:
        RecipeError: the path is a file of an unknown kind.
    """
    if not isinstance(data, dict):
        return []

    def rank(key: str) -> int:
        place = place_of(places, "data", key)
        return 2 if place.startswith("--set ") else int(place.startswith(f"{recipe}:"))

    decided = rank("source") if "source" in data else 0
    source = data.get("source", "synthetic")
    if isinstance(data.get("path"), str) and source in (None, "synthetic", "folder") and rank("path") > decided:
        decided = rank("path")
        with as_recipe_error("data", data, places):
            inferred = infer_source(data["path"])
        data["source"] = "folder" if (source, inferred) == ("folder", "hub") else inferred
    return [key for key in INHERITED if key in data and rank(key) >= decided]
