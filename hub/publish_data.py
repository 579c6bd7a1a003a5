"""Publish data sets on the Hub as Parquet, so that `load_dataset("USER/NAME", "birthplace")` needs no code.

    python -m hub.publish_data USER/NAME --path FOLDER --license cc-by-sa-4.0
    python -m hub.publish_data USER/NAME --people 800 --dry-run FOLDER     # invented people; push nothing
    python -m hub.publish_data USER/NAME --path FOLDER --license mit --relation "studied=Where did {name} study?"

The configurations: `biographies`, `span_corruption` (`--epochs` corrupted copies of them), one of each relation, as
`birthplace` (questions with places; the test split has none), and `strangers` (made-up names that are in no biography,
some for calibration, others for evaluation). A card gives features, sizes, provenance and licence.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from configuration.errors import run_main
from configuration.schema import POLICIES, CorruptionOptions
from data_scripts.biographies import Biographies
from data_scripts.bios_folder import (
    FILES,
    DataError,
    check_folder,
    read_lines,
    read_questions,
    sha256_prefix,
)
from data_scripts.closed_book_qa import ClosedBookQA
from data_scripts.file_builder import FileBuilder, prepare
from data_scripts.questions import question_about
from data_scripts.span_corruption import SpanCorruption
from data_scripts.strangers import FOLDS, made_up_names
from data_scripts.synthetic_bios import invent
from hub.licenses import check_license
from hub.push import PushError, as_push_error, check_repo_id, open_repository, push_folder, write_file_list
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.tokenization_minigpt import SENTINEL_TOKEN

MARKER = "biographies/train.parquet"  # which every push of data sets leaves
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))  # as the Hub says
ABOUT = {
    "biographies": "A biography a row, with the person it is about.",
    "span_corruption": f"The same with spans taken out and put after them; `{SENTINEL_TOKEN}` replaces each.",
    "strangers": "Made-up names, put together from those of the training questions; they are in no biography.",
}


NAME = re.compile(r"\w[\w-]*")  # of a relation, which becomes a folder's


@dataclass(frozen=True)
class Source:
    """Biographies and questions in a folder of the cs224n layout, and what the card says of them."""

    folder: Path
    provenance: str
    license: str
    relations: tuple[Relation, ...] = (BIRTHPLACE,)

    @property
    def splits(self) -> list[str]:
        """The splits of questions; that without answers may be missing."""
        return [split for split in ("train", "validation", "test") if (self.folder / FILES[split]).is_file()]

    def builder(self, kind: type[FileBuilder], files: dict[str, str], cache: Path, **settings) -> FileBuilder:
        """Return one of our builders over files of the folder, `{SPLIT: KEY OF FILES}`."""
        paths = {split: self.folder / FILES[key] for split, key in files.items()}
        return kind(data_files=paths, cache_dir=str(cache), **settings)


def made_up_people(source: Source, count: int, seed: int) -> datasets.DatasetDict:
    """Return up to `count` strangers for each of `FOLDS`, with each relation's question; names from training."""
    asked = {
        split: read_questions(source.folder / FILES[split], source.relations, answered=split != "test")
        for split in source.splits
    }
    names = [question.name for question in asked.pop("train")]
    others = [question.name for questions in asked.values() for question in questions]
    documents = read_lines(source.folder / FILES["documents"])
    found = {}
    for fold in FOLDS:
        made = made_up_names(names, documents, count, seed, fold, others)
        questions = [question_about(name, relation=relation) for name in made for relation in source.relations]
        columns = {"name": [one.name for one in questions], "question": [one.text for one in questions]}
        if len(source.relations) > 1:
            columns["relation"] = [one.relation for one in questions]
        found[fold] = datasets.Dataset.from_dict(columns)
    return datasets.DatasetDict(found)


def questions_of(relation: Relation, questions: datasets.DatasetDict) -> datasets.DatasetDict:
    """Return one relation's questions of the splits that have any, without the relation's name.

    The birthplace has the column `place` for its only answer, None in the test split; others have a list of `answers`.
    """
    own = questions.filter(lambda row: row["relation"] == relation.name).remove_columns("relation")
    if relation.name == BIRTHPLACE.name:
        features = datasets.Features({**own["train"].features, "place": datasets.Value("string")})
        del features["answers"]
        own = own.map(
            lambda row: {"place": row["answers"][0] if row["answers"] else None},
            remove_columns="answers",
            features=features,
        )
    return datasets.DatasetDict({split: rows for split, rows in own.items() if len(rows)})


