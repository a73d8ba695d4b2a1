"""Datasets that are read from a user's own files: one for each split, or several that are read as one."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mtlrank.checks import choice
from mtlrank.datamodule.dataset.held_out import HeldOut
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.lines import is_json, read_cells, read_json, read_lines
from mtlrank.datamodule.named_files import describe_files, locate_all, name_of
from mtlrank.datamodule.parquet import is_parquet, read_parquet
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Buckets, Task

Column = int | str
FORMATS = ("tsv", "csv", "jsonl", "parquet")
csv.field_size_limit(2**31 - 1)  # a text may be longer than the 131072 characters that Python allows


class FileDataset(PreparedDataset):
    """A dataset of one file for each split, or of all that match a name with `*`; a split without a file is empty."""

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: str,
        val: str | float | None = None,
        test: str | float | None = None,
    ) -> None:
        super().__init__(name, task, preprocessor)
        self.files: dict[str, Any] = {"train": train, "val": val, "test": test}
        self.shares = dict[str, float]()

    def hold_out(self, seed: int) -> HeldOut:
        """Let splits be shares of the training data, as in val=0.2: their files are those of train."""
        held_out = HeldOut(self.files, seed)
        self.shares = held_out.shares
        self.files |= dict.fromkeys(self.shares, self.files["train"])
        return held_out

    def describe(self) -> dict[str, Any]:
        named = {split: name for split, name in self.files.items() if name and split not in self.shares}
        return {**{split: describe_files(name, self.paths(split)) for split, name in named.items()}, **self.shares}

    def check_sources(self) -> None:
        for split in self.files:
            self.paths(split)

    def paths(self, split: str) -> list[Path]:
        """The files of a split, in the order in which they are read; none if it has none."""
        name = self.files[split]
        return [] if name is None else locate_all(name, f"file of split {split!r}")

    def tables(
        self, split: str, columns: Sequence[Column], layout: str | None
    ) -> Iterator[Iterator[tuple[str, list[Any]]]]:
        """The rows of each of a split's files: (place, the wanted columns), read as `read_columns` reads them."""
        with_names = self.task.kind == "classification" and not isinstance(self.task, Buckets)  # of numbers
        for path, reading in self.reading.each(self.paths(split)):
            yield read_columns(path, columns, layout, reading, with_names=with_names)

    def rows(self, split: str, columns: Sequence[Column], layout: str | None) -> Iterator[tuple[str, list[Any]]]:
        """(place, the wanted columns) of each row of a split, whatever file it is in."""
        return chain.from_iterable(self.tables(split, columns, layout))


def columns_of(columns: Sequence[Column], number: int, what: str) -> tuple[Column, ...]:
    """Check a config's columns: `number` different ones."""
    if not isinstance(columns, list | tuple) or len(columns) != number:
        raise ConfigError(f"columns is {columns!r}, expected a list of {number}: {what}.")
    return tuple(checked_distinct(columns))


def checked_distinct(columns: Sequence[Column], settings: str = "columns or score_column") -> Sequence[Column]:
    """Check that no column is used twice: a label that is also read as text would be learnt from itself."""
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise ConfigError(
            f"The label and each text need a column of their own, found {twice[0]!r} twice in {list(columns)}. Correct "
            f"{settings}."
        )
    return columns


def columns_of_conll(line: str) -> list[str]:
    """The cells of a line of a CoNLL file: between tabs, or between blanks where there is no tab."""
    return [cell.strip(" \r") for cell in (line.split("\t") if "\t" in line else re.split(" +", line.strip(" ")))]


