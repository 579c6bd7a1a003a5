"""People of Wikipedia: the abstracts of structured-wikipedia, with answers of Wikidata.

A row is an article: `name`, `abstract`, and `main_entity`, whose `identifier` is the id in Wikidata. Who is a person
is what the statements say: an entity that has a birthplace, or another of the properties, is one. The other columns,
infoboxes among them, are most of the 44 GB and are not read.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from configuration.data_schema import DataArguments
from configuration.recipe_names import nearest
from data_scripts.bios_folder import DataError, sha256_prefix
from data_scripts.sources.base import Person, Source
from data_scripts.sources.downloads import Download, find_fraction, plan_download
from data_scripts.sources.hub_files import HubFiles, as_data_error, find_hub_files
from data_scripts.sources.rows import read_answers, read_documents, read_text
from data_scripts.sources.tables import open_parquet, parquet_rows
from data_scripts.sources.wikidata import COLUMNS as TABLES
from data_scripts.sources.wikidata import Facts, fetch_statements, find_statement_files, find_tables, import_duckdb
from modeling_minigpt.relations_minigpt import Relation

COLUMNS = ("name", "abstract", "main_entity")
LICENSE = "cc-by-sa-4.0"
STATEMENTS_LICENSE = "CC0"
BATCH_ROWS = 4096  # articles whose facts are looked up at once


@dataclass
class LocalFiles:
    """Parquet files of a local folder, as `HubFiles` are of a data set."""

    path: str
    files: list[str]

    def where(self, number: int) -> str:
        """Return a file's path."""
        return os.path.join(self.path, self.files[number])

    def open(self, number: int) -> BinaryIO:
        """Open a file."""
        return open(self.where(number), "rb")


