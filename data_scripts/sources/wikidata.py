"""Facts of Wikidata: statements and labels in Parquet files, joined by DuckDB.

    statements*.parquet   subject, property, object     Q937  P19  Q3012
    labels*.parquet       id, label                     Q3012 Ulm

Of Q937's birthplaces (P19) that gives "Ulm". Several statements are several right answers, in the statements' order;
an object without a label is left out, and one that is no item, as a date, is its own label.
"""

import fnmatch
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pyarrow
from huggingface_hub import HfApi, snapshot_download

from configuration.data_schema import HUB_ID
from data_scripts.bios_folder import DataError
from data_scripts.sources.hub_files import HubFiles, as_data_error, find_commit
from data_scripts.sources.tables import open_parquet

COLUMNS = {"statements": ("subject", "property", "object"), "labels": ("id", "label")}
JOIN = """
CREATE TABLE facts AS
WITH labelled AS (
    SELECT s.subject, s.property,
        coalesce(l.label, CASE WHEN NOT regexp_full_match(s.object, 'Q[0-9]+') THEN s.object END) AS answer,
        -- Where the fact is first said: threads take rows in any order, and answers must have one.
        min({a: s.filename, b: s.file_row_number, c: l.filename, d: l.file_row_number}) AS place
    FROM read_parquet($statements, filename = true, file_row_number = true) s
    LEFT JOIN read_parquet($labels, filename = true, file_row_number = true) l ON l.id = s.object
    WHERE list_contains($properties, s.property)
    GROUP BY ALL
)
SELECT subject, property, list(answer ORDER BY place) AS answers
FROM labelled WHERE trim(answer) <> '' GROUP BY ALL
"""


def import_duckdb() -> ModuleType:
    """Return the module of the database, which is an extra; DataError where it is not installed."""
    try:
        import duckdb
    except ImportError as error:
        message = "source structured_wikipedia joins by DuckDB: pip install 'minigpt-lab[scale]'"
        raise DataError(message) from error
    return duckdb


def find_statement_files(statements: str | None) -> HubFiles | None:
    """Return the files of the data set on the Hub that `data.statements` means; None where it is a folder.

    Raises:
        DataError: it is neither, or the data set has no such files.
    """
    if statements is None:
        raise DataError(
            "data.statements is not set; wanted a folder, or a data set on the Hub, of Wikidata statements"
        )
    if os.path.isdir(statements):
        return None
    if not HUB_ID.fullmatch(statements):
        raise DataError(f"{statements}: no such folder; data.statements is one with {', '.join(COLUMNS)}*.parquet")
    with as_data_error(statements):
        commit = find_commit(statements, None)
        everywhere = HfApi().list_repo_files(statements, repo_type="dataset", revision=commit)
    names = [name for name in everywhere if "/" not in name]
    files = {kind: sorted(fnmatch.filter(names, f"{kind}*.parquet")) for kind in COLUMNS}
    for kind in COLUMNS:
        check_found(files[kind], kind, statements)
    return HubFiles(statements, commit, None, [name for of_kind in files.values() for name in of_kind])


def fetch_statements(found: HubFiles) -> Path:
    """Return the folder in the Hub's cache where the files are, downloaded if they were not there; DataError."""
    with as_data_error(found.path):
        return Path(
            snapshot_download(found.path, repo_type="dataset", revision=found.commit, allow_patterns=found.files)
        )


def check_found(names: Sequence[str], kind: str, where: object) -> None:
    """Raise DataError where there is no file of statements, or of labels."""
    if not names:
        raise DataError(f"{where}: no {kind}*.parquet; wanted one with the columns {', '.join(COLUMNS[kind])}")


def find_tables(folder: Path) -> dict[str, list[str]]:
    """Return the files of statements and of labels, in order; DataError where one lacks a column or is cut off."""
    found = {}
    for kind, columns in COLUMNS.items():
        found[kind] = sorted(map(str, folder.glob(f"{kind}*.parquet")))
        check_found(found[kind], kind, folder)
        for path in found[kind]:
            with open(path, "rb") as file:
                names = open_parquet(file, path).schema_arrow.names
            if missing := [column for column in columns if column not in names]:
                raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(names) or 'none'}")
    return found


class Facts:
    """The facts of some properties, in an in-memory database that spills to disk.

    Args:
        folder: with the statements and the labels.
        properties: as "P19".

    Raises:
        DataError: DuckDB is not installed; a file cannot be read.
    """

    def __init__(self, folder: Path, properties: Sequence[str]):
        duckdb = import_duckdb()
        spill = os.path.join(tempfile.gettempdir(), f"minigpt-duckdb-{os.getpid()}")  # else a folder where one works
        self.database = duckdb.connect(config={"temp_directory": spill})
        try:
            self.database.execute(JOIN, {**find_tables(folder), "properties": list(properties)})
        except duckdb.Error as error:
            raise DataError(f"{folder}: the statements cannot be joined: {error}") from error

    def find(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, list[str]]]:
        """Return the answers by id and property; entities without any are left out."""
        wanted = pyarrow.table({"id": pyarrow.array(list(dict.fromkeys(ids)), pyarrow.string())})
        self.database.register("wanted", wanted)
        found = self.database.execute("SELECT subject, property, answers FROM facts JOIN wanted ON subject = id")
        facts: dict[str, dict[str, list[str]]] = {}
        for subject, of_property, answers in found.fetchall():
            facts.setdefault(subject, {})[of_property] = answers
        return facts
