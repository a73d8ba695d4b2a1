"""The files of one split of a shard."""

from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from mtlrank.batch import Span
from mtlrank.datamodule.dataset.arrays import ArrayFile

NO_TEXT = -1


class StoredRecord(NamedTuple):
    """A record as it is stored; `spans` count from the start of the sequence and are None where one has no tokens."""

    ids: tuple[str, str]
    texts: tuple[int, int, int]  # rows of the first and the second text, and of a note; NO_TEXT for none
    label: float
    spans: list[Span] | None
    cut: bool


class SplitFiles:
    """The rows of one split: sequences, the items in them, and the samples that they form."""

    def __init__(self, folder: Path, num_spans: int) -> None:
        folder.mkdir()
        self.stack = ExitStack()

        def array(name: str, dtype: DTypeLike, *row: int) -> ArrayFile:
            return self.stack.enter_context(ArrayFile(folder / f"{name}.npy", dtype, row))

        self.sequences = array("sequences", np.int32, 3)
        self.sample_offsets = array("sample_offsets", np.int64)
        self.item_offsets = array("item_offsets", np.int64)
        self.labels = array("labels", np.float32)
        self.spans = array("spans", np.int32, num_spans, 2)
        self.ids = self.stack.enter_context((folder / "ids.tsv").open("w", encoding="utf-8", newline="\n"))
        self.dropped = self.cut = 0
        self.sample_offsets.append([0])
        self.item_offsets.append([0])

    def __enter__(self) -> "SplitFiles":
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    @property
    def counts(self) -> dict[str, int]:
        """How much was written and dropped."""
        counts = {"samples": self.sample_offsets.rows - 1, "sequences": self.sequences.rows, "items": self.labels.rows}
        return {**counts, "items_dropped": self.dropped, "sequences_cut": self.cut}

    def add(self, samples: list[list[StoredRecord]]) -> None:
        """Write samples. Consecutive records with equal ids share a sequence. One without items is not written."""
        rows, firsts = list[StoredRecord](), list[StoredRecord]()  # all items, and the first one of each sequence
        item_ends, sample_ends = list[int](), list[int]()
        for sample in samples:
            whole = [row for row in sample if row.spans is not None]
            self.dropped += len(sample) - len(whole)
            for _, items in groupby(whole, key=lambda row: row.ids):
                sequence = list(items)
                firsts.append(sequence[0])
                rows += sequence
                item_ends.append(self.labels.rows + len(rows))
            if whole:
                sample_ends.append(self.sequences.rows + len(firsts))
        self.sample_offsets.append(sample_ends)
        self.item_offsets.append(item_ends)
        self.sequences.append([row.texts for row in firsts])
        self.labels.append([row.label for row in rows])
        self.spans.append([row.spans for row in rows])
        self.ids.write("".join(f"{row.ids[0]}\t{row.ids[1]}\n" for row in firsts))
        self.cut += sum(row.cut for row in firsts)