def build(source: Source, options: CorruptionOptions, epochs: int, strangers: int, seed: int, cache: Path) -> dict:
    """Return all configurations by name, each a `DatasetDict`."""
    trained = read_questions(source.folder / FILES["train"], source.relations)
    answers = tuple(sorted({question.answer for question in trained}))
    documents = {"train": "documents"}
    corrupted = {"options": options, "answers": answers, "sentinel": SENTINEL_TOKEN, "seed": seed, "epochs": epochs}
    splits = {split: split for split in source.splits}
    questions = prepare(source.builder(ClosedBookQA, splits, cache, relations=source.relations))
    names = tuple(sorted({name for rows in questions.values() for name in rows["name"]}))
    return {
        "biographies": prepare(source.builder(Biographies, documents, cache, names=names)),
        "span_corruption": prepare(source.builder(SpanCorruption, documents, cache, **corrupted)),
        **{relation.name: questions_of(relation, questions) for relation in source.relations},
        "strangers": made_up_people(source, strangers, seed),
    }


def describe_configurations(relations: Sequence[Relation]) -> dict[str, str]:
    """Return what a row of each configuration is."""
    asked = {
        relation.name: f'"{relation.format("NAME")}" and the answer; the test split has questions alone.'
        for relation in relations
    }
    return {**ABOUT, **asked}


def data_card(configurations: dict[str, datasets.DatasetDict], source: Source, repo_id: str, how: str) -> str:
    """Return the card: metadata by which the Hub and `load_dataset` find each part, and what a reader must know."""
    rows = sum(len(split) for parts in configurations.values() for split in parts.values())
    card = DatasetCardData(
        language="en",
        license=source.license,
        pretty_name=repo_id.split("/")[-1],
        task_categories=["question-answering", "text-generation"],
        size_categories=[next((name for limit, name in SIZES if rows < limit), "1M<n<10M")],
    )
    infos = DatasetInfosDict()
    files = MetadataConfigs()
    table = []
    about = describe_configurations(source.relations)
    what = "birthplaces" if source.relations == (BIRTHPLACE,) else "people"
    main = source.relations[0].name
    for name, parts in configurations.items():
        paths = [{"split": split, "path": f"{name}/{split}.parquet"} for split in parts]
        files[name] = {"data_files": paths, **({"default": True} if name == main else {})}
        first = next(iter(parts.values()))
        infos[name] = datasets.DatasetInfo(features=first.features, config_name=name)
        sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in parts.items())
        table.append(f"| `{name}` | {about[name]} | {sizes} | {', '.join(first.column_names)} |")
    infos.to_dataset_card_data(card)
    files.to_dataset_card_data(card)
    return "\n".join(
        [
            f"---\n{card}\n---\n",
            f"# {repo_id.split('/')[-1]}\n",
            f"Biographies, and questions about {what} that they answer or do not.\n",
            "| configuration | a row | rows | columns |\n| :-- | :-- | :-- | :-- |",
            *table,
            "\n```python\nfrom datasets import load_dataset\n",
            f'questions = load_dataset("{repo_id}", "{main}")\n```\n',
            f"## Provenance\n\n{source.provenance} {how}\n",
            "Models are scored on the validation split: nothing should learn from it.\n",
        ]
    )


def write_release(
    source: Source, repo_id: str, target: Path, options: CorruptionOptions, epochs: int, strangers: int, seed: int
) -> None:
    """Write what is published into a folder that is not there yet, or empty.

    Raises:
        PushError: a data file that cannot be used, or something in the folder.
    """
    with as_push_error("the data cannot be published"), tempfile.TemporaryDirectory() as cache:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise PushError(f"{target}: is not empty; choose another folder")
        configurations = build(source, options, epochs, strangers, seed, Path(cache))
        for name, parts in configurations.items():
            for split, rows in parts.items():
                (target / name).mkdir(parents=True, exist_ok=True)
                rows.to_parquet(target / name / f"{split}.parquet")
        settings = ", ".join(f"{one.name} {getattr(options, one.name)}" for one in fields(options))
        how = f"Corrupted {epochs} times with seed {seed}: {settings}."
        DatasetCard(data_card(configurations, source, repo_id, how)).save(target / "README.md")
        write_file_list(target)


