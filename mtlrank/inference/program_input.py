"""Checks and conversion of texts that a program passes in place of a file."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from mtlrank.errors import DataError

T = TypeVar("T")


def iterable(given: Iterable[T], what: str) -> Iterable[T]:
    """`given`, if it is iterable. Raises `DataError` if not."""
    if not isinstance(given, Iterable):
        raise DataError(f"{what}: expected a list, found {given!r:.60}.")
    return given


def plain(given: Any) -> Any:
    """`given` with Python's own numbers and lists in place of numpy's, which tables hold."""
    match given:
        case np.ndarray() | np.generic():
            return plain(given.tolist())
        case Mapping():
            return {key: plain(value) for key, value in given.items()}
        case list():
            return list(map(plain, given))
        case tuple():
            return tuple(map(plain, given))
    return given
