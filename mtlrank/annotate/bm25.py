"""BM25 over a collection: first-stage candidates, and the exact score of any (query, document) pair."""

from collections.abc import Sequence
from typing import NamedTuple

import bm25s
import numpy as np
from numpy.typing import NDArray


class RankedDoc(NamedTuple):
    """A line of a TREC run; ranks count from 1."""

    query_id: str
    doc_id: str
    rank: int
    score: float


class BM25Index:
    """Lucene's BM25 (k1=0.9, b=0.4, as Anserini's MS MARCO baselines) over texts held in memory, by bm25s.

    Terms are lower-cased words of two and more letters without English stop words, unstemmed.
    """

    def __init__(self, doc_ids: Sequence[str], texts: Sequence[str], k1: float = 0.9, b: float = 0.4) -> None:
        self.doc_ids = list(doc_ids)
        self._position = {doc_id: i for i, doc_id in enumerate(self.doc_ids)}
        self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
        self._index.index(_tokens(texts), show_progress=False)

    def retrieve(self, query_ids: Sequence[str], queries: Sequence[str], k: int) -> list[RankedDoc]:
        """The `k` best documents of each query, best first; documents without a query term are left out."""
        run = []
        for query_id, query in zip(query_ids, queries, strict=True):
            scores = self.scores(query)
            best = np.lexsort((np.arange(len(scores)), -scores))[:k]
            hits = [i for i in best if scores[i] > 0]
            run += [RankedDoc(query_id, self.doc_ids[i], rank, float(scores[i])) for rank, i in enumerate(hits, 1)]
        return run

    def score(self, query: str, doc_ids: Sequence[str]) -> NDArray[np.float32]:
        """The BM25 score of each document for one query."""
        return self.scores(query)[[self._position[doc_id] for doc_id in doc_ids]]

    def scores(self, query: str) -> NDArray[np.float32]:
        """The BM25 score of every document for one query, in index order."""
        (terms,) = _tokens([query])
        known = [term for term in terms if term in self._index.vocab_dict]
        if not known:  # bm25s raises IndexError on an empty query
            return np.zeros(len(self.doc_ids), dtype=np.float32)
        scores: NDArray[np.float32] = self._index.get_scores(known)
        return scores


def _tokens(texts: Sequence[str]) -> list[list[str]]:
    tokens: list[list[str]] = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
    return tokens
