"""Public question sets, PopQA and EntityQuestions, as questions of this project.

    PopQA (Mallen et al. 2023, section 3): test.tsv, or Parquet
        subj         prop_id  obj   possible_answers           s_aliases      s_pop
        Ada Stone    218      Rome  ["Rome", "Roma", "ROM"]    ["A. Stone"]   1520
    EntityQuestions (Sciavolino et al. 2021, section 2): P19.test.json
        [{"question": "Where was Ada Stone born?", "answers": ["Rome", "Roma"]}, …]

The columns of a file show which of the two sets it belongs to. Both ask for more than birthplaces: a relation gets the
rows of its Wikidata property, and the others are counted.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from configuration.data_schema import HUB_ID, DataArguments
from configuration.schema import FILE_NAME_PART
from data_scripts.bios_folder import DataError, sha256_prefix
from data_scripts.questions import Question, question_about
from data_scripts.sources.hub import KINDS, suffix
from data_scripts.sources.hub_files import HubFiles, as_data_error, find_hub_files
from data_scripts.sources.rows import is_blank, is_null, parse_list, read_popularity, read_text
from data_scripts.sources.structured_wikipedia import LocalFiles
from data_scripts.sources.tables import open_parquet, parquet_rows, read_csv, read_jsonl
from modeling_minigpt.questions_minigpt import QuestionTemplate
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation

POPQA = "popqa"
ENTITY_QUESTIONS = "entity_questions"
SPLIT = "test"  # of both
BIRTHPLACE_PROPERTY = "P19"
# PopQA numbers its relations; these are their properties in Wikidata.
POPQA_PROPERTIES = {
    22: "P106", 91: "P136", 97: "P1376", 106: "P140", 164: "P162", 182: "P17", 218: "P19", 257: "P22", 292: "P25",
    422: "P36", 472: "P462", 484: "P50", 526: "P57", 533: "P58", 560: "P641", 639: "P86",
}  # fmt: skip
POPQA_COLUMNS = ("subj", "prop_id", "possible_answers")
ENTITY_COLUMNS = ("question", "answers")
# How EntityQuestions asks about people. Wordings of the recipe's relation are understood, too.
ENTITY_TEMPLATES = {
    "P19": "Where was {name} born?",
    "P20": "Where did {name} die?",
    "P26": "Who is {name} married to?",
    "P40": "Who is {name}'s child?",
    "P69": "Where was {name} educated?",
    "P106": "What kind of work does {name} do?",
    "P413": "What position does {name} play?",
    "P800": "What is {name} famous for?",
}
PROPERTY = re.compile(r"(P\d+)(?!\d)")  # what the name of one of its files begins with


@dataclass(frozen=True)
class SetQuestion:
    """One question of a public set.

    Attributes:
        question: in the wording of training, with all accepted answers.
        popularity: monthly page views of the person's article (PopQA); None where the set does not say.
        aliases: other names of the person.
    """

    question: Question
    popularity: int | None = None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The person's name."""
        return self.question.name


@dataclass
class QuestionSet:
    """A public question set.

    Attributes:
        name: as the recipe calls it.
        path: where it was read from.
        kind: `POPQA` or `ENTITY_QUESTIONS`.
        questions: those of the relations that were wanted, in the set's order.
        others: how many rows ask for something else.
        version: "revision" and "license" of a data set on the Hub, or "sha256" of a file, the first 16 digits.
    """

    name: str
    path: str
    kind: str
    questions: list[SetQuestion]
    others: int = 0
    version: dict[str, str | None] = field(default_factory=dict)

    def of_relation(self, relation: Relation) -> list[SetQuestion]:
        """Return the questions of one relation, in their order."""
        return [one for one in self.questions if one.question.relation == relation.name]


def parse_sets(words: Sequence[str]) -> dict[str, str]:
    """Return the sets that a command line names, `NAME=PATH` each; DataError for anything else."""
    found = {}
    for word in words:
        name, _, path = word.partition("=")
        if not path or not FILE_NAME_PART.fullmatch(name):
            raise DataError(f"--set {word}: wanted NAME=PATH, for example popqa=akariasai/PopQA")
        if name in found:
            raise DataError(f"--set {word}: {name} is given twice")
        found[name] = path
    return found


