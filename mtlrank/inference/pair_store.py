"""Pairs to score and their scores, in a temporary SQLite file: memory does not grow with their number."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mtlrank.datamodule.collection import RankedDoc
from mtlrank.datamodule.short_hash import short_hash
from mtlrank.errors import DataError
from mtlrank.storage import writing

_LAYOUT = """
PRAGMA journal_mode=MEMORY;
PRAGMA synchronous=OFF;
PRAGMA cache_size=-16384;
PRAGMA locking_mode=EXCLUSIVE;
CREATE TABLE queries (number INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE pairs (number INTEGER PRIMARY KEY, query INT, doc TEXT, first REAL, place TEXT, UNIQUE (query, doc));
CREATE TABLE scores (pair INTEGER PRIMARY KEY, score REAL);
CREATE TABLE texts (name TEXT PRIMARY KEY, hash BLOB, place TEXT) WITHOUT ROWID;
"""
_BEST = "row_number() OVER (PARTITION BY query ORDER BY {score} DESC, doc DESC)"  # as trec_eval orders float32


class StoredPair(NamedTuple):
    """A pair whose score is wanted, by its ids."""

    number: int  # in the order of arrival
    query_id: str
    doc_id: str
    place: str  # where it was read


class PairStore:
    """The pairs to score, and their scores once they are known. A pair can be stored only once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._database = sqlite3.connect(path)
            self._database.executescript(_LAYOUT)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def order_queries(self, query_ids: Iterable[str]) -> None:
        """Put queries in this order; those that come later follow in the order of arrival."""
        with writing(self._path), self._database:
            insert = "INSERT OR IGNORE INTO queries (name) VALUES (?)"
            self._database.executemany(insert, ((name,) for name in query_ids))

    def add(self, pairs: Sequence[tuple[str, str, float, str]]) -> list[StoredPair]:
        """Store (query_id, doc_id, first-stage score, place). Raises `DataError` for a pair that is given twice."""
        self.order_queries(dict.fromkeys(pair[0] for pair in pairs))
        rows = [(self._size + i, pair[1], *pair[2:], pair[0]) for i, pair in enumerate(pairs)]
        insert = (
            "INSERT INTO pairs (number, doc, first, place, query) SELECT ?, ?, ?, ?, number FROM queries WHERE name = ?"
        )
        with writing(self._path), self._database:
            for row in rows:
                try:
                    self._database.execute(insert, row)
                except sqlite3.IntegrityError as error:
                    raise DataError(self._duplicate(row[4], row[1], str(row[3]))) from error
        self._size += len(rows)
        return [StoredPair(row[0], row[4], row[1], str(row[3])) for row in rows]

    def check_texts(self, texts: Iterable[tuple[str, str, str]]) -> None:
        """Raise `DataError` if a name has two texts; `texts` are (name, text, place)."""
        with writing(self._path), self._database:
            for name, text, place in texts:
                key = short_hash(text)
                self._database.execute("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", (name, key, place))
                found, first = self._database.execute(
                    "SELECT hash, place FROM texts WHERE name = ?", (name,)
                ).fetchone()
                if found != key:
                    raise DataError(f"{place}: {name} has a different text at {first}.")

    def best(self, k: int | None) -> Iterator[StoredPair]:
        """The pairs query by query, in the order of the first stage: its `k` best, or all."""
        ranked = f"SELECT *, {_BEST.format(score='first')} AS rank FROM pairs"  # noqa: S608 - our own words
        select = f"SELECT p.number, name, doc, place FROM ({ranked}) p JOIN queries q ON q.number = query"  # noqa: S608
        limit = "" if k is None else f"WHERE rank <= {int(k)}"
        yield from map(StoredPair._make, self._database.execute(f"{select} {limit} ORDER BY query, rank"))

    def put(self, numbers: Iterable[int], scores: Iterable[float]) -> None:
        """Store the scores of pairs."""
        with writing(self._path), self._database:
            self._database.executemany("INSERT INTO scores VALUES (?, ?)", zip(numbers, scores, strict=True))

    def ranking(self, k: int | None = None, rest_from: int | None = None) -> Iterator[RankedDoc]:
        """The scored pairs query by query, best first, equal scores by document id, both descending; the `k` best.

        With `rest_from`, the pairs after so many of the first stage follow in its order, each with a score of 1 less.
        """
        scored = "SELECT query, doc, score FROM pairs JOIN scores ON pair = number"
        if rest_from is not None:
            least = f"SELECT query, min(score) AS least FROM ({scored}) GROUP BY query"  # noqa: S608 - our own words
            rest = f"SELECT *, {_BEST.format(score='first')} - {int(rest_from)} AS beyond FROM pairs"  # noqa: S608
            below = f"SELECT query, doc, least - beyond FROM ({rest}) JOIN ({least}) USING (query) WHERE beyond > 0"  # noqa: S608
            scored = f"{scored} UNION ALL {below}"
        ranked = f"SELECT *, {_BEST.format(score='score')} AS rank FROM ({scored})"  # noqa: S608 - our own words
        select = f"SELECT name, doc, rank, score FROM ({ranked}) JOIN queries ON number = query"  # noqa: S608
        limit = "" if k is None else f"WHERE rank <= {int(k)}"
        yield from map(RankedDoc._make, self._database.execute(f"{select} {limit} ORDER BY query, rank"))

    def in_order(self) -> Iterator[tuple[str, str, float]]:
        """(query_id, doc_id, score) of the scored pairs, in the order of arrival."""
        yield from self._database.execute(
            "SELECT name, doc, score FROM pairs p JOIN scores ON pair = p.number JOIN queries q ON q.number = query "
            "ORDER BY p.number"
        )

    def _duplicate(self, query_id: str, doc_id: str, place: str) -> str:
        select = "SELECT place FROM pairs JOIN queries q ON q.number = query WHERE name = ? AND doc = ?"
        (first,) = self._database.execute(select, (query_id, doc_id)).fetchone()
        return f"{place}: document {doc_id!r} of query {query_id!r} is given twice, first at {first}. Remove one."
