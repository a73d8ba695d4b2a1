"""Annotators turn (query, passage) pairs without labels into records of an auxiliary task."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.batch import Record


class Pair(NamedTuple):
    """A query and a passage."""

    query_id: str
    doc_id: str
    query: str
    text: str


class Documents(Protocol):
    """The collection that passages are from."""

    @property
    def bm25(self) -> BM25Index:
        """An index of all of them, by position."""

    def positions(self, doc_ids: Iterable[str]) -> dict[str, int]:
        """Where passages are in the index."""


class Annotator(ABC):
    """Labels pairs by rule or by model. One that `reads_query` labels pairs; another labels each passage once.

    `spans_in` says which text the spans of its records are in, `tags` whether these are all words of it, labelled with BIO
    tags.
    """

    reads_query = True
    tags = False
    spans_in: Literal["text", "query"] = "text"

    @abstractmethod
    def records(self, pairs: Sequence[Pair], documents: Documents) -> Iterator[Record]:
        """The labelled records of some pairs, in their order; a pair may give none, one or several."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """The model and its version, for the manifest."""
