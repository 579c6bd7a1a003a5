"""The second step of preparation: decide, from all people, who is left out and who is in which split.

Only hashes of ids and names are in memory, 8 bytes each: a million people need 30 MB.
"""

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from configuration.schema import DataArguments
from data_scripts.bios_folder import DataError
from data_scripts.corpus import SPLITS
from data_scripts.parquet_files import read_batches
from data_scripts.sources.base import split_key

DROPPED = len(SPLITS)  # the code of people who are left out, after those of the splits
CODES = {name: code for code, name in enumerate(SPLITS)}
PARTS = ("calibration", "withheld", "held_out")  # of the training people, in the order in which they are drawn


def hash_of(text: str) -> bytes:
    """Return the hash by which people are drawn, the same on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def hash_number(text: str) -> int:
    """Return the same as a number from 0 to 2^64 - 1."""
    return int.from_bytes(hash_of(text), "big")


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
        codes: of `CODES`, or `DROPPED`; (N,).
        shared: the hashes of names that several people have, sorted.
        repeated: the hashes of names that several rows have and of which none is left out, sorted.
        dropped: how many people are left out.
        withheld: names of the people that no stage sees.

    Raises:
        DataError: nobody would be left to learn from.
    """

    def __init__(self, parts: Sequence[Path], data: DataArguments, source: str):
        names: list[np.ndarray] = []
        ids: list[np.ndarray] = []
        splits: list[np.ndarray] = []
        has_answers: list[np.ndarray] = []
        train_limit = int(data.train_fraction * 2.0**64)
        for batch in read_batches(parts, ["id", "name", "split", "relations"]):
            names.append(np.array([hash_number(name) for name in batch["name"].to_pylist()], np.uint64))
            own_ids = batch["id"].to_pylist()
            ids.append(np.array([hash_number(one) for one in own_ids], np.uint64))
            keys = [hash_number(split_key(one)) for one in own_ids]
            codes = [
                CODES[split] if split else CODES["train" if key < train_limit else "dev"]
                for key, split in zip(keys, batch["split"].to_pylist(), strict=True)
            ]
            splits.append(np.array(codes, np.uint8))
            has_answers.append(pc.list_value_length(batch["relations"]).to_numpy(zero_copy_only=False) > 0)
        if not names:
            raise DataError(f"{source}: nobody is in it")
        self.names = np.concatenate(names)
        self.codes = np.concatenate(splits)
        self._share_names(np.concatenate(ids), data)
        is_training = (self.codes == CODES["train"]) & np.concatenate(has_answers)
        people = len(np.unique(self.names[is_training]))
        if sum(part_sizes(data)) >= people:
            raise too_few(source, people, part_sizes(data))
        self.withheld = self._draw(parts, data, is_training)

    def _share_names(self, ids: np.ndarray, data: DataArguments) -> None:
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
            self.dropped = int(is_shared.sum())
            self.repeated = np.setdiff1d(self.repeated, self.shared)
        # One question asks for all rows of a name: the first one's split is that of all.
        _, first, group = np.unique(self.names, return_index=True, return_inverse=True)
        self.codes = self.codes[first][group]

    def _draw(self, parts: Iterable[Path], data: DataArguments, is_training: np.ndarray) -> list[str]:
        """Draw calibration, withheld and held-out people among those trained on; return the withheld ones' names."""
        sizes = part_sizes(data)
        if not sum(sizes):
            return []
        smallest = SmallestHashes(sizes)
        seen: set[int] = set()
        is_repeated = np.isin(self.names, self.repeated)
        first = 0
        for batch in read_batches(parts, ["name"]):
            chosen = np.flatnonzero(is_training[first : first + batch.num_rows])
            for index, name in zip(chosen, batch["name"].take(chosen).to_pylist(), strict=True):
                number = int(self.names[first + index])
                if number not in seen:
                    smallest.add(name)
                # Only these names come twice, and they are few.
                if is_repeated[first + index]:
                    seen.add(number)
            first += batch.num_rows
        drawn = smallest.draw()
        for part, own in zip(PARTS, drawn, strict=True):
            self.codes[np.isin(self.names, np.array([hash_number(name) for name in own], np.uint64))] = CODES[part]
        return drawn[PARTS.index("withheld")]
