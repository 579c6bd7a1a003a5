"""Prepare a corpus: from whatever source a recipe names to the one layout that training and scoring read.

1. Each part of the source becomes a file, in any number of tasks (`source_parts`).
2. From all people it is decided who is left out and who is in which split (`person_splits`).
3. The corpus is written, and its record last (`corpus_writer`).

A launch after a kill continues with the parts that are missing. What is there already, of the same settings and
inputs, is opened.
"""

import json
import logging
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from configuration.data_schema import INVENTED_SOURCES
from configuration.file_system import locked
from configuration.schema import Recipe
from data_scripts.bios_folder import FILES, DataError, check_files, sha256
from data_scripts.corpus import RECORD, Corpus, describe_relations
from data_scripts.corpus_folder import LOCK, clear_unless_begun, find_folder, find_record, open_prepared, remove_parts
from data_scripts.corpus_writer import CorpusWriter, write_people_corpus
from data_scripts.divided_files import write_divided_corpus, write_scored_questions
from data_scripts.executors import run_for_all
from data_scripts.parquet_files import read_metadata, shard_path, write_json
from data_scripts.person_splits import People
from data_scripts.source_parts import Dropped, write_part
from data_scripts.sources.base import Source
from data_scripts.sources.bios import BiosSource
from data_scripts.sources.bios_uniform import BiosUniformSource
from data_scripts.sources.downloads import describe_downloads
from data_scripts.sources.hub import HubSource
from data_scripts.sources.lahman import LahmanSource
from data_scripts.sources.structured_wikipedia import StructuredWikipediaSource
from data_scripts.sources.tables import CsvSource, JsonlSource
from data_scripts.synthetic_bios import invent
from modeling_minigpt.relations_minigpt import Relation

VERSION = 1  # of the layout
DIVIDED = ("folder", "synthetic")  # sources that are four files, of which training reads two
REMOTE = ("hub", "structured_wikipedia")  # whose path is an address, not a place of files that may be moved
INVENTED = {"bios": BiosSource, "bios_uniform": BiosUniformSource}
SOURCES = {
    "jsonl": JsonlSource,
    "csv": CsvSource,
    "lahman": LahmanSource,
    "hub": HubSource,
    "structured_wikipedia": StructuredWikipediaSource,
}

logger = logging.getLogger(__name__)


def relations_of(recipe: Recipe) -> dict[str, Relation]:
    """Return a recipe's relations by name, the main one first."""
    return {name: arguments.relation(name) for name, arguments in recipe.relations.items()}


def settings_of(recipe: Recipe) -> dict:
    """Return all of a recipe that the corpus depends on, as JSON has it."""
    data = asdict(recipe.data)
    if recipe.data.source not in REMOTE:
        data["path"] = None  # what the files contain counts, not where they are
    if recipe.data.source != "bios_uniform":
        del data["wordings"]  # a corpus of before there was this key is still the same
    is_invented = recipe.data.source in INVENTED_SOURCES
    settings = {
        "version": VERSION,
        "data": data,
        "relations": {name: asdict(arguments) for name, arguments in recipe.relations.items()},
        "seed": recipe.seed if is_invented else None,
    }
    return json.loads(json.dumps(settings))


def find_source(recipe: Recipe) -> Source | None:
    """Return the source of people; None where a recipe's data are divided files."""
    relations = tuple(relations_of(recipe).values())
    if recipe.data.source in INVENTED:
        return INVENTED[recipe.data.source](recipe.data, relations, recipe.seed)
    cls = SOURCES.get(recipe.data.source)
    return None if cls is None else cls(recipe.data, relations)


def find_files(recipe: Recipe, run_data: Path) -> Path:
    """Return the folder of divided files; invented ones are written to `run_data` first."""
    if recipe.data.source == "folder":
        return Path(recipe.data.path)
    folder = run_data / f"synthetic-{recipe.data.people}-{recipe.seed}"
    if not all((folder / name).is_file() for name in FILES.values()):
        partial_folder = folder.with_name(f".{folder.name}.partial")
        invent(recipe.data.people, recipe.seed).write(partial_folder)
        shutil.rmtree(folder, ignore_errors=True)
        partial_folder.replace(folder)  # a kill leaves no file that is cut short
    return folder


def digest_files(files: Path, keys: Iterable[str]) -> dict[str, str]:
    """Return digests of some of a folder's divided files, by name; DataError where one is missing."""
    check_files(files)
    paths = [files / FILES[key] for key in keys]
    return {path.name: sha256(path) for path in paths if path.is_file()}


