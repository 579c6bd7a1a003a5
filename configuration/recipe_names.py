"""Find a recipe by its name or its path, before anything heavy is imported: a misspelt name is answered at once."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from configuration.recipe_file import RecipeError

RECIPES = Path(__file__).parent / "recipes"


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Suggest the valid name that is nearest to a wrong one, or list them all."""
    allowed = list(allowed)
    close = difflib.get_close_matches(str(name), allowed, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(allowed) or 'none'}"


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe: a path, or the bare name of one in `configuration/recipes/`.

    A file of that name wins over a shipped recipe.

    Raises:
        RecipeError: neither is there; with the nearest shipped name.
    """
    path = Path(os.path.expanduser(name))  # which a shell leaves alone in --config=~/recipe.yaml
    if os.path.isfile(path):  # unlike pathlib, False for a name that is too long
        return path
    shipped = RECIPES / f"{name}.yaml"
    if len(path.parts) == 1 and os.path.isfile(shipped):
        return shipped
    names = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
    # A long message loses its middle, so a long name may not take up all of the beginning.
    shown = str(name) if len(str(name)) <= 200 else f"{str(name)[:200]}…"
    raise RecipeError(f"{shown}: no such recipe; {nearest(path.stem, names)}")
