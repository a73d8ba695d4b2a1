"""The best documents of each query of a run."""

import hashlib
import heapq
import math
from collections.abc import Iterable, Mapping

from mtlrank.datamodule.collection.ranking import RankedDocs
from mtlrank.datamodule.collection.rows import PairValue
from mtlrank.datamodule.reading import Reading


class BestOfRun:
    """The `k` best documents of each query of a run, whose lines may come in any order.

    Only the query being read may hold more than `k` documents. A document with two scores is a bad row.
    """

    def __init__(self, query_ids: Iterable[str], k: int, reading: Reading, *, is_ordered: bool) -> None:
        self.k = k
        self.reading = reading
        self.is_ordered = is_ordered
        self.ranked = {query_id: RankedDocs.of(query_id, ()) for query_id in query_ids}
        self.unsure = set[str]()  # queries whose kept documents may have been dropped earlier: see `check`
        self._least: dict[str, float] = {}  # lowest kept score of each query from which documents were dropped

    def add(self, query_id: str, lines: Iterable[PairValue]) -> None:
        """Read lines of one query that follow each other."""
        scores = dict(self.ranked[query_id].pairs())
        for _, doc_id, score, place in lines:
            if self.is_ordered and score >= self._least.get(query_id, math.inf):
                self.unsure.add(query_id)
            self._put(scores, doc_id, score, query_id, place)
            if len(scores) > 4 * self.k:
                scores = self._shrink(query_id, scores)
        self._shrink(query_id, scores)

    def check(self, query_id: str, lines: Iterable[PairValue]) -> None:
        """Read again: a document kept now may have been dropped earlier with another score, which is an error."""
        scores = dict(self.ranked[query_id].pairs())
        for _, doc_id, score, place in lines:
            if doc_id in scores:
                self._put(scores, doc_id, score, query_id, place)

    def _put(self, scores: dict[str, float], doc_id: str, score: float, query_id: str, place: str) -> None:
        if scores.setdefault(doc_id, score) != score:
            self.reading.reject(place, f"document {doc_id!r} has two scores for query {query_id!r} in the run")

    def _shrink(self, query_id: str, scores: Mapping[str, float]) -> dict[str, float]:
        """Keep the best, as trec_eval orders: by score, then by document id, both descending. A pool is mixed by a hash."""
        if self.is_ordered:
            best = heapq.nlargest(self.k, scores.items(), key=lambda pair: (pair[1], pair[0]))
        else:
            best = heapq.nlargest(self.k, scores.items(), key=lambda pair: _hash(f"{query_id} {pair[0]}"))
        self.ranked[query_id] = RankedDocs.of(query_id, best)
        if len(best) < len(scores):
            self._least[query_id] = best[-1][1]
        return dict(best)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
