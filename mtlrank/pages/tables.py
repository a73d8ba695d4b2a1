"""Tables for people: on the terminal, and as CSV."""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from mtlrank.checks import parse_number

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what they begin with


def console(width: int) -> Console:
    """The terminal; `width` columns where output goes to a file or another program."""
    return Console(width=None if sys.stdout.isatty() else width)


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV. Text that a spreadsheet would compute is quoted with '."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True