def find_relations(relations: Sequence[Relation], properties: Mapping[str, str]) -> dict[str, Relation]:
    """Return the relations by their Wikidata properties.

    Args:
        relations: those that a model is asked for.
        properties: `data.properties`: by relation, its property. The birthplace has P19 without being named there.
    """
    by_property: dict[str, Relation] = {}
    for relation in relations:
        default = BIRTHPLACE_PROPERTY if relation.name == BIRTHPLACE.name else None
        if of_relation := properties.get(relation.name, default):
            by_property.setdefault(of_relation, relation)
    return by_property


def read_question_set(
    name: str, path: str, relations: Sequence[Relation], properties: Mapping[str, str] | None = None
) -> QuestionSet:
    """Read the questions of a public set that ask for some relations.

    Args:
        name: of the set, as in results.
        path: a file, a folder of files, or the id of a data set on the Hub, whose split "test" is read.
        relations: those wanted.
        properties: as `find_relations` takes them.

    Raises:
        DataError: nothing there, a file of another kind, a row that cannot be read, or no question of the relations.
    """
    wanted = find_relations(relations, properties or {})
    files = find_set_files(path)
    properties_of = [PROPERTY.match(os.path.basename(file_name)) for file_name in files.files]
    read = [number for number, of_file in enumerate(properties_of) if not of_file or of_file[1] in wanted]
    found = QuestionSet(name, path, "", [], version=describe_version(files, read))
    for number in read:
        of_file = properties_of[number]
        in_file = {of_file[1]: wanted[of_file[1]]} if of_file else wanted
        where = files.where(number)
        with as_data_error(where), files.open(number) as file:
            for place, row in read_rows(file, where):
                found.kind = kind_of(row, place)
                is_popqa = found.kind == POPQA
                question = (popqa_question if is_popqa else entity_question)(row, place, in_file)
                if question is not None:
                    found.questions.append(question)
                elif of_file and not is_popqa:
                    raise DataError(f"{place}: question: found {row['question']!r}, wanted {wordings(in_file)}")
                else:
                    found.others += 1
    if not found.questions:
        raise DataError(f"{path}: {explain_nothing_found(wanted, found.others)}")
    return found


def explain_nothing_found(wanted: Mapping[str, Relation], others: int) -> str:
    """Say why a set has no question of the relations that are wanted, by property.

    Args:
        others: how many rows ask for something else.
    """
    if not wanted:
        return "none of the relations has a Wikidata property; wanted data.properties.NAME=P19"
    asked = ", ".join(f"{relation.name} ({key})" for key, relation in wanted.items())
    return f"found no questions about {asked}, and {others} about other properties"


def find_set_files(path: str) -> HubFiles | LocalFiles:
    """Return the files that a path means: one, all that can be read of a folder, or a split of a data set on the Hub.

    Raises:
        DataError: neither is there.
    """
    path = os.path.expanduser(path)
    listed = ", ".join(KINDS)
    if os.path.isdir(path):
        names = sorted(one.name for one in Path(path).iterdir() if one.is_file() and suffix(one.name) in KINDS)
        if not names:
            raise DataError(f"{path}: no file in it ends in any of {listed}")
        return LocalFiles(path, names)
    if not os.path.exists(path) and HUB_ID.fullmatch(path) and suffix(path) not in KINDS:
        files: HubFiles | LocalFiles = find_hub_files(DataArguments(source="hub", path=path, split=SPLIT))
    else:
        files = LocalFiles(os.path.dirname(path), [os.path.basename(path)])
        if not os.path.exists(path):
            raise DataError(f"{path}: no such file or folder, and not an id on the Hub (USER/NAME)")
    for number, name in enumerate(files.files):
        if suffix(name) not in KINDS:
            raise DataError(f"{files.where(number)}: wanted a file that ends in one of {listed}")
    return files


def describe_version(files: HubFiles | LocalFiles, read: Sequence[int]) -> dict[str, str | None]:
    """Return what identifies a set: commit and licence on the Hub, else the digests of the files that are read."""
    if isinstance(files, HubFiles):
        return {"revision": files.commit, "license": files.license}
    return {"sha256": ", ".join(sha256_prefix(files.where(number)) for number in read)}


