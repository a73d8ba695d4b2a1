"""BM25 over a collection: first-stage candidates, and the exact score of any (query, document) pair."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class BM25Index:
    """Lucene's BM25 (k1=0.9, b=0.4, as Anserini's MS MARCO baselines) by bm25s; documents are told by position.

    Terms are lower-cased words of two and more letters without English stop words, unstemmed.
    """

    def __init__(self, index: Any, pairs: "PairScores") -> None:
        self._index = index
        self._pairs = pairs
        self.num_docs: int = index.scores["num_docs"]

    @classmethod
    def build(cls, texts: Sequence[str], k1: float = 0.9, b: float = 0.4) -> "BM25Index":
        """Index texts in memory: with bm25s that takes several times the memory of the texts."""
        index = bm25s.BM25(method="lucene", k1=k1, b=b)
        index.index(_tokens(texts), show_progress=False)
        return cls(index, PairScores.of(index))

    @classmethod
    def load(cls, folder: Path) -> "BM25Index":
        """Map a saved index into memory."""
        return cls(bm25s.BM25.load(folder, mmap=True, show_progress=False), PairScores.load(folder))

    def save(self, folder: Path) -> None:
        """Write the index as files that `load` maps."""
        self._index.save(folder, show_progress=False)
        self._pairs.save(folder)

    def retrieve(self, query: str, k: int) -> tuple[Ints, Floats]:
        """Positions and scores of the `k` best documents, best first; documents without a query term are left out."""
        scores = self.scores(query)
        candidates = np.flatnonzero(scores > 0)
        if len(candidates) > k:  # all that tie with the last place stay, so that the order below decides
            edge = np.partition(scores[candidates], -k)[-k]
            candidates = candidates[scores[candidates] >= edge]
        best = candidates[np.lexsort((candidates, -scores[candidates]))][:k]
        return best, scores[best]

    def scores(self, query: str) -> Floats:
        """The score of every document for one query: as much work as the query's terms are frequent."""
        (terms,) = self.terms([query])
        if not len(terms):  # bm25s raises IndexError on an empty query
            return np.zeros(self.num_docs, dtype=np.float32)
        scores: Floats = self._index.get_scores_from_ids(terms.tolist())
        return scores

    def score_pairs(self, queries: Sequence[str], positions: Sequence[int]) -> Floats:
        """The score of each (query, document) pair, equal to what `scores` gives, without scoring other documents."""
        numbers = {query: number for number, query in enumerate(dict.fromkeys(queries))}
        terms = self.terms(list(numbers))
        return self._pairs.lookup([terms[numbers[query]] for query in queries], np.asarray(positions, dtype=np.int64))

    def terms(self, queries: Sequence[str]) -> list[Ints]:
        """The known terms of each query, by number, repeated ones as often as they occur."""
        vocabulary = self._index.vocab_dict
        known = ([vocabulary[term] for term in terms if term in vocabulary] for terms in _tokens(queries))
        return [np.array(numbers, dtype=np.int64) for numbers in known]


class PairScores:
    """The score of each term in each document, ordered by document, so that one pair is found by binary search.

    bm25s keeps them by term: good for the scores of all documents, not for one. The time of a lookup grows with the
    logarithm of the collection.
    """

    def __init__(self, keys: Ints, values: Floats, num_terms: int) -> None:
        self.keys = keys  # document * num_terms + term, ascending
        self.values = values
        self.num_terms = num_terms

    @classmethod
    def of(cls, index: Any) -> "PairScores":
        """The scores of a bm25s index."""
        scores = index.scores
        num_terms = len(scores["indptr"]) - 1
        matrix = csc_matrix((scores["data"], scores["indices"], scores["indptr"]), (scores["num_docs"], num_terms))
        rows = matrix.tocsr()
        documents = np.repeat(np.arange(scores["num_docs"], dtype=np.int64), np.diff(rows.indptr))
        keys: Ints = documents * num_terms + rows.indices
        return cls(keys, rows.data.astype(np.float32), num_terms)

    def lookup(self, terms: Sequence[Ints], documents: Ints) -> Floats:
        """The sum of each document's scores for a list of terms; terms that are not in it count nothing."""
        lengths = np.array([len(numbers) for numbers in terms], dtype=np.int64)
        wanted = np.repeat(documents, lengths) * self.num_terms + np.concatenate([np.zeros(0, np.int64), *terms])
        places = np.minimum(np.searchsorted(self.keys, wanted), max(len(self.keys) - 1, 0))
        found = np.where(self.keys[places] == wanted, self.values[places], 0.0) if len(self.keys) else 0.0 * wanted
        pair = np.repeat(np.arange(len(terms)), lengths)
        return np.bincount(pair, weights=found, minlength=len(terms)).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write the arrays beside bm25s's own."""
        np.save(folder / "pair_keys.npy", self.keys)
        np.save(folder / "pair_values.npy", self.values)
        np.save(folder / "pair_terms.npy", np.array(self.num_terms))

    @classmethod
    def load(cls, folder: Path) -> "PairScores":
        """Map saved arrays into memory."""
        keys, values = (np.load(folder / f"pair_{name}.npy", mmap_mode="r") for name in ("keys", "values"))
        return cls(keys, values, int(np.load(folder / "pair_terms.npy")))


def _tokens(texts: Sequence[str]) -> list[list[str]]:
    tokens: list[list[str]] = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
    return tokens
