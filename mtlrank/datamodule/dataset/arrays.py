"""Arrays larger than memory: written row by row, read as one array from any number of files."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mtlrank.dtypes import Ints

Array = NDArray[Any]


class ArrayFile:
    """An .npy file that grows: rows are appended, and closing it writes their number into the header."""

    def __init__(self, path: Path, dtype: DTypeLike, row: tuple[int, ...] = ()) -> None:
        self.dtype = np.dtype(dtype)
        self.row = row
        self.rows = 0
        self._file = path.open("wb")
        self._header()
        self._start = self._file.tell()

    def append(self, rows: Any) -> None:
        """Write more rows."""
        array = np.ascontiguousarray(rows, dtype=self.dtype).reshape(len(rows), *self.row)
        self._file.write(array.tobytes())
        self.rows += len(array)

    def close(self) -> None:
        """Write the header and make sure that all of it is on the disk."""
        self._file.seek(0)
        self._header()
        assert self._file.tell() == self._start, "numpy leaves room for the length in the header"
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._file.close() if kind else self.close()

    def _header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._file, {**header, "shape": (self.rows, *self.row)})


class Chained:
    """Several arrays one after another, indexed as one. `decode` converts stored rows, given their part's number."""

    def __init__(self, parts: Sequence[Array], decode: Callable[[int, Array], Array] | None = None) -> None:
        self.parts = list(parts)
        self.starts = offsets([len(part) for part in parts])
        self.decode = decode or (lambda _, values: values)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: Ints) -> Array:
        """The rows, in the given order."""
        if len(self.parts) == 1:
            return self.decode(0, self.parts[0][rows])
        result = None
        for part, here, within in _by_part(self.starts, rows):
            values = self.decode(part, self.parts[part][within])
            if result is None:
                result = np.empty((len(rows), *values.shape[1:]), dtype=values.dtype)
            result[here] = values
        return self.decode(0, self.parts[0][:0]) if result is None else result

    def all(self) -> Array:
        """Everything, in memory."""
        return np.concatenate([self.decode(number, part[:]) for number, part in enumerate(self.parts)])


class RowRanges:
    """Ranges of rows in shards, such as the sequences of each sample; numbers continue from one shard to the next.

    With `chosen`, only these ranges, numbered from 0.
    """

    def __init__(self, ends: Sequence[Ints], chosen: Ints | None = None) -> None:
        self._ends = list(ends)  # for each shard, where each range begins, and where the last one ends
        self._chosen = chosen
        self._first_range = offsets([len(ends) - 1 for ends in self._ends])
        self._first_row = offsets([int(ends[-1]) for ends in self._ends])

    def __len__(self) -> int:
        return int(self._first_range[-1]) if self._chosen is None else len(self._chosen)

    def __getitem__(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Where some ranges begin, and how long they are."""
        if self._chosen is not None:
            numbers = self._chosen[numbers]
        if len(self._ends) == 1:
            first = self._ends[0][numbers]
            return first, self._ends[0][numbers + 1] - first
        first, length = np.empty((2, len(numbers)), dtype=np.int64)
        for shard, here, mine in _by_part(self._first_range, numbers):
            ends = self._ends[shard]
            first[here] = ends[mine] + self._first_row[shard]
            length[here] = ends[mine + 1] - ends[mine]
        return first, length

    def ranges_of(self, rows: Ints) -> Ints:
        """The ranges that some rows are in, each once and in order; those that are not chosen are left out."""
        found = np.empty(len(rows), dtype=np.int64)
        for shard, here, mine in _by_part(self._first_row, rows):
            found[here] = np.searchsorted(self._ends[shard], mine, side="right") - 1 + self._first_range[shard]
        distinct = np.unique(found)
        return distinct if self._chosen is None else np.flatnonzero(np.isin(self._chosen, distinct))


def _by_part(starts: Ints, numbers: Ints) -> Iterator[tuple[int, NDArray[np.bool_], Ints]]:
    """For each part that some numbers are in: the part, which of the numbers these are, and their places in it."""
    part_of = np.searchsorted(starts, numbers, side="right") - 1
    for part in np.unique(part_of).tolist():
        here = part_of == part
        yield part, here, numbers[here] - starts[part]


def mapped(path: Path) -> Array:
    """An .npy file, mapped into memory; as a plain array, which is indexed faster than a memmap."""
    return np.asarray(np.load(path, mmap_mode="r"))


def offsets(lengths: Sequence[int] | Ints) -> Ints:
    """Where each of several ranges of the given lengths starts; the last entry is where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """The numbers start, start + 1, ... of several ranges, one after another."""
    if (lengths == 1).all():
        return starts
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    shift = np.asarray(starts, dtype=np.int64) - (ends - lengths)
    numbers: Ints = np.arange(total) + np.repeat(shift, lengths)
    return numbers