def read_rows(file: BinaryIO, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield file and line, or number, of each row, and the row."""
    kind = KINDS[suffix(where)]
    if kind == "parquet":
        parquet = open_parquet(file, where)
        yield from parquet_rows(parquet, where, parquet.schema_arrow.names)
    else:
        yield from (read_csv(file, where) if kind == "csv" else read_jsonl(file, where)).rows


def kind_of(row: Mapping[str, Any], where: str) -> str:
    """Return which set a row is of; DataError, with its columns, where it is of neither or lacks one."""
    listed = ", ".join(row) or "no columns"
    if "subj" not in row and "question" not in row:
        raise DataError(
            f"{where}: found {listed}; wanted the columns of PopQA ({', '.join(POPQA_COLUMNS)}) or those of "
            f"EntityQuestions ({', '.join(ENTITY_COLUMNS)})"
        )
    kind, columns = (POPQA, POPQA_COLUMNS) if "subj" in row else (ENTITY_QUESTIONS, ENTITY_COLUMNS)
    if missing := [column for column in columns if column not in row]:
        raise DataError(f"{where}: no column {', '.join(missing)}; found {listed}")
    return kind


def popqa_question(row: Mapping[str, Any], where: str, wanted: Mapping[str, Relation]) -> SetQuestion | None:
    """Return the question of a row of PopQA; None where it is of no property that is wanted."""
    number = row["prop_id"]
    if not (found := re.fullmatch(r"(\d{1,18})(\.0)?", str(number))):
        raise DataError(f"{where}: prop_id: found {str(number)[:60]!r}, wanted a number such as 218")
    relation = wanted.get(POPQA_PROPERTIES.get(int(found[1]), ""))
    if relation is None:
        return None
    name = read_text(row["subj"], f"{where}: subj")
    main = [] if is_null(row.get("obj")) or is_blank(row.get("obj")) else [read_text(row["obj"], f"{where}: obj")]
    answers = [*main, *read_list(row, "possible_answers", where), *read_list(row, "o_aliases", where)]
    if not answers:
        raise DataError(f"{where}: possible_answers: found none, wanted at least one answer")
    return SetQuestion(
        question_about(name, *dict.fromkeys(answers), relation=relation),
        read_popularity(row.get("s_pop"), f"{where}: s_pop"),
        tuple(alias for alias in dict.fromkeys(read_list(row, "s_aliases", where)) if alias != name),
    )


def read_list(row: Mapping[str, Any], column: str, where: str) -> list[str]:
    """Return the texts of a column that is a list in JSON, or in Parquet perhaps a list; empty ones are left out."""
    value = row.get(column)
    if is_null(value) or is_blank(value):
        return []
    if isinstance(value, str):
        value = parse_list(value)
    if not isinstance(value, list):
        raise DataError(f'{where}: {column}: found {str(value)[:60]!r}, wanted a JSON list such as ["Rome", "Roma"]')
    return [read_text(text, f"{where}: {column}") for text in value if not is_blank(text)]


def wordings(wanted: Mapping[str, Relation]) -> str:
    """Return the questions that are understood, for a message."""
    texts = [template.template for key, relation in wanted.items() for template in templates_of(key, relation)]
    return " or ".join(f"`{text.replace('{name}', 'NAME')}`" for text in texts)


def templates_of(of_relation: str, relation: Relation) -> list[QuestionTemplate]:
    """Return the forms in which a property may be asked for, the set's own first."""
    own = [ENTITY_TEMPLATES[of_relation]] if of_relation in ENTITY_TEMPLATES else []
    return [QuestionTemplate(text) for text in dict.fromkeys([*own, *relation.wordings])]


def entity_question(row: Mapping[str, Any], where: str, wanted: Mapping[str, Relation]) -> SetQuestion | None:
    """Return the question of a row of EntityQuestions; None where it is in no form of a relation that is wanted."""
    text = read_text(row["question"], f"{where}: question")
    for of_relation, relation in wanted.items():
        for template in templates_of(of_relation, relation):
            if name := template.extract_name(text):
                answers = read_list(row, "answers", where)
                if not answers:
                    raise DataError(f"{where}: answers: found none, wanted at least one answer")
                return SetQuestion(question_about(name, *dict.fromkeys(answers), relation=relation))
    return None
