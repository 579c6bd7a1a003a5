"""`train.py prepare`: make a recipe's corpus and say what is in it."""

from pathlib import Path

from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from artifacts.files import as_disk_error
from artifacts.run_folder import RunFolder
from configuration.rich_console import TolerantConsole
from configuration.schema import Recipe
from data_scripts.corpus import SPLITS, Corpus
from data_scripts.prepare import prepare
from training.interruption import handle_signals

AGAIN = "the same command continues it"


def find_place(recipe: Recipe, output: str) -> tuple[str, Path]:
    """Return the recipe's key and the folder that a corpus is written below: one of its own or a run's output."""
    shared = recipe.prepare.folder
    return ("prepare.folder", Path(shared)) if shared else ("output", Path(output))


def prepare_corpus(recipe: Recipe, console: Console | None = None) -> Corpus:
    """Prepare a recipe's corpus in its own folder or the run's, print what is in it and return it.

    Raises:
        UserError: as `prepare`, or a signal asked to stop; what is done by then is continued by the next call.
    """
    folder = RunFolder(recipe.output)
    PartialState()  # loggers need it
    with (
        folder.lock(keeps_data=True),
        handle_signals(remedy=AGAIN) as request,
        as_disk_error(*find_place(recipe, recipe.output), f"what was prepared stays, {AGAIN}"),
        request.interruptible("in the preparation"),
    ):
        corpus = prepare(recipe, folder.data, scored=True)
    print_corpus(corpus, TolerantConsole(console))
    return corpus


def print_corpus(corpus: Corpus, console: Console) -> None:
    """Print where a corpus is, where it is from, and how much of everything it has."""
    record = corpus.record
    about = [f"{key} {value}" for key, value in record["source"].items() if value is not None]
    console.print(f"{corpus.folder}: {record['name']} ({', '.join(about)})", highlight=False, markup=False)
    console.print(
        f"{record['people']:,} people, {record['documents']:,} documents to learn from, "
        f"{record['withheld_documents']:,} that name withheld people",
        highlight=False,
    )
    table = Table()
    table.add_column("relation")
    for split in SPLITS:
        table.add_column(split.replace("_", " "), justify="right")
    for relation in corpus.relations:
        counts = record["questions"][relation.name]
        table.add_row(relation.name, *(f"{counts.get(split, 0):,}" for split in SPLITS))
    console.print(table)
    dropped = record["dropped"]
    for key, meaning in (
        ("texts", "texts with a special token"),
        ("facts", "questions with a special token"),
        ("people_with_shared_names", "people who share their name with others"),
    ):
        if dropped.get(key):
            console.print(f"left out: {dropped[key]:,} {meaning}", highlight=False)