def read_columns(
    path: Path, columns: Sequence[Column], layout: str | None, reading: Reading, *, with_names: bool
) -> Iterator[tuple[str, list[Any]]]:
    """(place, the wanted columns) of each row of a file, whose layout is one of `FORMATS`; None: the one of its ending.

    `tsv`: columns count from 0 and quotes mean nothing. `csv`: quotes as usual; with columns by name the first row is the
    header. `jsonl`: columns are keys. `parquet`: columns are names; `with_names`, classes have their names, not numbers.
    """
    hint = "" if layout else " (The format is that of the file's ending, unless format names another.)"
    layout = layout_of(path, layout)
    kinds: Any = {"tsv": int, "csv": int | str}.get(layout, str)
    if not all(isinstance(column, kinds) and not (isinstance(column, int) and column < 0) for column in columns):
        expected = "numbers, from 0" if layout == "tsv" else "names"
        raise ConfigError(f"Columns of a {layout} file are {expected}, found {list(columns)}.{hint}")
    if layout == "tsv":
        needed = max(int(column) for column in columns) + 1
        for place, cells in read_cells(
            path, needed, f"columns {', '.join(map(str, columns))} are read", reading, more=True
        ):
            yield place, [cells[int(column)] for column in columns]
    elif layout == "csv":
        yield from _csv(path, columns, reading)
    else:
        names = [str(column) for column in columns]
        is_json = layout == "jsonl"
        rows = read_json(path, reading) if is_json else read_parquet(path, names, reading, with_names=with_names)
        for place, row in rows:
            values = [row.get(name) for name in names]
            wrong = [name for name in names if type(row.get(name)) not in (str, int, float)]
            if not wrong:
                yield place, values
                continue
            found = f"{row[wrong[0]]!r:.60}" if wrong[0] in row else f"none in {row!s:.60}"
            reading.reject(place, f"expected text or a number as {wrong[0]}, found {found}", str(row))


def layout_of(path: Path, layout: str | None) -> str:
    """The layout that is given, or else that of a file's ending: `tsv` if it has no other."""
    if layout is not None:
        return choice(FORMATS).check("format", layout)
    if is_parquet(path):
        return "parquet"
    if is_json(path, by_name=True):
        return "jsonl"
    return "csv" if path.name.removesuffix(".gz").endswith(".csv") else "tsv"


def _csv(path: Path, columns: Sequence[Column], reading: Reading) -> Iterator[tuple[str, list[str]]]:
    """Rows of a CSV file. Invalid CSV or text is always an error: nobody knows where the next row begins."""
    rows = csv.reader((f"{text}\n" for _, text in read_lines(path, reading, strict=True)), strict=True)
    numbers, width = list[int](), 0
    while True:
        place = f"{name_of(path)}:{rows.line_num + 1}"
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise DataError(
                f"{place}: expected CSV, found {error}. Is a quote missing in this row, or one too many?"
            ) from error
        if cells is None:
            return
        if not numbers:
            numbers, width = _numbers(columns, cells, path), len(cells)
            if any(isinstance(column, str) for column in columns):
                continue
        if len(cells) != width:
            reading.reject(place, f"expected {width} columns as in the first row, found {len(cells)}", ",".join(cells))
        else:
            yield place, [cells[number] for number in numbers]


def _numbers(columns: Sequence[Column], header: list[str], path: Path) -> list[int]:
    """The positions of columns that are given by name or by position."""
    is_tsv = "\t" in "".join(header)
    hint = " Its first row has tabs: is it TSV (format=tsv), whose columns are numbers?" if is_tsv else ""
    missing = [column for column in columns if isinstance(column, str) and column not in header]
    if missing:
        raise ConfigError(f"{path.name} has no column {missing[0]!r}. It has: {', '.join(header)}.{hint}")
    if twice := [column for column in columns if isinstance(column, str) and header.count(column) > 1]:
        raise ConfigError(
            f"{path.name} has the column {twice[0]!r} twice. Rename one, or give columns by number, from 0."
        )
    numbers = [header.index(column) if isinstance(column, str) else column for column in columns]
    if max(numbers) >= len(header):
        raise ConfigError(f"{path.name} has {len(header)} columns, none with the number {max(numbers)} (from 0).{hint}")
    checked_distinct(numbers)  # a name and a number may mean the same one
    return numbers
