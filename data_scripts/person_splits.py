"""The second step of preparation: decide, from all people, who is left out and who is in which split.

Only hashes of ids and names are in memory, 8 bytes each: a million people need 100 MB.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configuration.schema import DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.corpus import SPLITS
from data_scripts.parquet_files import read_batches
from data_scripts.sources.base import split_key
from modeling_minigpt.questions_minigpt import normalise

DROPPED = len(SPLITS)  # the code of people who are left out, after those of the splits
CODES = {name: code for code, name in enumerate(SPLITS)}
PARTS = ("calibration", "withheld", "held_out")  # of the training people, in the order in which they are drawn


def hash_of(text: str) -> bytes:
    """Return the hash by which people are drawn, the same on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def hash_number(text: str) -> int:
    """Return the same as a number from 0 to 2^64 - 1."""
    return int.from_bytes(hash_of(text), "big")


def name_key(name: str) -> str:
    """Return what the spellings of a person's name have in common: case and the full stop of "Bo Lind Jr." apart.

    Whoever has the same key is the same person to splits and to the record of what a model was trained on.
    """
    return normalise(name).casefold().rstrip(".")


def part_sizes(data: DataArguments) -> list[int]:
    """Return how many training people are drawn for each of `PARTS`."""
    return [data.calibration_questions, data.withheld_people, data.validation_questions]


def too_few(place: object, people: int, sizes: Sequence[int]) -> DataError:
    """Return the error of a source that would leave nobody to learn from."""
    return DataError(
        f"{place}: asks for {people} people, but the recipe holds out {sum(sizes)} "
        "(data.validation_questions, data.calibration_questions and data.withheld_people)"
    )


class SmallestHashes:
    """The names that have the smallest hashes for each part, among names that come one by one.

    A part's hashes are of its number and the name: whoever leaves the first part does not push another one out of the
    second. Part n is drawn among those in no earlier part, so it remembers as many more as these have.
    """

    def __init__(self, sizes: Sequence[int]):
        self.sizes = sizes
        # The heap has the largest hash that is still in: it is negated, as heapq has the smallest first.
        self.heaps: list[list[tuple[int, str]]] = [[] for _ in sizes]

    def add(self, name: str) -> None:
        """Consider a name; each comes once."""
        for number, heap in enumerate(self.heaps):
            if not self.sizes[number]:
                continue
            entry = (-hash_number(f"{number} {name}"), name)
            if len(heap) < sum(self.sizes[: number + 1]):
                heapq.heappush(heap, entry)
            elif entry[0] > heap[0][0]:
                heapq.heapreplace(heap, entry)

    def draw(self) -> list[list[str]]:
        """Return each part's names."""
        taken: set[str] = set()
        drawn = []
        for size, heap in zip(self.sizes, self.heaps, strict=True):
            free = [name for _, name in sorted(heap, key=lambda entry: (-entry[0], entry[1])) if name not in taken]
            drawn.append(free[:size])
            taken.update(drawn[-1])
        return drawn


