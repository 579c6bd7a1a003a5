"""Prepare a corpus from a folder in the cs224n layout, whose files say what is learned and what is scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from configuration.schema import DataArguments
from data_scripts.bios_folder import FILES, DataError, check_files, check_titles, read_lines, read_questions
from data_scripts.corpus import PEOPLE
from data_scripts.corpus_writer import CorpusWriter
from data_scripts.person_splits import PARTS, SmallestHashes, hash_number, name_key, part_sizes, too_few
from data_scripts.questions import Question
from data_scripts.source_parts import Dropped, has_special_token
from data_scripts.titles import split_title
from modeling_minigpt.relations_minigpt import Relation


def split_questions(questions: Sequence[Question], sizes: Sequence[int], place: Path) -> list[list[Question]]:
    """Draw parts of the given sizes, and return them and what is left, each in the questions' order.

    A part is the people whose names have the smallest hashes, so a line more or less moves one person at most into a
    part or out of it, whatever its place in the file. A person with several questions stays in one part, in
    whatever case the name is written.

    Raises:
        DataError: nothing would be left.
    """
    people: dict[str, str] = {}  # the first spelling of each name
    for question in questions:
        people.setdefault(name_key(question.name), question.name)
    if sum(sizes) >= len(people):
        raise too_few(place, len(people), sizes)
    # By the name, not by the run's seed: models of several seeds hold out the same people, so that they can be
    # compared, and a finetuning that starts from another run's model does not meet the people it is scored on.
    smallest = SmallestHashes(sizes)
    for name in people.values():
        smallest.add(name)
    drawn = smallest.draw()
    number_of = {name_key(name): number for number, names in enumerate(drawn) for name in names}
    parts: list[list[Question]] = [[] for _ in range(len(sizes) + 1)]
    for question in questions:
        parts[number_of.get(name_key(question.name), len(sizes))].append(question)
    return parts


def read_documents(path: Path, dropped: Dropped) -> list[str]:
    """Return a file's documents without those that have special tokens, which are counted in `dropped`."""
    documents = []
    for number, line in enumerate(read_lines(path), start=1):
        if has_special_token(line):
            dropped.texts += 1
            dropped.note(f"{path}:{number}")
        else:
            documents.append(line)
    if not documents:
        raise DataError(f"{path}: every line has a special token")
    return documents


def read_answered(path: Path, relations: Sequence[Relation], dropped: Dropped) -> list[Question]:
    """Return a file's questions without those that have special tokens, which are counted in `dropped`."""
    questions = []
    for number, question in enumerate(read_questions(path, relations), start=1):
        if has_special_token("".join((question.text, *question.answers))):
            dropped.facts += 1
            dropped.note(f"{path}:{number}")
        else:
            questions.append(question)
    return questions


def write_divided_corpus(
    files: Path, folder: Path, relations: Mapping[str, Relation], data: DataArguments
) -> tuple[CorpusWriter, Dropped]:
    """Write the corpus of a folder of files; return the writer, which has counted what is in it, and what was dropped.

    Args:
        files: the folder in the cs224n layout.
        folder: the corpus's.
        relations: by name.
        data: the recipe's section.

    Raises:
        DataError: a file is missing or not in the layout, or nothing would be left to learn from.
    """
    check_files(files)
    dropped = Dropped()
    asked = read_answered(files / FILES["train"], tuple(relations.values()), dropped)
    names = {question.name for question in asked}
    check_titles(files / FILES["documents"], names)
    documents = read_documents(files / FILES["documents"], dropped)
    parts = split_questions(asked, part_sizes(data), files / FILES["train"])
    splits = dict(zip((*PARTS, "train"), parts, strict=True))
    writer = CorpusWriter(folder, relations, [question.name for question in splits["withheld"]])
    titles = [split_title(document, names)[0] for document in documents]
    writer.write_documents(0, pa.array(titles, pa.string()), pa.array(documents, pa.string()))
    if not writer.documents:
        raise DataError(
            f"{files / FILES['documents']}: every line names a withheld person; lower data.withheld_people"
        )
    write_questions(writer, 0, splits)
    writer.write_candidates()
    return writer, dropped


def write_scored_questions(
    files: Path, folder: Path, relations: Mapping[str, Relation], asked: int
) -> tuple[CorpusWriter, Dropped]:
    """Add the questions of the dev file to a corpus; return the writer, which has counted them, and what was dropped.

    Args:
        files: the folder in the cs224n layout.
        folder: the corpus's.
        relations: by name.
        asked: how many questions the corpus has of the training file.

    Raises:
        DataError: a file is not in the layout, or every question of the dev file has a special token.
    """
    dropped = Dropped()
    path = files / FILES["validation"]
    questions = read_answered(path, tuple(relations.values()), dropped)
    if not questions:
        raise DataError(f"{path}: every line has a special token")
    writer = CorpusWriter(folder, relations, [])
    writer.asked = asked
    write_questions(writer, 1, {"dev": questions})
    return writer, dropped


def write_questions(writer: CorpusWriter, shard: int, questions: Mapping[str, Sequence[Question]]) -> None:
    """Write a shard of questions, by their splits, and of the people asked about; a person's id is the name."""
    rows = [
        (one.name, one.name, one.relation, list(one.answers), split) for split, own in questions.items() for one in own
    ]
    people, names, relations, answers, splits = zip(*rows, strict=True)
    columns = [pa.array(column, pa.string()) for column in (people, names, relations)]
    writer.write_questions(shard, *columns, pa.array(answers, pa.list_(pa.string())), pa.array(splits, pa.string()))
    split_of = dict(zip(reversed(names), reversed(splits), strict=True))
    writer.write_people(shard, people_batch(split_of))
    writer.write_names(np.array([hash_number(name) for name in split_of], np.uint64))


def people_batch(splits: Mapping[str, str]) -> pa.RecordBatch:
    """Return people as a batch, by their names and splits."""
    names = pa.array(splits, pa.string())
    popularity = pa.nulls(len(names), pa.int64())
    return pa.record_batch([names, names, popularity, pa.array(splits.values(), pa.string())], schema=PEOPLE)
