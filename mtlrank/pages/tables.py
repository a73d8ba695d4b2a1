"""Tables for people: on the terminal, as CSV and in LaTeX."""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from mtlrank.checks import parse_number

_TOGETHER = 10  # characters of a name that stay together
_GAP = 2  # blanks between columns
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # the first characters of formulas in spreadsheets
_LATEX = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
}
_BREAK = re.compile(r"(?<=[,+=/_])|(?<=\.)(?=\D)")  # where a long name may break: not within a number


def console(width: int) -> Console:
    """The terminal; `width` columns where output goes to a file or another program."""
    return Console(width=None if sys.stdout.isatty() else width)


def show(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    names: int,
    width: int,
    spare: Sequence[str] = (),
    title: str | None = None,
) -> None:
    """Print a table of cells in rich's markup: columns of names, then of numbers. A number is never cut.

    Where the terminal (`width` columns elsewhere) is too narrow, long headers fold; then columns in `spare` are left out,
    the first one first; then names fold, and cells with several words break between them. What is still too wide, the
    terminal breaks.
    """
    out = console(width)
    columns = [_Column(*cells, is_name=number < names) for number, cells in enumerate(zip(header, *rows, strict=True))]
    left_out = list[str]()
    for name in spare:
        if _total([column.floors[0] for column in columns]) > out.width:
            columns = [column for column in columns if column.header != name]
            left_out.append(name)
    for step in range(3):
        for column in sorted(columns, key=lambda column: -column.width):
            excess = _total([column.width for column in columns]) - out.width
            column.width = max(column.floors[step], column.width - max(excess, 0))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0))
    table.show_edge = table.pad_edge = False
    for column in columns:
        side: JustifyMethod = "left" if column.is_name else "right"
        table.add_column(column.header, justify=side, width=column.width, overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    Console(width=max(out.width, _total([column.width for column in columns]))).print(table)
    if left_out:
        out.print(f"without {', '.join(left_out)}, as {out.width} columns are too few", highlight=False)


class _Column:
    """A column's cells, how wide it is, and how narrow it may become in three steps: its header, names, other cells."""

    def __init__(self, header: str, *cells: str, is_name: bool) -> None:
        self.header, self.cells, self.is_name = header, cells, is_name
        lines, words = _longest(cells, str.splitlines), _longest(cells, str.split)
        least = min(_longest([header], str.split), _TOGETHER)
        folded = max(least, min(lines, _TOGETHER))
        self.width = max(lines, _longest([header], str.splitlines))
        whole = max(least, lines)
        self.floors = (whole, folded, folded) if is_name else (whole, whole, max(least, words))


def _longest(cells: Sequence[str], split: Callable[[str], list[str]]) -> int:
    """The columns that the longest part of any cell takes on a terminal."""
    return max((cell_len(part) for cell in cells for part in split(Text.from_markup(cell).plain)), default=0)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV. Text that a spreadsheet would compute is quoted with '."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


def latex(text: str, longest: int = 24) -> str:
    """Text as LaTeX shows it as it is. Words of more letters than `longest`, such as a config's, may break."""
    words = []
    for word in text.split():
        parts = _BREAK.split(word) if len(word) > longest else [word]
        escaped = ("".join(_LATEX.get(letter, letter) for letter in part) for part in parts if part)
        words.append(r"\allowbreak{}".join(escaped))
    return " ".join(words)


def latex_label(kind: str, name: str) -> str:
    """The label of a table, whose name may hold any characters."""
    return rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', f'{kind} {name}').strip('-')}}}"


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True