def prepare(recipe: Recipe, run_data: Path, scored: bool = False) -> Corpus:
    """Return a recipe's corpus, prepared where it is not there yet; of runs that share its folder, one prepares it.

    Args:
        recipe: what to prepare, and how.
        run_data: the run's folder for data, where the recipe names no other.
        scored: whether the files of questions that are scored are opened, too: training does without them.

    Raises:
        DataError: the source cannot be used, or the recipe's folder has a corpus of something else, or other files.
    """
    if recipe.data.source == "prepared":
        return open_prepared(recipe)
    folder = find_folder(recipe, run_data)
    source = find_source(recipe)
    files = find_files(recipe, run_data) if source is None else None
    corpus = find_prepared(recipe, source, files, folder, scored)
    if corpus is not None:
        return corpus
    if not recipe.prepare.folder:  # the run's own, which has locked all of its folder
        return write_corpus(recipe, source, files, folder, scored)
    with locked(folder / LOCK):
        # Another run may have prepared it while this one waited.
        corpus = find_prepared(recipe, source, files, folder, scored)
        return corpus or write_corpus(recipe, source, files, folder, scored)


def find_prepared(
    recipe: Recipe, source: Source | None, files: Path | None, folder: Path, scored: bool
) -> Corpus | None:
    """Return the corpus in a folder; None where it is to be prepared, perhaps without its scored questions.

    Args:
        recipe: what to prepare.
        source: of people, or None.
        files: the folder of divided files where there is no such source.
        folder: the corpus's.
        scored: as `prepare`.

    Raises:
        DataError: the folder is shared and has a corpus of something else; the corpus is not whole.
    """
    if not has_training_data(recipe, source, files, folder):
        return None
    corpus = Corpus(folder)
    is_missing = scored and files is not None and corpus.record.get("scored") != digest_files(files, ("validation",))
    return None if is_missing else corpus


def has_training_data(recipe: Recipe, source: Source | None, files: Path | None, folder: Path) -> bool:
    """Return whether a folder has what training reads of the recipe's corpus; the arguments as `find_prepared`."""
    is_own = not recipe.prepare.folder
    record = find_record(folder, is_own)
    if record is None:
        return False
    settings = settings_of(recipe)
    if record.get("settings") == settings and not has_changed(source, files, record.get("inputs")):
        return True
    if is_own:
        return False
    raise DataError(f"{folder}: has a corpus of {describe_change(record, settings)}; choose another prepare.folder")


def has_changed(source: Source | None, files: Path | None, prepared: object) -> bool:
    """Return whether what training reads of a source, or of divided files, is not what it was."""
    if not isinstance(prepared, dict):
        return True
    if source is None:
        return digest_files(files, ("documents", "train")) != prepared
    return source.has_changed(prepared)


def write_corpus(recipe: Recipe, source: Source | None, files: Path | None, folder: Path, scored: bool) -> Corpus:
    """Write what a corpus lacks, and return it; the arguments are those of `find_prepared`."""
    if has_training_data(recipe, source, files, folder):
        corpus = Corpus(folder)
    else:
        corpus = write_training_data(recipe, source, files, folder)
    return add_scored_questions(recipe, files, corpus) if scored and files is not None else corpus


def add_scored_questions(recipe: Recipe, files: Path, corpus: Corpus) -> Corpus:
    """Write the questions of divided files that are scored, beside those that training reads."""
    counts = corpus.record["questions"]
    trained = {name: {split: own[split] for split in own if split != "dev"} for name, own in counts.items()}
    # Until the new ones are counted, the record is that of a corpus without any.
    record = {key: value for key, value in corpus.record.items() if key not in ("scored", "dropped_scored")}
    write_json(corpus.folder / RECORD, {**record, "questions": trained})
    writer, dropped = write_scored_questions(
        files, corpus.folder, relations_of(recipe), sum(sum(own.values()) for own in trained.values())
    )
    report_dropped(dropped, {})
    questions = {name: {**own, **count_splits(writer, name)} for name, own in trained.items()}
    digests = digest_files(files, ("validation",))
    about = {"scored": digests, "questions": questions, "dropped_scored": asdict(dropped)}
    write_json(corpus.folder / RECORD, {**record, **about})
    return Corpus(corpus.folder)