class StructuredWikipediaSource(Source):
    """People of Wikipedia; a file is a part.

    Args:
        data: its `path`, `config`, `split`, `revision`, `statements`, `properties` and `max_people` are read.
        relations: what may be asked; those with a property have answers.

    Raises:
        DataError: a property of no relation, or none at all.
    """

    def __init__(self, data: DataArguments, relations: Sequence[Relation]):
        self.data = data
        names = [relation.name for relation in relations]
        for name, of_relation in data.properties.items():
            if name not in names:
                raise DataError(f"data.properties: no relation {name}; {nearest(name, names)}")
            if not re.fullmatch(r"P\d+", of_relation):
                raise DataError(f"data.properties.{name}: found {of_relation!r}, wanted a property's id, as P19")
        if not data.properties:
            raise DataError(f"data.properties is not set; wanted a property of {' or '.join(names)}, as P19")

    def __getstate__(self) -> dict:
        """Leave out the database, which no other process can use."""
        return {name: value for name, value in vars(self).items() if name != "facts"}

    @cached_property
    def articles(self) -> HubFiles | LocalFiles:
        """The files of articles."""
        path = str(self.data.path)
        if not os.path.isdir(path):
            return find_hub_files(self.data)
        files = sorted(file.name for file in Path(path).glob("*.parquet"))
        if not files:
            raise DataError(f"{path}: no *.parquet; wanted those of structured-wikipedia")
        return LocalFiles(path, files)

    @cached_property
    def statement_files(self) -> HubFiles | None:
        """The files of statements and labels on the Hub; None where they are in a folder."""
        return find_statement_files(self.data.statements)

    @cached_property
    def statements(self) -> Path:
        """The folder of statements and labels, which are downloaded."""
        files = self.statement_files
        return Path(str(self.data.statements)) if files is None else fetch_statements(files)

    @cached_property
    def facts(self) -> Facts:
        """The answers; joined once in a process, whatever number of parts it reads."""
        return Facts(self.statements, sorted(set(self.data.properties.values())))

    def describe(self) -> dict:
        """Return path, commit and licence."""
        found = {"source": "structured_wikipedia", "path": self.data.path, "properties": self.data.properties}
        if isinstance(self.articles, HubFiles):
            revision = self.articles.commit
            found.update(config=self.data.config, split=self.data.split, revision=revision)
        if self.statement_files is not None:
            found["statements_revision"] = self.statement_files.commit
        return {**found, "statements": self.data.statements, "license": LICENSE, "attribution": self.attribution()}

    def attribution(self) -> str:
        """Return who wrote what is read, with the data sets' ids where it is read from the Hub."""
        articles = f" ({self.articles.path})" if isinstance(self.articles, HubFiles) else ""
        statements = f"{self.statement_files.path}, " if self.statement_files else ""
        return f"Wikipedia contributors{articles}; Wikidata ({statements}{STATEMENTS_LICENSE})"

    def downloads(self) -> list[Download]:
        """Return the downloads of articles, by ranges, and of statements; DataError where DuckDB is not installed."""
        import_duckdb()  # that it is missing is found before gigabytes are downloaded
        found = []
        if isinstance(self.articles, HubFiles):
            fraction = find_fraction(self.articles, COLUMNS)
            limit = self.data.max_people
            found.append(plan_download(self.articles, columns=COLUMNS, fraction=fraction, max_people=limit))
        if self.statement_files is not None:
            found.append(plan_download(self.statement_files, stored=True))
        return found

    def inputs(self) -> dict[str, str]:
        """Return the commit, or the digests of the files, of the articles; the digests of statements and labels."""
        return {**self.article_inputs(), **self.statement_inputs()}

    def article_inputs(self) -> dict[str, str]:
        """Return the commit, or the digests of the files, of the articles."""
        articles = self.articles
        if isinstance(articles, HubFiles):
            return {articles.path: articles.commit}
        return {name: sha256_prefix(articles.where(number)) for number, name in enumerate(articles.files)}

    def statement_inputs(self) -> dict[str, str]:
        """Return the digests of statements and labels."""
        tables = find_tables(self.statements)
        return {os.path.basename(path): sha256_prefix(path) for kind in TABLES for path in tables[kind]}

    def has_changed(self, prepared: Mapping[str, str]) -> bool:
        """Return whether a local file of articles, statements or labels is not what it was."""
        statements = {name: digest for name, digest in prepared.items() if name.startswith(tuple(TABLES))}
        articles = {name: digest for name, digest in prepared.items() if name not in statements}
        if os.path.isdir(str(self.data.path)) and articles != self.article_inputs():
            return True
        return os.path.isdir(str(self.data.statements)) and statements != self.statement_inputs()

    def parts(self) -> int:
        """Return the number of files; 1 where `max_people` is set: who is a person is known after the join."""
        return len(self.articles.files) if self.data.max_people is None else 1

    def read(self, part: int) -> Iterator[Person]:
        """Yield the people of a file, in its order."""
        if self.data.max_people is None:
            return self.read_file(part)
        everyone = itertools.chain.from_iterable(map(self.read_file, range(len(self.articles.files))))
        return itertools.islice(everyone, self.data.max_people)

    def read_file(self, number: int) -> Iterator[Person]:
        """Yield the people of a file; DataError where it has not the columns, or is cut off."""
        articles = self.articles
        where = articles.where(number)
        with as_data_error(where), articles.open(number) as file:
            parquet = open_parquet(file, where)
            names = parquet.schema_arrow.names
            if missing := [column for column in COLUMNS if column not in names]:
                raise DataError(f"{where}: no column {', '.join(missing)}; found {', '.join(names) or 'none'}")
            rows = parquet_rows(parquet, where, list(COLUMNS))
            while batch := list(itertools.islice(rows, BATCH_ROWS)):
                yield from self.people(batch)

    def people(self, rows: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[Person]:
        """Yield those of some rows that are people."""
        ids = [read_entity(row["main_entity"], where) for where, row in rows]
        facts = self.facts.find([entity for entity in ids if entity])
        for entity, (where, row) in zip(ids, rows, strict=True):
            if entity in facts:
                known = facts[entity]
                yield Person(
                    id=entity,
                    name=read_text(row["name"], f"{where}: name"),
                    documents=read_documents(row["abstract"], f"{where}: abstract"),
                    facts={
                        name: read_answers(known[of_relation], f"{where}: {name}")
                        for name, of_relation in self.data.properties.items()
                        if of_relation in known
                    },
                    where=where,
                )


def read_entity(value: object, where: str) -> str | None:
    """Return the id in Wikidata of a `main_entity`, a struct or JSON, or None; DataError for what is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: main_entity: found {value[:60]!r}, wanted JSON") from error
    if value is None:
        return None
    entity = value.get("identifier") if isinstance(value, dict) else value
    if entity is None or isinstance(entity, str):
        return entity or None
    raise DataError(f"{where}: main_entity: found {str(entity)[:60]!r}, wanted an object with an identifier, as Q937")
