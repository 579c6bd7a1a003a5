"""The folder that a corpus is prepared in: which one may be written to, and what of it is removed.

A folder is a corpus's if it has a record, or one of what was begun. In any other nothing is written unless it is
empty, and nowhere anything is removed but files that the preparation writes: somebody's own `documents/` may be there.
"""

import json
import os
from pathlib import Path

from configuration.data_schema import INHERITED, READ_BY, DataArguments
from configuration.schema import Recipe
from data_scripts.bios_folder import DataError
from data_scripts.corpus import HELD_BACK, NAMES, RECORD, Corpus, read_record
from data_scripts.parquet_files import remove_shards, write_json

BEGUN = "begun.json"  # what the parts are of; written before them
LOCK = ".lock"
SHARDED = ("documents", "withheld_documents", "questions", "people")


def find_folder(recipe: Recipe, run_data: Path) -> Path:
    """Return the folder of a recipe's corpus: its own, or one that other runs share.

    Raises:
        DataError: it is where the data are, or has other files and no corpus.
    """
    shared = recipe.prepare.folder
    folder = Path(shared) if shared else run_data / "corpus"
    if recipe.data.path is not None and folder.exists():
        data = Path(recipe.data.path)
        place = data if data.is_dir() else data.parent
        if os.path.exists(data) and place.samefile(folder):
            raise DataError(f"{folder}: prepare.folder is where data.path ({data}) is; choose another prepare.folder")
    check_is_corpus(folder)
    return folder


def check_is_corpus(folder: Path) -> None:
    """Raise DataError where a folder has files and is no corpus's."""
    if not folder.is_dir() or (folder / RECORD).is_file() or (folder / "parts" / BEGUN).is_file():
        return
    # A kill may have come before anything was written down.
    found = sorted(path.name for path in folder.iterdir() if path.name != LOCK and not is_just_begun(path))
    if found:
        raise DataError(
            f"{folder}: found {', '.join(found[:3])}{' …' if len(found) > 3 else ''} and no corpus, wanted an empty "
            "folder or none; choose another prepare.folder"
        )


def is_just_begun(path: Path) -> bool:
    """Return whether this is a folder for parts that has at most an unfinished record in it."""
    return path.name == "parts" and path.is_dir() and all(one.name.startswith(f".{BEGUN}.") for one in path.iterdir())


def find_record(folder: Path, is_own: bool) -> dict | None:
    """Return a corpus's record; None where there is none, or an unreadable one in a folder that is a run's own.

    Raises:
        DataError: the record of a shared folder cannot be read.
    """
    try:
        return read_record(folder)
    except DataError:
        if not is_own:
            raise
        return None


def read_begun(folder: Path) -> dict | None:
    """Return what the parts in a corpus's folder are of; None where nothing is begun, or nobody can say what."""
    try:
        return json.loads((folder / "parts" / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def clear_unless_begun(folder: Path, begun: dict) -> None:
    """Remove the files of a corpus from its folder, except for parts of the same settings and inputs."""
    parts = folder / "parts"
    if read_begun(folder) != begun:
        remove_shards(parts)
        parts.mkdir(parents=True, exist_ok=True)
        write_json(parts / BEGUN, begun)  # before the old record goes: from here on the folder is known by this
    for name in (RECORD, "candidates.parquet", NAMES):
        (folder / name).unlink(missing_ok=True)
    for name in SHARDED:
        remove_shards(folder / name)


def remove_parts(folder: Path) -> None:
    """Remove the parts of a corpus that is whole."""
    (folder / "parts" / BEGUN).unlink(missing_ok=True)
    remove_shards(folder / "parts")


def check_settings(data: DataArguments, prepared: dict, folder: Path) -> None:
    """Raise DataError where a recipe sets what a corpus was prepared with otherwise; a default sets nothing.

    Args:
        data: the recipe's section.
        prepared: the same of the recipe that the corpus was made with.
        folder: the corpus's.
    """
    defaults = DataArguments()
    for key in (*HELD_BACK, *READ_BY):
        # What a path led to is in the corpus; and what a base recipe says for another kind of source is not asked for.
        if key in ("path", "statements") or (key in INHERITED and prepared.get("source") not in READ_BY[key]):
            continue
        default = getattr(defaults, key)
        wanted = getattr(data, key)
        found = prepared.get(key, default)  # of a key that may be newer than the corpus
        if wanted not in (default, found):
            raise DataError(f"{folder}: prepared with data.{key} {found!r}, which cannot be {wanted!r} any more")


def open_prepared(recipe: Recipe) -> Corpus:
    """Open the corpus that a recipe names as its path; DataError where it has not what the recipe asks for."""
    corpus = Corpus(Path(recipe.data.path))
    prepared = corpus.record["settings"]["data"]
    check_settings(recipe.data, prepared, corpus.folder)
    known = {relation.name: relation for relation in corpus.relations}
    for name, arguments in recipe.relations.items():
        if name not in known and not arguments.optional:
            raise DataError(f"{corpus.folder}: has no relation {name}; known: {', '.join(known)}")
        if name in known and known[name].question != arguments.question:
            raise DataError(
                f"{corpus.folder}: relations.{name}.question is {arguments.question!r}, but the corpus asks "
                f"{known[name].question!r}; set it to that, or prepare another corpus"
            )
    if not any(corpus.counts[name].get("train") for name in known if name in recipe.relations):
        raise DataError(
            f"{corpus.folder}: has no training question of {', '.join(recipe.relations)}; it asks for "
            f"{' and '.join(known) or 'nothing'}: set relations.NAME.question for one of those"
        )
    return corpus
