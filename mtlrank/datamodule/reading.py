"""The state of reading a split: bad rows that are set aside, counts of repairs, progress."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import NamedTuple

from mtlrank.checks import choice
from mtlrank.errors import DataError
from mtlrank.progress import Progress


class BadRow(NamedTuple):
    """A row that cannot be used."""

    place: str  # as in `train.tsv:17`
    reason: str
    row: str  # its beginning


class Reading:
    """Handles bad rows: the first one is an error, or up to `max_bad_rows` are set aside (`on_bad_row=quarantine`).

    Sources call `reject` for a row that they cannot make a record of and continue with the next one, `count` for what they
    repair or leave out, and `at` to say how far they are.
    """

    def __init__(self, on_bad_row: str = "stop", max_bad_rows: int = 100, what: str = "", hint: bool = True) -> None:
        self.on_bad_row = choice(("stop", "quarantine")).check("on_bad_row", on_bad_row)
        self.hint = " (prepare.on_bad_row=quarantine sets bad rows aside.)" if hint else ""
        self.max_bad_rows = max_bad_rows
        self.bad_rows: dict[str, BadRow] = {}  # by place: a file that is read twice has its bad rows once
        self.counts: dict[str, Counter[str]] = {}  # by split: what was repaired or left out, and how often
        self._counted: set[tuple[str, str]] = set()
        self.what = what
        self.part = slice(0, None)  # which lines, or rows, of a file are read, counted from 0
        self._file, self._files = 0, 1  # index of the file being read, and how many there are
        self.start("train")

    @classmethod
    def silent(cls) -> "Reading":
        """Sets all bad rows aside: for data whose problems another reading reports."""
        return cls("quarantine", sys.maxsize)

    def start(self, split: str) -> None:
        """Begin to read a split."""
        self.split = split
        self.progress = Progress(self.what and f"prepare {self.what}/{split}", "rows")

    def reject(self, place: str, reason: str, row: str = "") -> None:
        """Set a bad row aside. Raises `DataError` if none may be (`on_bad_row=stop`), or if there are too many."""
        if self.on_bad_row == "stop":
            raise DataError(f"{place}: {reason}.{self.hint}")
        self.bad_rows.setdefault(place, BadRow(place, _text(reason), _text(row[:200])))
        if len(self.bad_rows) > self.max_bad_rows:
            first = "; ".join(f"{bad.place}: {bad.reason}" for bad in list(self.bad_rows.values())[:3])
            raise DataError(
                f"{len(self.bad_rows)} bad rows, more than prepare.max_bad_rows={self.max_bad_rows}. The first: {first}."
            )

    def count(self, what: str, times: int = 1, of: str = "") -> None:
        """Count repairs or omissions in the current split; those of data that several splits share (`of`) count once."""
        if of:
            if (what, of) in self._counted:
                return
            self._counted.add((what, of))
        if times:
            self.counts.setdefault(self.split, Counter())[what] += times

    def notes(self) -> list[str]:
        """What was repaired or left out in all splits, and how often, in words."""
        return [f"{what}: {times:,}" for counts in self.counts.values() for what, times in counts.items()]

    def at(self, done: int, total: int) -> None:
        """The source has read `done` of `total` queries, bytes or whatever it counts, of the current split."""
        self.progress.share = (self._file + done / total) / self._files if total else None

    def each(self, files: Sequence[Path]) -> Iterator[tuple[Path, "Reading"]]:
        """The files, each with a reading whose progress counts the other files too."""
        for number, file in enumerate(files):
            part = copy(self)  # counts and bad rows are the same ones
            part._file, part._files = number, len(files)
            if len(files) > 1:
                part.at(0, 1)
            yield file, part


def _text(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