def write_training_data(recipe: Recipe, source: Source | None, files: Path | None, folder: Path) -> Corpus:
    """Write a corpus, without the scored questions of divided files; the arguments are those of `find_prepared`."""
    if source is not None and (downloads := source.downloads()):
        logger.info(describe_downloads(downloads, folder))
    inputs = digest_files(files, ("documents", "train")) if source is None else source.inputs()
    begun = {"settings": settings_of(recipe), "inputs": inputs}
    clear_unless_begun(folder, begun)
    if source is None:
        writer, dropped = write_divided_corpus(files, folder, relations_of(recipe), recipe.data)
        about = describe_files(recipe)
        counts = {}
    else:
        writer, dropped, counts = write_from_parts(recipe, source, folder)
        about = source.describe()
    if writer.withheld_answers:  # other corpora have the record that they always had
        counts = {**counts, "questions_with_withheld_answers": writer.withheld_answers}
    relations = used_relations(recipe, writer, name_of(recipe) if files is None else files / FILES["train"])
    report_dropped(dropped, counts)
    write_json(
        folder / RECORD,
        {
            **begun,
            "name": name_of(recipe),
            "source": about,
            "relations": describe_relations(relations),
            "people": writer.people,
            "documents": writer.documents,
            "withheld_documents": writer.withheld_documents,
            "questions": {relation.name: count_splits(writer, relation.name) for relation in relations},
            "dropped": {**asdict(dropped), **counts},
        },
    )
    remove_parts(folder)
    return Corpus(folder)


def write_from_parts(recipe: Recipe, source: Source, folder: Path) -> tuple[CorpusWriter, Dropped, dict]:
    """Write the corpus of a source of people; return the writer, and what was dropped."""
    parts = source.parts()
    relations = relations_of(recipe)
    work = partial(write_part, source, frozenset(relations), folder / "parts")
    run_for_all(work, parts, recipe.prepare, folder / "logs")
    paths = [shard_path(folder / "parts", number) for number in range(parts)]
    if missing := sum(not path.is_file() for path in paths):
        raise DataError(
            f"{folder}: {missing} of {parts} parts are not prepared yet; run the same command again when the tasks "
            "are done"
        )
    dropped = Dropped()
    for path in paths:
        dropped.add(Dropped(**read_metadata(path)))
    people = People(paths, recipe.data, name_of(recipe))
    writer = write_people_corpus(paths, people, folder, relations)
    if not writer.documents:
        raise DataError(
            f"{name_of(recipe)}: every text names a withheld person; lower data.withheld_people"
            if writer.withheld_documents
            else f"{name_of(recipe)}: there is no text to learn from; wanted a column of texts"
        )
    return writer, dropped, {"people_with_shared_names": people.dropped, "shared_names": len(people.shared)}


def used_relations(recipe: Recipe, writer: CorpusWriter, place: object) -> list[Relation]:
    """Return the relations that have training questions.

    Raises:
        DataError: one that is not optional has none.
    """
    used = []
    for name, arguments in recipe.relations.items():
        splits = count_splits(writer, name)
        if splits.get("train"):
            used.append(arguments.relation(name))
        elif not arguments.optional or splits:
            raise DataError(
                f"{place}: found no training question of the relation {name}, wanted "
                f"`{arguments.relation(name).format('NAME')}`; or remove it with --set relations.{name}=null"
            )
    if not used:
        raise DataError(f"{place}: found no training question")
    return used


def count_splits(writer: CorpusWriter, relation: str) -> dict[str, int]:
    """Return the number of a relation's questions by split."""
    return {split: count for (name, split), count in sorted(writer.questions.items()) if name == relation}


def report_dropped(dropped: Dropped, counts: dict) -> None:
    """Warn of what was left out."""
    if dropped.first is not None:
        logger.warning(
            f"{dropped.texts} texts and {dropped.facts} questions have a special token and are left out; the first is "
            f"at {dropped.first}"
        )
    if counts.get("people_with_shared_names"):
        logger.warning(
            f"{counts['people_with_shared_names']} people share {counts['shared_names']} names and are left out; "
            "data.names=all takes them"
        )
    if counts.get("questions_with_withheld_answers"):
        logger.warning(
            f"{counts['questions_with_withheld_answers']} training questions are left out: their answers name a "
            "withheld person"
        )


def name_of(recipe: Recipe) -> str:
    """Return the data set's name, for results."""
    data = recipe.data
    if data.source in INVENTED_SOURCES:
        return f"{'synthetic_bios' if data.source == 'synthetic' else data.source}({data.people})"
    if data.source == "lahman":
        return data.source
    return data.path if data.source in REMOTE else Path(data.path).resolve().stem


def describe_files(recipe: Recipe) -> dict:
    """Return what is written down of divided files as a source."""
    made_up = {"license": "apache-2.0"} if recipe.data.source == "synthetic" else {}
    return {"source": recipe.data.source, **made_up}


def describe_change(record: dict, settings: dict) -> str:
    """Return what a corpus was made of that the settings do not ask for."""
    before = record.get("settings")
    for section in ("data", "relations"):
        values = before.get(section) if isinstance(before, dict) else None
        for key, value in settings[section].items():
            found = values.get(key) if isinstance(values, dict) else None
            if found != value:
                return f"other settings ({section}.{key} was {found!r}, now {value!r})"
    return "other contents"
