"""Made-up files of PopQA and EntityQuestions, with the schemas and the oddities of the real ones."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

POPQA_COLUMNS = (
    "id", "subj", "prop", "obj", "subj_id", "prop_id", "obj_id", "s_aliases", "o_aliases", "s_uri", "o_uri",
    "s_wiki_title", "o_wiki_title", "s_pop", "o_pop", "question", "possible_answers",
)  # fmt: skip


def popqa_row(
    number: int,
    name: str,
    answers: Sequence[str],
    popularity: object,
    prop: tuple[int, str] = (218, "place of birth"),
    **changes: object,
) -> dict:
    """Return a row of PopQA, in which lists are texts of JSON."""
    row = {column: f"{column} {number}" for column in POPQA_COLUMNS}
    row |= {"id": 4_000_000 + number, "subj": name, "prop": prop[1], "obj": answers[0], "prop_id": prop[0]}
    row |= {"s_aliases": "[]", "o_aliases": "[]", "s_pop": popularity, "o_pop": 7}
    row |= {"question": f"In what city was {name} born?", "possible_answers": json.dumps(list(answers))}
    return row | changes


def write_popqa(path: Path, rows: Sequence[dict]) -> Path:
    """Write rows as the project's TSV, or as Parquet where the path ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_entity_questions(path: Path, facts: dict[str, Sequence[str]], template: str = "Where was {} born?") -> Path:
    """Write a file of EntityQuestions: one JSON list of questions with their answers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": template.format(name), "answers": list(answers)} for name, answers in facts.items()]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path