class People:
    """Everybody of a source, by number.

    Args:
        parts: files of the first step.
        data: the recipe's section.
        source: its name, for messages.

    Attributes:
        names: hashes of their names, (N,).
        groups: the first row of the same person, by id or name; (N,).
        codes: of `CODES`, or `DROPPED`; (N,).
        shared: the hashes of names that several people have, sorted.
        repeated: the hashes of names that several rows have and of which none is left out, sorted.
        dropped: how many people are left out, by their ids.
        count: how many are not.
        unasked: rows about which nothing is asked, as the person is asked about by another name; (N,).
        withheld: names of the people that no stage sees.

    Raises:
        DataError: nobody would be left to learn from.
    """

    def __init__(self, parts: Sequence[Path], data: DataArguments, source: str):
        names: list[np.ndarray] = []
        ids: list[np.ndarray] = []
        keys: list[np.ndarray] = []
        splits: list[np.ndarray] = []
        has_answers: list[np.ndarray] = []
        train_limit = int(data.train_fraction * 2.0**64)
        for batch in read_batches(parts, ["id", "name", "split", "relations"]):
            own_names = batch["name"].to_pylist()
            names.append(np.array([hash_number(name) for name in own_names], np.uint64))
            keys.append(np.array([hash_number(name_key(name)) for name in own_names], np.uint64))
            own_ids = batch["id"].to_pylist()
            ids.append(np.array([hash_number(one) for one in own_ids], np.uint64))
            draws = [hash_number(split_key(one)) for one in own_ids]
            codes = [
                CODES[split] if split else CODES["train" if draw < train_limit else "dev"]
                for draw, split in zip(draws, batch["split"].to_pylist(), strict=True)
            ]
            splits.append(np.array(codes, np.uint8))
            has_answers.append(pc.list_value_length(batch["relations"]).to_numpy(zero_copy_only=False) > 0)
        if not names:
            raise DataError(f"{source}: nobody is in it")
        self.names = np.concatenate(names)
        self.codes = np.concatenate(splits)
        self._share_names(np.concatenate(ids), np.concatenate(keys), data)
        is_training = (self.codes == CODES["train"]) & np.concatenate(has_answers)
        people = len(np.unique(self.groups[is_training]))
        if sum(part_sizes(data)) >= people:
            raise too_few(source, people, part_sizes(data))
        self.withheld = self._draw(parts, data, is_training)
        self.unasked = self._other_names(is_training)

    def _share_names(self, ids: np.ndarray, keys: np.ndarray, data: DataArguments) -> None:
        """Leave out people who share a name, or put them into one split; rows of one id are one person."""
        order = np.lexsort((ids, self.names))
        names = self.names[order]
        follows = names[1:] == names[:-1]  # the row before it in this order has the same name
        is_other = ids[order][1:] != ids[order][:-1]
        self.shared = np.unique(names[1:][follows & is_other])
        self.repeated = np.unique(names[1:][follows])
        self.dropped = 0
        if data.names == "unique":
            is_shared = np.isin(self.names, self.shared)
            self.codes[is_shared] = DROPPED
            self.dropped = len(np.unique(ids[is_shared]))
            self.repeated = np.setdiff1d(self.repeated, self.shared)
        # Whoever is left out joins nobody: nothing is learned of them.
        kept = np.flatnonzero(self.codes != DROPPED)
        self.groups = np.arange(len(ids))
        self.count = len(np.unique(ids[kept]))
        self.groups[kept] = kept[first_rows(ids[kept], keys[kept])]
        # One question asks for all rows of a name, and one person may have several: the first row's split is that of
        # all of them.
        self.codes = self.codes[self.groups]

    def _draw(self, parts: Iterable[Path], data: DataArguments, is_training: np.ndarray) -> list[str]:
        """Draw calibration, withheld and held-out people among those trained on; return the withheld ones' names."""
        sizes = part_sizes(data)
        if not sum(sizes):
            return []
        smallest = SmallestHashes(sizes)
        seen: set[int] = set()
        is_repeated = (np.bincount(self.groups, minlength=len(self.groups)) > 1)[self.groups]
        first = 0
        for batch in read_batches(parts, ["name"]):
            chosen = np.flatnonzero(is_training[first : first + batch.num_rows])
            for index, name in zip(chosen, batch["name"].take(chosen).to_pylist(), strict=True):
                number = int(self.groups[first + index])
                if number not in seen:
                    smallest.add(name)
                # Only these people come twice, and they are few.
                if is_repeated[first + index]:
                    seen.add(number)
            first += batch.num_rows
        drawn = smallest.draw()
        for part, own in zip(PARTS, drawn, strict=True):
            is_drawn = np.isin(self.names, np.array([hash_number(name) for name in own], np.uint64)) & is_training
            self.codes[np.isin(self.groups, self.groups[is_drawn])] = CODES[part]
        withheld = drawn[PARTS.index("withheld")]
        others = is_repeated & (self.codes == CODES["withheld"])
        return list(dict.fromkeys([*withheld, *read_names(parts, others)])) if others.any() else withheld

    def _other_names(self, is_training: np.ndarray) -> np.ndarray:
        """Return which rows of calibration and withheld people have another name than the one that is asked for.

        A certificate counts its questions as independent, and two names of one person are not. The name is the one
        with the smallest hash: the first row's may be the one that is known best.
        """
        counted = np.isin(self.codes, [CODES["calibration"], CODES["withheld"]]) & is_training
        smallest = np.full(len(self.names), np.iinfo(np.uint64).max)
        np.minimum.at(smallest, self.groups[counted], self.names[counted])
        return counted & (self.names != smallest[self.groups])


def first_rows(ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return for each row the first one of the same person: rows that an id or a key joins, also by way of others.

        ids      1 1 2 3
        keys     a b b c    row 0 and row 2 are joined by row 1
        returns  0 0 0 3

    Args:
        ids, keys: hashes, (N,).
    """
    groupings = [np.unique(one, return_inverse=True)[1] for one in (ids, keys)]
    rows = np.arange(len(ids))
    while True:
        before = rows
        for grouping in groupings:
            smallest = np.full(len(ids), len(ids))
            np.minimum.at(smallest, grouping, rows)
            rows = smallest[grouping]
        rows = rows[rows]  # twice as far at each turn
        if np.array_equal(rows, before):
            return rows


def read_names(parts: Iterable[Path], chosen: np.ndarray) -> Iterator[str]:
    """Yield the names of the chosen rows of the first step's files; `chosen` is (N,)."""
    first = 0
    for batch in read_batches(parts, ["name"]):
        yield from batch["name"].filter(pa.array(chosen[first : first + batch.num_rows])).to_pylist()
        first += batch.num_rows
