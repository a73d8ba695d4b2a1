"""Reading a prepared dataset: whole batches assembled at once from memory-mapped tokens."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mtlrank.batch import TaskBatch
from mtlrank.datamodule.dataset.writer import NO_TEXT, offsets
from mtlrank.datamodule.preprocessor import Template
from mtlrank.task import Task

Ints = NDArray[np.int64]


class TokenStore:
    """The tokens of all texts of a prepared dataset, and how they are joined to sequences."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.offsets: Ints = np.load(folder / "token_offsets.npy")
        template = manifest["template"]
        self.template = Template(
            tuple(template["prefix"]), tuple(template["middle"]), tuple(template["suffix"]), template["second_type"]
        )
        self.max_length: int = manifest["max_length"]
        self.max_query_length: int = manifest["max_query_length"]

    def pack(self, sequences: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Join texts to sequences: flat tokens, their types, where sequences start, where the last text starts in each.

        `sequences` is (n, 2): rows of the first and the second text, NO_TEXT for none.
        """
        first, second = sequences[:, 0], sequences[:, 1]
        paired = second != NO_TEXT
        before, between, after = (len(part) for part in self.template[:3])
        special = before + np.where(paired, between, 0) + after
        room = self.max_length - special
        first_length = np.minimum(self._length(first), np.where(paired, self.max_query_length, room))
        second_length = np.where(paired, np.minimum(self._length(np.maximum(second, 0)), room - first_length), 0)

        starts = offsets(special + first_length + second_length)
        first_start = starts[:-1] + before
        middle_start = first_start + first_length
        second_start = middle_start + np.where(paired, between, 0)
        suffix_start = second_start + second_length

        ids = np.empty(starts[-1], dtype=np.int64)
        _put(ids, starts[:-1], self.template.prefix)
        _put(ids, middle_start[paired], self.template.middle)
        _put(ids, suffix_start, self.template.suffix)
        for text, start, length in ((first, first_start, first_length), (second, second_start, second_length)):
            ids[ranges(start, length)] = self.tokens[ranges(self.offsets[text], length)]
        types = np.zeros(starts[-1], dtype=np.int64)
        types[ranges(second_start[paired], (starts[1:] - second_start)[paired])] = self.template.second_type
        return ids, types, starts, np.where(paired, second_start, first_start)

    def _length(self, text: Ints) -> Ints:
        return self.offsets[text + 1] - self.offsets[text]


class PreparedSplit:
    """One split of a prepared dataset: `len` counts samples, `collate` makes a batch of some of them."""

    def __init__(self, folder: Path, store: TokenStore, task: Task) -> None:
        self.folder = folder
        self.store = store
        self.task = task
        self.sequences: NDArray[np.int32] = np.load(folder / "sequences.npy", mmap_mode="r")
        self.sample_offsets: Ints = np.load(folder / "sample_offsets.npy")
        self.item_offsets: Ints = np.load(folder / "item_offsets.npy")
        self.labels: NDArray[np.float32] = np.load(folder / "labels.npy", mmap_mode="r")
        self.spans: NDArray[np.int32] = np.load(folder / "spans.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.sample_offsets) - 1

    def collate(self, sample_ids: Sequence[int] | Ints) -> TaskBatch:
        """The samples as one packed batch, in the given order."""
        samples = np.asarray(sample_ids, dtype=np.int64)
        sequences_per_sample = self.sample_offsets[samples + 1] - self.sample_offsets[samples]
        sequences = ranges(self.sample_offsets[samples], sequences_per_sample)
        items_per_sequence = self.item_offsets[sequences + 1] - self.item_offsets[sequences]
        items = ranges(self.item_offsets[sequences], items_per_sequence)
        item_sequence = np.repeat(np.arange(len(sequences)), items_per_sequence)
        sequence_sample = np.repeat(np.arange(len(samples)), sequences_per_sample)
        ids, types, starts, text_start = self.store.pack(self.sequences[sequences].astype(np.int64))
        spans = self.spans[items].astype(np.int64) + text_start[item_sequence][:, None, None]
        return TaskBatch(
            input_ids=torch.from_numpy(ids),
            token_type_ids=torch.from_numpy(types),
            cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
            max_seqlen=int(np.diff(starts).max(initial=0)),
            labels=torch.from_numpy(self.labels[items]),
            spans=torch.from_numpy(spans),
            item_sequence=torch.from_numpy(item_sequence),
            item_sample=torch.from_numpy(sequence_sample[item_sequence]),
            sample_ids=torch.from_numpy(samples),
        )

    def items_of(self, sample: int) -> range:
        """The items of a sample, as positions in `labels`."""
        first, last = self.sample_offsets[sample], self.sample_offsets[sample + 1]
        return range(int(self.item_offsets[first]), int(self.item_offsets[last]))

    @cached_property
    def sequence_of_item(self) -> Ints:
        """The sequence of each item of the split."""
        sequences: Ints = np.repeat(np.arange(len(self.sequences)), np.diff(self.item_offsets))
        return sequences

    @cached_property
    def ids(self) -> list[tuple[str, str]]:
        """(query_id, doc_id) of each sequence."""
        lines = (self.folder / "ids.tsv").read_text(encoding="utf-8").splitlines()
        return [(query_id, doc_id) for query_id, doc_id in (line.split("\t") for line in lines)]


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """The numbers start, start + 1, ... of several ranges, one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    shift = np.asarray(starts, dtype=np.int64) - (ends - lengths)
    numbers: Ints = np.arange(total) + np.repeat(shift, lengths)
    return numbers


def _put(target: Ints, starts: Ints, values: Sequence[int]) -> None:
    for step, value in enumerate(values):
        target[starts + step] = value
