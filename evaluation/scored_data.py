"""What a run is scored on: whether it is the data that it was trained on, and its digests in the scoring record."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict

from artifacts.run_folder import ELSEWHERE, RunError, RunFolder, read_json
from configuration.schema import Recipe
from data_scripts.bios_folder import FILES, sha256_prefix
from data_scripts.corpus import RECORD
from data_scripts.questions import Question

READ_FROM_FOLDER = (*(FILES[key] for key in ("documents", "train", "validation")), RECORD)


def check_trained_on(folder: RunFolder, recipe: Recipe, inputs: dict) -> None:
    """Raise RunError where something was trained in a folder, on other data than a recipe scores there.

    Args:
        folder: of the run; one from before inputs were recorded is not compared.
        recipe: what is to be scored.
        inputs: digests of its data by name.
    """
    if not (folder.inputs.exists() and folder.recipe.exists()):
        return
    before = describe_data(read_json(folder.recipe), read_json(folder.inputs))
    now = describe_data(asdict(recipe), inputs)
    # Other names alone are other data; a name that only one side has may be newer than the run.
    if before.keys().isdisjoint(now) or any(before.get(name, value) != value for name, value in now.items()):
        raise RunError(
            f"output {folder.path}: was trained on other data ({', '.join(before)}) than {', '.join(now)} of this "
            f"recipe; set data as it was, or add --set evaluate.model={folder.stage('finetune')} --set "
            "output=NEW_FOLDER to score it on these"
        )


def describe_data(recipe: dict, inputs: dict) -> dict:
    """Return the digests of a run's data by name; where no file is read, what its invented people depend on.

    Args:
        recipe: as `recipe.json` has it.
        inputs: as `inputs.json` has them, with the weights that a stage started from.
    """
    digests = {name: digest for name, digest in inputs.items() if not name.endswith(".start_from")}
    if digests:
        return digests
    data = recipe.get("data") or {}
    return {"seed": recipe.get("seed"), **{f"data.{key}": data.get(key) for key in ("source", "people")}}


def digest_questions(questions: Iterable[Question]) -> str:
    """Return 16 digits that depend on every question and its answers, in their order."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps([question.relation, question.text, *question.answers]).encode())
    return digest.hexdigest()[:16]


def digest_files(recipe: Recipe) -> dict[str, str]:
    """Return digests of the local files that a recipe's `data.path` leads to; none where nothing is there any more.

    Those that are scored are among them. Nothing is prepared for this: it must be quick.
    """
    path = recipe.data.path
    if path is None:
        return {}
    if os.path.isfile(path):
        return {"data.path": sha256_prefix(path)}
    places = {name: os.path.join(path, name) for name in READ_FROM_FOLDER}
    return {name: sha256_prefix(place) for name, place in places.items() if os.path.isfile(place)}


def check_same_files(folder: RunFolder, recipe: Recipe, before: dict) -> None:
    """Raise RunError where a run's results are of other files than a recipe names; one that is gone is not compared.

    Args:
        folder: of the run.
        recipe: what is asked for now.
        before: the scoring record, which older runs have without files.
    """
    recorded = before.get("files", {})
    found = digest_files(recipe)
    for name, digest in found.items():
        if recorded and (recorded.get(name, digest) != digest or recorded.keys().isdisjoint(found)):
            raise RunError(f"{folder.results}: is of another {name} than {recipe.data.path} has now; {ELSEWHERE}")