def invented(people: int, seed: int, license: str, folder: Path) -> Source:
    """Invent people into a folder; DataError where there are too few."""
    bios = invent(people, seed)
    bios.write(folder)
    text = (
        f"Made up, no person is real: `python -m data_scripts.synthetic_bios FOLDER --people {people} --seed {seed}`"
    )
    return Source(folder, f"{text}; at best {bios.ceiling:.1%} of the validation questions can be answered.", license)


def given(folder: Path, license: str, relations: Sequence[Relation]) -> Source:
    """Name a folder's files by their digests; DataError where one is missing, or has no question of a relation.

    The birthplace, which is always known, may be without questions.
    """
    check_folder(folder, relations)
    path = folder / FILES["train"]
    names = {question.relation for question in read_questions(path, relations)}
    for relation in relations:
        if relation.name not in (*names, BIRTHPLACE.name):
            raise DataError(f"{path}: found no question of the relation {relation.name}")
    asked = tuple(relation for relation in relations if relation.name in names)
    there = [name for name in FILES.values() if (folder / name).is_file()]
    digests = ", ".join(f"`{name}` ({sha256_prefix(folder / name)})" for name in there)
    text = f"Made from these files, named with the beginnings of their SHA-256: {digests}."
    return Source(folder, text, license, asked)


def parse_relation(text: str) -> Relation:
    """Return the relation of `NAME=QUESTION`; PushError for anything else."""
    name, equals, question = text.partition("=")
    if not equals or not NAME.fullmatch(name):
        raise PushError(f"--relation {text}: wanted NAME=QUESTION, the name of letters, digits, _ and -")
    if name in (*ABOUT, BIRTHPLACE.name):
        raise PushError(f"--relation {text}: {name} is the name of another configuration")
    try:
        return Relation(name, question)
    except ValueError as error:
        raise PushError(f"--relation {text}: {error}") from error


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo_id", metavar="USER/NAME", help="the repository; created if it does not exist")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--path", type=Path, metavar="FOLDER", help="a folder in the cs224n layout")
    where.add_argument("--people", type=int, help="number of people to invent")
    parser.add_argument(
        "--license", help="the data's licence, as the Hub names it; required with --path, apache-2.0 with --people"
    )
    parser.add_argument(
        "--relation", action="append", default=[], metavar="NAME=QUESTION",
        help='a further relation of --path, such as "studied=Where did {name} study?"; may be repeated',
    )  # fmt: skip
    parser.add_argument("--policy", choices=POLICIES, default="salient-span", help="how to corrupt (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="corrupted copies of each biography (%(default)s)")
    parser.add_argument("--strangers", type=int, default=500, help="most made-up names per split (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws (%(default)s)")
    parser.add_argument("--private", action="store_true", help="create it private; else as its owner's settings say")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="push nothing; write the files to this folder")
    arguments = parser.parse_args(argv)
    if arguments.path is not None and arguments.license is None:
        parser.error("--license is not set; the files of --path need one")
    if arguments.path is None and arguments.relation:
        parser.error("--relation needs --path: invented people are asked for birthplaces alone")
    for name in ("epochs", "strangers"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, found {getattr(arguments, name)}")
    return arguments


def publish(arguments: argparse.Namespace) -> str:
    """Write or push what the command line asks for; return what was done. DataError and PushError as above."""
    check_repo_id(arguments.repo_id)
    license = "apache-2.0" if arguments.license is None else arguments.license
    check_license(license)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.path is not None:
            source = given(arguments.path, license, (BIRTHPLACE, *map(parse_relation, arguments.relation)))
        else:
            folder = Path(temporary) / "bios"
            source = invented(arguments.people, arguments.seed, license, folder)
        how = (CorruptionOptions(policy=arguments.policy), arguments.epochs, arguments.strangers, arguments.seed)
        if arguments.dry_run is not None:
            write_release(source, arguments.repo_id, arguments.dry_run, *how)
            return f"{arguments.dry_run}: what would be pushed to {arguments.repo_id}"
        release = Path(temporary) / "release"
        write_release(source, arguments.repo_id, release, *how)
        open_repository(arguments.repo_id, arguments.private, MARKER, "dataset")
        return push_folder(release, arguments.repo_id, "Publish biographies and questions", "dataset")


def main(argv: list[str] | None = None) -> int:
    """Publish; return the exit status."""
    arguments = parse_arguments(argv)
    datasets.disable_progress_bars()
    return run_main(lambda: print(publish(arguments)))


if __name__ == "__main__":
    sys.exit(main())
