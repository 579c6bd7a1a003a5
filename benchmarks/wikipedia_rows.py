"""Made-up articles in the columns of structured-wikipedia, with the statements and labels of Wikidata about them.

    FOLDER/articles/README.md                         the card, with the configuration enwiki_namespace_0
    FOLDER/articles/enwiki/data/enwiki-0000.parquet … 19 columns
    FOLDER/wikidata/statements.parquet                subject, property, object
    FOLDER/wikidata/labels.parquet                    id, label

One article in five is about a person, invented by `data_scripts/sources/bios.py`; in Wikipedia about 1.5 of
7 million are. The names of the columns are those of the data set's card, their types are a guess: no file of the data
set could be downloaded where this was written.
"""

import json
import random
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configuration.data_schema import MIN_PEOPLE, DataArguments
from data_scripts.sources.base import Person
from data_scripts.sources.bios import BiosSource
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

CONFIG = "enwiki_namespace_0"
ARTICLES_A_PERSON = 5
OTHER_STATEMENTS = 20  # an article: about things of no article and no person, as most of Wikidata are
FILES = 4
ROW_GROUP = 5_000
PARAGRAPHS = 6  # of an article's sections; 1.5 kB a row, compressed, where the data set has 2 kB
PROFESSION = Relation("profession", "What was {name}'s profession?")
PROPERTIES = {"birthplace": "P19", "profession": "P106"}
LINK = pa.struct([("identifier", pa.string()), ("url", pa.string())])
TIME = pa.timestamp("us")
SCHEMA = pa.schema(
    [
        ("abstract", pa.string()),
        ("additional_entities", pa.list_(LINK)),
        ("date_created", TIME),
        ("date_modified", TIME),
        ("description", pa.string()),
        ("event", pa.struct([("identifier", pa.string()), ("type", pa.string())])),
        ("identifier", pa.int64()),
        ("image", pa.struct([("content_url", pa.string()), ("height", pa.int64()), ("width", pa.int64())])),
        ("in_language", pa.struct([("identifier", pa.string())])),
        ("infoboxes", pa.string()),
        ("is_part_of", LINK),
        ("license", pa.list_(LINK)),
        ("main_entity", LINK),
        ("name", pa.string()),
        ("references", pa.string()),
        ("sections", pa.string()),
        ("tables", pa.string()),
        ("url", pa.string()),
        ("version", pa.struct([("identifier", pa.int64()), ("comment", pa.string())])),
    ]
)
CARD = f"""---
license: cc-by-sa-4.0
configs:
- config_name: {CONFIG}
  data_files: enwiki/data/*.parquet
---
"""
# Ids in Wikidata, each kind far from the others.
PERSON, THING, VALUE = (f"Q{first}{{:07}}" for first in (1, 2, 3))


def invent_people(people: int, seed: int) -> Iterator[Person]:
    """Yield people, each with a few texts; there are a tenth as many places."""
    places = min(20_000, max(20, people // 10))
    data = DataArguments(source="bios", people=max(MIN_PEOPLE, people), places=places)
    source = BiosSource(data, (BIRTHPLACE, PROFESSION), seed)
    for part in range(source.parts()):
        yield from source.read(part)


@lru_cache(maxsize=1)
def invent_paragraphs(seed: int) -> list[str]:
    """Return paragraphs for sections, which are never read."""
    rng = random.Random(f"paragraphs {seed}")
    words = ["".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(2, 9))) for _ in range(5_000)]
    return [" ".join(rng.choices(words, k=90)) for _ in range(2_000)]


def describe_article(number: int, name: str, entity: str, abstract: str, facts: dict[str, str], seed: int) -> dict:
    """Return a row of `SCHEMA`."""
    paragraphs = invent_paragraphs(seed)
    rng = random.Random(number)
    fields = [{"name": key, "type": "field", "value": text, "links": [{"text": text}]} for key, text in facts.items()]
    parts = [{"type": "paragraph", "value": text} for text in (abstract, *rng.sample(paragraphs, PARAGRAPHS))]
    day = datetime(2001 + number % 20, 1 + number % 12, 1 + number % 28)
    url = f"https://en.wikipedia.org/wiki/{name.replace(' ', '_')}"
    return {
        "abstract": abstract,
        "additional_entities": [{"identifier": entity, "url": f"https://www.wikidata.org/wiki/{entity}"}],
        "date_created": day,
        "date_modified": day,
        "description": abstract[:40],
        "event": {"identifier": f"event-{number}", "type": "update"},
        "identifier": number,
        "image": {"content_url": f"{url}.jpg", "height": 400, "width": 300},
        "in_language": {"identifier": "en"},
        "infoboxes": json.dumps([{"name": "Infobox", "type": "infobox", "has_parts": fields}]),
        "is_part_of": {"identifier": "enwiki", "url": "https://en.wikipedia.org"},
        "license": [{"identifier": "CC-BY-SA-4.0", "url": "https://creativecommons.org/licenses/by-sa/4.0/"}],
        "main_entity": {"identifier": entity, "url": f"https://www.wikidata.org/wiki/{entity}"},
        "name": name,
        "references": "[]",
        "sections": json.dumps([{"name": "Article", "type": "section", "has_parts": parts}]),
        "tables": "[]",
        "url": url,
        "version": {"identifier": 10 * number, "comment": "made up"},
    }


