"""The parts of a recipe about data: relations, the source of the corpus, and how it is prepared.

Wrong types and contradictions raise at construction, as in `configuration.schema`.
"""

import os
import re
from dataclasses import MISSING, dataclass, field, fields
from typing import Literal

from huggingface_hub.dataclasses import strict

from configuration.field_bounds import PATH, require, require_at_most
from modeling_minigpt.relations_minigpt import BIRTHPLACE, GENERAL_PROMPTS, Relation

MIN_PEOPLE = 20  # fewer invented people would leave a file of questions empty
MAX_PEOPLE = 1_000_000  # of the source `synthetic`, which keeps them all in memory and has few syllables for names
HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
SUFFIXES = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv"}
INVENTED_SOURCES = ("synthetic", "bios", "bios_uniform")  # of whose people nobody is real
SOURCES_WITH_PATH = ("folder", "jsonl", "csv", "hub", "structured_wikipedia", "prepared")
# The sources that read a key; any other one refuses it, unless it has its default. A prepared corpus, which was made
# with all of them, accepts the recipe that it was made with; other values are refused when it is opened.
READ_BY = {
    "path": SOURCES_WITH_PATH,
    "config": ("hub", "structured_wikipedia"),
    "split": ("hub", "structured_wikipedia"),
    "revision": ("hub", "structured_wikipedia"),
    "columns": ("jsonl", "csv", "hub"),
    "statements": ("structured_wikipedia",),
    "max_people": ("jsonl", "csv", "lahman", "hub", "structured_wikipedia"),
    "train_fraction": ("bios", "bios_uniform", "jsonl", "csv", "lahman", "hub", "structured_wikipedia"),
    "names": ("bios", "bios_uniform", "jsonl", "csv", "lahman", "hub", "structured_wikipedia"),
    "people": INVENTED_SOURCES,
    "places": ("bios",),
    "wordings": ("bios_uniform",),
}
# A recipe may inherit these from a base whose source reads them, though its own does not; see `settle_source`.
INHERITED = ("names", "people", "places", "wordings")


