"""Working on many things a few at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def chunks(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """`things` in lists of `size`; the last one may be shorter."""
    rest = iter(things)
    while chunk := list(islice(rest, size)):
        yield chunk