class MadeUpWikipedia:
    """Articles in their order; what Wikidata says about them is known once they have been read.

    Args:
        rows: number of articles.
        every: how many of them have one that is about a person, the first one.
        seed: of the people.
    """

    def __init__(self, rows: int, every: int, seed: int):
        self.rows = rows
        self.every = every
        self.seed = seed
        self.values: dict[str, str] = {}  # the id of each place and profession
        self.statements: list[tuple[str, str, str]] = []

    def articles(self) -> Iterator[dict[str, Any]]:
        """Yield all rows."""
        people = invent_people(-(-self.rows // self.every), self.seed)
        for number in range(self.rows):
            if number % self.every == 0:
                yield self.about_person(number, next(people))
            else:
                name = f"Thing {number}"
                entity = THING.format(number)
                self.statements.append((entity, "P31", VALUE.format(0)))
                text = f"{name} is number {number} of the things of this world ."
                yield describe_article(number, name, entity, text, {}, self.seed)

    def about_person(self, number: int, person: Person) -> dict[str, Any]:
        """Return the article about a person, whose text has no title of its own."""
        entity = PERSON.format(number)
        title = f"{person.name}. "
        facts = {relation: person.facts[relation][0] for relation in PROPERTIES}
        for relation, value in facts.items():
            known = self.values.setdefault(value, VALUE.format(len(self.values) + 1))
            self.statements.append((entity, PROPERTIES[relation], known))
        abstract = " ".join(document.removeprefix(title) for document in person.documents)
        return describe_article(number, person.name, entity, abstract, facts, self.seed)


def write_articles(folder: Path, articles: Iterator[dict[str, Any]], rows: int) -> None:
    """Write the articles to `FILES` files, and the data set's card."""
    data = folder / "enwiki" / "data"
    data.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    for number in range(FILES):
        left = rows * (number + 1) // FILES - rows * number // FILES
        with pq.ParquetWriter(data / f"enwiki-{number:04}.parquet", SCHEMA, compression="zstd") as file:
            while left:
                taken = min(left, ROW_GROUP)
                file.write_table(pa.Table.from_pylist([next(articles) for _ in range(taken)], SCHEMA))
                left -= taken


def write_wikipedia(folder: Path, rows: int, every: int = ARTICLES_A_PERSON, seed: int = 0) -> None:
    """Write articles, and statements and labels about them.

    Args:
        folder: where `articles/` and `wikidata/` are written.
        rows, every, seed: as `MadeUpWikipedia`.
    """
    wikipedia = MadeUpWikipedia(rows, every, seed)
    write_articles(folder / "articles", wikipedia.articles(), rows)
    columns = ("subject", "property", "object")
    said = pa.table(dict(zip(columns, zip(*wikipedia.statements, strict=True), strict=True)))
    others, other_labels = invent_statements(OTHER_STATEMENTS * rows, seed)
    values = {VALUE.format(0): "thing", **{identifier: label for label, identifier in wikipedia.values.items()}}
    labels = pa.table({"id": list(values), "label": list(values.values())})
    (folder / "wikidata").mkdir(exist_ok=True)
    for name, parts in {"statements": (others, said), "labels": (other_labels, labels)}.items():
        pq.write_table(pa.concat_tables(parts), folder / "wikidata" / f"{name}.parquet", compression="zstd")


def invent_statements(number: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return statements that no question is about, and a label for each tenth."""
    rng = np.random.default_rng(seed)

    def ids(letter: str, numbers: np.ndarray) -> pa.Array:
        return pc.binary_join_element_wise(letter, pc.cast(pa.array(numbers), pa.string()), "")

    properties = 1000 + rng.integers(500, size=number)
    items = 40_000_000 + rng.integers(number, size=(2, number))
    statements = {"subject": ids("Q", items[0]), "property": ids("P", properties), "object": ids("Q", items[1])}
    labelled = 40_000_000 + np.arange(0, number, 10)
    return pa.table(statements), pa.table({"id": ids("Q", labelled), "label": ids("Label ", labelled)})
