"""The third step of preparation: write the corpus, shard by shard, from the parts and what was decided of the people.

Work is done on columns, not on rows: a million people have four million documents.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_scripts.corpus import CANDIDATES, DOCUMENTS, NAMES, PEOPLE, QUESTIONS, SPLITS
from data_scripts.parquet_files import read_batches, renamed_when_done, shard_path, write_parquet
from data_scripts.person_splits import DROPPED, People
from data_scripts.withheld_names import WithheldNames
from modeling_minigpt.relations_minigpt import Relation

SPLIT_NAMES = pa.array([*SPLITS, None], pa.string())


class CorpusWriter:
    """Writes the shards of a corpus and counts what is in them.

    Args:
        folder: the corpus's.
        relations: by name.
        withheld: names of people who may be in no document that is learned from.

    Attributes:
        documents, withheld_documents, people: how many were written.
        withheld_answers: how many training questions were not, as their answers name a withheld person.
        questions: how many, by (relation, split).
        answers: how often training answers a question of a relation by each text, by (relation, answer).
    """

    def __init__(self, folder: Path, relations: Mapping[str, Relation], withheld: Sequence[str]):
        self.folder = folder
        self.relations = relations
        self.withheld = WithheldNames(withheld)
        self.documents = 0
        self.withheld_documents = 0
        self.withheld_answers = 0
        self.people = 0
        self.asked = 0
        self.questions: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[tuple[str, str]] = Counter()
        for name in ("documents", "withheld_documents", "questions", "people"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def write_documents(self, shard: int, titles: pa.Array, texts: pa.Array) -> None:
        """Write a shard of documents, and one of those that name a withheld person."""
        is_withheld = self.withheld.find(texts)
        for name, chosen in (("documents", ~is_withheld), ("withheld_documents", is_withheld)):
            count = int(chosen.sum())
            if name == "withheld_documents" and not count:
                continue
            first = getattr(self, name)
            mask = pa.array(chosen)
            ids = pa.array(np.arange(first, first + count))
            batch = pa.record_batch([ids, titles.filter(mask), texts.filter(mask)], schema=DOCUMENTS)
            write_parquet(shard_path(self.folder / name, shard), DOCUMENTS, slices(batch))
            setattr(self, name, first + count)

    def write_people(self, shard: int, batch: pa.RecordBatch) -> None:
        """Write a shard of people."""
        self.people += write_parquet(shard_path(self.folder / "people", shard), PEOPLE, [batch])

    def write_questions(
        self, shard: int, people: pa.Array, names: pa.Array, relations: pa.Array, answers: pa.Array, splits: pa.Array
    ) -> None:
        """Write a shard of questions; those of the test split lose their answers.

        Questions to learn from whose answers name a withheld person are left out, and counted.

        Args:
            shard: its number.
            people, names, relations, splits: one text a question, (N,).
            answers: its answers, lists of texts, (N,).
        """
        kept = pa.array(~self._teaches_withheld(answers, splits))
        people, names, relations, answers, splits = (
            column.filter(kept) for column in (people, names, relations, answers, splits)
        )
        self.withheld_answers += len(kept) - len(names)
        texts = pa.nulls(len(names), pa.string())
        for name, relation in self.relations.items():
            template = relation.templates[0]
            asked = pc.binary_join_element_wise(template.prefix, names, template.suffix, "")
            texts = pc.if_else(pc.equal(relations, name), asked, texts)
        empty = pa.array([[]] * len(names), pa.list_(pa.string()))
        is_test = pc.equal(splits, "test").to_numpy(zero_copy_only=False)
        if is_test.any():
            rows = np.where(is_test, len(names), 0) + np.arange(len(names))
            answers = pa.concat_arrays([answers, empty]).take(pa.array(rows))
        ids = pa.array(np.arange(self.asked, self.asked + len(names)))
        batch = pa.record_batch([ids, people, names, relations, texts, answers, splits], schema=QUESTIONS)
        self.asked += write_parquet(shard_path(self.folder / "questions", shard), QUESTIONS, slices(batch))
        self.questions.update(count_pairs(relations, splits))
        training = pc.equal(splits, "train")
        first = pc.list_element(answers.filter(training), 0)
        self.answers.update(count_pairs(relations.filter(training), first))

    def _teaches_withheld(self, answers: pa.Array, splits: pa.Array) -> np.ndarray:
        """Return which questions are learned from and have an answer that names a withheld person, (N,)."""
        different = pc.unique(pc.list_flatten(answers))
        named = different.filter(pa.array(self.withheld.find(different)))
        is_named = pc.is_in(pc.list_flatten(answers), value_set=named).to_numpy(zero_copy_only=False)
        found = np.zeros(len(answers), bool)
        found[pc.list_parent_indices(answers).to_numpy()[is_named]] = True
        return found & pc.equal(splits, "train").to_numpy(zero_copy_only=False)

    def write_candidates(self) -> None:
        """Write the training answers of each relation, the most frequent first."""
        rows = sorted(self.answers.items(), key=lambda item: (item[0][0], -item[1], item[0][1]))
        columns = [
            [relation for (relation, _), _ in rows],
            [answer for (_, answer), _ in rows],
            [count for _, count in rows],
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, CANDIDATES, strict=True)]
        write_parquet(self.folder / "candidates.parquet", CANDIDATES, [pa.record_batch(arrays, schema=CANDIDATES)])

    def write_names(self, hashes: np.ndarray) -> None:
        """Write the hashes of names, sorted, with those that are there already."""
        path = self.folder / NAMES
        known = np.load(path) if path.is_file() else np.zeros(0, np.uint64)
        with renamed_when_done(path) as partial, partial.open("wb") as file:
            np.save(file, np.union1d(known, hashes))


def slices(batch: pa.RecordBatch, rows: int = 20_000) -> Iterator[pa.RecordBatch]:
    """Yield a batch in row groups."""
    for first in range(0, batch.num_rows, rows):
        yield batch.slice(first, rows)


def count_pairs(first: pa.Array, second: pa.Array) -> dict[tuple[str, str], int]:
    """Return how often each pair of texts is in two columns."""
    table = pa.table({"first": first, "second": second}).group_by(["first", "second"]).aggregate([([], "count_all")])
    columns = (table[name].to_pylist() for name in ("first", "second", "count_all"))
    return {(one, other): count for one, other, count in zip(*columns, strict=True)}


def write_people_corpus(
    parts: Sequence[Path], people: People, folder: Path, relations: Mapping[str, Relation]
) -> CorpusWriter:
    """Write the corpus of a source of people; return the writer, which has counted what is in it.

    Args:
        parts: files of the first step.
        people: what the second step has decided.
        folder: the corpus's.
        relations: by name.
    """
    writer = CorpusWriter(folder, relations, people.withheld)
    merged = SharedNames(people)
    shard = 0
    first = 0
    for batch in read_batches(parts):
        codes = people.codes[first : first + batch.num_rows]
        hashes = people.names[first : first + batch.num_rows]
        unasked = people.unasked[first : first + batch.num_rows]
        first += batch.num_rows
        chosen = codes != DROPPED
        batch = batch.filter(pa.array(chosen))
        codes = codes[chosen]
        splits = SPLIT_NAMES.take(pa.array(codes))
        writer.write_people(
            shard, pa.record_batch([batch["id"], batch["name"], batch["popularity"], splits], schema=PEOPLE)
        )
        writer.write_documents(
            shard, batch["name"].take(pc.list_parent_indices(batch["texts"])), pc.list_flatten(batch["texts"])
        )
        alone = merged.take_out(batch, hashes[chosen], codes, unasked[chosen])
        asked = batch.filter(pa.array(alone))
        owners = pc.list_parent_indices(asked["relations"])
        writer.write_questions(
            shard,
            asked["id"].take(owners),
            asked["name"].take(owners),
            pc.list_flatten(asked["relations"]),
            pc.list_flatten(asked["answers"]),
            splits.filter(pa.array(alone)).take(owners),
        )
        shard += 1
    if merged.questions:
        writer.write_questions(shard, *merged.columns())
    writer.people = people.count  # who may have several rows
    writer.write_candidates()
    writer.write_names(people.names)  # of those left out, too: they are no strangers
    return writer


class SharedNames:
    """People who share a name, where all are taken: one question asks for all of them, and any one's answer is right.

    Args:
        people: everybody.

    Attributes:
        questions: the first person, the code of the split and the answers, by name and relation.
    """

    def __init__(self, people: People):
        self.shared = people.repeated
        self.questions: dict[tuple[str, str], tuple[str, int, list[str]]] = {}

    def take_out(
        self, batch: pa.RecordBatch, hashes: np.ndarray, codes: np.ndarray, unasked: np.ndarray
    ) -> np.ndarray:
        """Remember the questions about shared names of a batch; return which others are asked about alone, (N,)."""
        is_shared = np.isin(hashes, self.shared)
        for index in np.flatnonzero(is_shared & ~unasked).tolist():
            row = {name: batch[name][index].as_py() for name in ("id", "name", "relations", "answers")}
            for relation, answers in zip(row["relations"], row["answers"], strict=True):
                key = (row["name"], relation)
                known = self.questions.setdefault(key, (row["id"], int(codes[index]), []))
                known[2].extend(answer for answer in answers if answer not in known[2])
        return ~is_shared & ~unasked

    def columns(self) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array, pa.Array]:
        """Return the questions as columns of people, names, relations, answers and splits."""
        names, relations = zip(*self.questions, strict=True)
        people, codes, answers = zip(*self.questions.values(), strict=True)
        return (
            pa.array(people, pa.string()),
            pa.array(names, pa.string()),
            pa.array(relations, pa.string()),
            pa.array(answers, pa.list_(pa.string())),
            SPLIT_NAMES.take(pa.array(codes)),
        )
