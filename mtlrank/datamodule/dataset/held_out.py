"""Splits that are shares of the training data, chosen by a hash, so that they stay when data is added."""

import hashlib
import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from mtlrank.errors import ConfigError


class Division(ABC):
    """Says which split a query, or a document, of the training data belongs to."""

    @abstractmethod
    def __contains__(self, split: str) -> bool:
        """Whether a split is a part of the training data."""

    @abstractmethod
    def split_of(self, name: str) -> str:
        """The split that something of the training data belongs to."""

    def holds(self, split: str, name: str) -> bool:
        """Whether something belongs to a split: all does that is read from a source of the split's own."""
        return split not in self or self.split_of(name) == split


class HeldOut(Division):
    """Splits that are shares of the training data.

    `sources` maps splits to what they are read from: a number, as in `val=0.2`, is a share of what train is read from.
    `train` may be None only if all sources are further test sets (`test@name`).
    """

    def __init__(self, sources: Mapping[str, Any], seed: int) -> None:
        whole = [f"{split} is {source!r}" for split, source in sources.items() if isinstance(source, int)]
        if whole:
            raise ConfigError(
                f"{whole[0]}: expected a source, or a share of the training data between 0 and 1, as in 0.1."
            )
        self.shares = {split: source for split, source in sources.items() if isinstance(source, float)}
        self.seed = seed
        shares = list(self.shares.values())
        if any(not 0 < share < 1 for share in shares) or sum(shares) >= 1:
            raise ConfigError(
                f"Expected shares of the training data between 0 and 1, with a sum below 1, found {shares}."
            )
        only_judged = {split.partition("@")[1] for split, source in sources.items() if source is not None} == {"@"}
        if isinstance(sources["train"], float) or (sources["train"] is None and not only_judged):
            raise ConfigError(f"train is {sources['train']}, expected the source of the training data.")

    def __contains__(self, split: str) -> bool:
        return split == "train" or split in self.shares

    def split_of(self, name: str) -> str:
        point, edge = hashed_fraction(f"split {self.seed} {name}"), 0.0
        for split, share in self.shares.items():
            edge += share
            if point < edge:
                return split
        return "train"


def drawn(names: Iterable[str], most: int | None, seed: int) -> list[str]:
    """At most `most` names, those with the smallest hashes, in their given order.

    The same names and seed give the same draw on every machine.
    """
    everything = list(names)
    if most is None:
        return everything
    kept = set(heapq.nsmallest(most, everything, key=lambda name: hashed_fraction(f"draw {seed} {name}")))
    return [name for name in everything if name in kept]


def hashed_fraction(text: str) -> float:
    """A pseudo-random number from 0 to 1, a function of the text, which should begin with its purpose."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64