def infer_source(path: str) -> str:
    """Return the kind of source that a path looks like; ValueError for a file of a kind that none reads."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    require(
        not os.path.isfile(path),
        f"path is the file {path!r}, wanted one that ends in {', '.join(SUFFIXES)}, or a folder",
    )
    if os.path.isfile(os.path.join(path, "prepared.json")):
        return "prepared"
    # USER/NAME may be a folder, too, and then it is that.
    return "hub" if HUB_ID.fullmatch(path) and not os.path.exists(path) else "folder"


@strict
@dataclass
class RelationArguments:
    """One kind of question, by its name under `relations`; a recipe that has none asks for the birthplace."""

    question: str | None = None
    """The question, with `{name}` in it once, for example "Where was {name} born?"; must be set."""
    prompts: list[str] = field(default_factory=lambda: list(GENERAL_PROMPTS))
    """Beginnings of biographies that ask the same, for example "{name}. born in"; features of the confidence."""
    paraphrases: list[str] = field(default_factory=list)
    """Other wordings that data files and the pipeline accept."""
    answers: str = BIRTHPLACE.answers
    """The kind of the answers; relations of one kind share their candidates."""
    optional: bool = False
    """Accept data without questions about this relation, which is then left out."""

    def __post_init__(self):
        require(self.question is not None, "question is not set; a relation needs it")
        require(len(self.prompts) > 0, "prompts must not be empty")
        self.relation("relation")

    def relation(self, name: str) -> Relation:
        """Return the relation under its name; ValueError where a wording or a prompt lacks `{name}`."""
        return Relation(name, self.question, tuple(self.prompts), tuple(self.paraphrases), self.answers)


def default_relations() -> dict[str, RelationArguments]:
    """Return the relations of a recipe that names none: the birthplace."""
    # Optional, so that `--set relations.studied.question=…` alone suffices for data that ask for nothing else.
    birthplace = RelationArguments(BIRTHPLACE.question, list(BIRTHPLACE.prompts), optional=True)
    return {BIRTHPLACE.name: birthplace}


@strict
@dataclass
class DataArguments:
    """Where the biographies and the questions come from."""

    source: (
        Literal[
            "synthetic", "bios", "bios_uniform", "folder", "jsonl", "csv", "lahman", "hub", "structured_wikipedia",
            "prepared",
        ]
        | None
    ) = None  # fmt: skip
    """Invented people with a birthplace (`synthetic`), with any number of facts (`bios`), or with seven facts whose
    values are all equally likely (`bios_uniform`); real people from the package `lahman`; the files of `path`; a data
    set on the Hub; a corpus written by `train.py prepare`. If it is not given, `path` decides; without one it is
    `synthetic`."""
    path: str | None = field(default=None, metadata=PATH)
    """A folder in the cs224n layout, a JSONL or CSV file, a prepared corpus, or the id of a data set on the Hub. Where
    `source` is not set, `path` decides it. So does a path that overrides a `source` of `synthetic` or `folder`: one
    given by `--set` over a recipe's source, or in a recipe over its base's. A path that overrides `folder` is never
    taken for an id on the Hub (source: folder, jsonl, csv, hub, structured_wikipedia, prepared)."""
    config: str | None = None
    """Configuration of the data set (source: hub, structured_wikipedia)."""
    split: str = "train"
    """Split of the data set (source: hub, structured_wikipedia)."""
    revision: str | None = None
    """Branch, tag or commit of the data set; resolved to a commit, which is recorded (source: hub,
    structured_wikipedia)."""
    columns: dict[str, str] = field(default_factory=dict)
    """Names of the columns for `name`, `text`, `id`, `popularity`, `split` and the relations, where they differ from
    these (source: jsonl, csv, hub)."""
    statements: str | None = field(default=None, metadata=PATH)
    """Folder or Hub id of Wikidata statements and labels to join with (source: structured_wikipedia)."""
    properties: dict[str, str] = field(default_factory=dict)
    """Wikidata property of each relation, for example `{birthplace: P19}` (source: structured_wikipedia;
    `evaluate.sets`)."""
    names: Literal["unique", "all"] = "unique"
    """People who share a name: `unique` leaves them out and counts them, `all` includes them and accepts all their
    answers (source: bios, bios_uniform, jsonl, csv, lahman, hub, structured_wikipedia)."""
    people: int = 800
    """Number of invented people, 20 … 100,000,000, of `synthetic` at most 1,000,000 (source: synthetic, bios,
    bios_uniform)."""
    places: int = 60
    """Number of invented places, 10 … 100,000 (source: bios)."""
    wordings: int = 5
    """Number of biographies of each person, each worded differently and with its sentences in another order,
    1 … 1,000 (source: bios_uniform)."""
    max_people: int | None = None
    """Take at most this many people, the first ones of the source; null takes all (source: jsonl, csv, lahman, hub,
    structured_wikipedia)."""
    train_fraction: float = 0.5
    """Fraction of people whose questions are trained on, above 0 and below 1; the others' are scored. A hash of the
    person's id, or of the name where rows have no id, decides, unless the source does (source: bios, bios_uniform,
    jsonl, csv, lahman, hub, structured_wikipedia)."""
    validation_questions: int = 0
    """Number of people whose training questions are held out and scored in place of the dev file, for tuning."""
    calibration_questions: int = 0
    """Number of people whose training questions are held out to calibrate the confidence."""
    withheld_people: int = 0
    """Number of people with training questions who are left out of all questions and documents of all stages: real
    strangers."""

    def __post_init__(self):
        if self.source is None:
            self.source = "synthetic" if self.path is None else infer_source(self.path)
        require(
            self.source not in SOURCES_WITH_PATH or self.path is not None,
            f"source is {self.source} but path is not set",
        )
        if self.source == "folder":
            kind = infer_source(self.path)
            require(kind in ("folder", "hub", "prepared"), f"path is a file ({kind}), but data.source is folder")
        for name in READ_BY:
            if name not in INHERITED:
                self.check_is_read(name)
        require(self.people >= MIN_PEOPLE, f"people must be at least {MIN_PEOPLE}, found {self.people}")
        most_people = 100_000_000 if self.source in ("bios", "bios_uniform") else MAX_PEOPLE
        require_at_most(self, {"people": most_people, "places": 100_000, "wordings": 1_000})
        require(self.wordings >= 1, f"wordings must be at least 1, found {self.wordings}")
        require(self.places >= 10, f"places must be at least 10, found {self.places}")
        require(self.max_people is None or self.max_people >= 1, f"max_people must be at least 1: {self.max_people}")
        require(0.0 < self.train_fraction < 1.0, f"train_fraction must be in (0, 1), found {self.train_fraction}")
        for name in ("validation_questions", "calibration_questions", "withheld_people"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, found {getattr(self, name)}")

    def check_is_read(self, name: str) -> None:
        """Raise ValueError where a key of `READ_BY` has been set, but the source does not read it."""
        (described,) = (one for one in fields(self) if one.name == name)
        has_factory = described.default_factory is not MISSING
        default = described.default_factory() if has_factory else described.default
        found = getattr(self, name)
        if found == default or self.source in (*READ_BY[name], "prepared"):
            return
        if name == "path":
            raise ValueError(
                f"path is {found!r}, but data.source is {self.source}, which has data of its own; "
                f"to read the path, set data.source={infer_source(found)}, too"
            )
        unset = "null" if default is None else default
        raise ValueError(
            f"{name} is {found!r}, but data.source is {self.source}, which does not read it; wanted data.source="
            f"{' or '.join(READ_BY[name])}, or data.{name}={unset}"
        )


@strict
@dataclass
class PrepareArguments:
    """How the source is turned into a prepared corpus; these settings do not change the corpus."""

    folder: str | None = field(default=None, metadata=PATH)
    """Where the corpus is written, to be shared by runs; null means the run's own folder."""
    executor: Literal["process", "local", "slurm", "ray"] = "process"
    """`process`: in this process, one part after the other. The others are datatrove's (the extra `scale`)."""
    tasks: int = 1
    """Number of tasks that share the source's parts, at least 1 (executor: local, slurm, ray)."""
    workers: int = 1
    """Tasks that run at once, at least 1 (executor: local, slurm, ray)."""
    partition: str | None = None
    """The cluster's partition (executor: slurm)."""

    def __post_init__(self):
        for name in ("tasks", "workers"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")
        require_at_most(self, {"tasks": 100_000, "workers": 10_000})
        require(self.executor != "slurm" or self.partition is not None, "executor is slurm, but partition is not set")
        is_process = self.executor == "process"
        alone = self.tasks == self.workers == 1
        found = f"found {self.tasks} and {self.workers}"
        require(not is_process or alone, f"executor is process, so tasks and workers must be 1, {found}")
