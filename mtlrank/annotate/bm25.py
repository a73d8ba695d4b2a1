"""BM25 over a collection: first-stage candidates, and the exact score of any (query, document) pair."""

import logging
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from mtlrank.annotate.bm25_settings import BM25Settings
from mtlrank.chunks import chunks
from mtlrank.dtypes import Floats32, Ints

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index
_DEFAULTS = BM25Settings()
_TEXTS = 1_000  # whose words are in memory at a time
_DOCS = 10_000  # whose scores are computed at a time


class BM25Index:
    """Lucene's BM25 by bm25s; documents are identified by position."""

    FORMAT = f"2-{version('bm25s')}"  # of saved indexes: raise the number when our own files or the defaults change

    def __init__(self, index: Any, pairs: "PairScores", settings: BM25Settings) -> None:
        self._index = index
        self._pairs = pairs
        self._settings = settings
        self.num_docs: int = index.scores["num_docs"]
        self.num_terms = len(index.vocab_dict)

    @classmethod
    def build(cls, texts: Iterable[str], settings: BM25Settings = _DEFAULTS) -> "BM25Index":
        """Index texts in memory, of which a few are held at a time."""
        index = _ArrayBM25(method="lucene", k1=settings.k1, b=settings.b)
        index.index(TermCounts.of(texts, settings), create_empty_token=False, show_progress=False)
        return cls(index, PairScores.of(index), settings)

    @classmethod
    def load(cls, folder: Path, settings: BM25Settings = _DEFAULTS) -> "BM25Index":
        """Map an index into memory that was saved with the same settings."""
        return cls(bm25s.BM25.load(folder, mmap=True, show_progress=False), PairScores.load(folder), settings)

    def save(self, folder: Path) -> None:
        """Write the index as files that `load` maps."""
        self._index.save(folder, show_progress=False)
        self._pairs.save(folder)

    def retrieve(self, query: str, k: int) -> tuple[Ints, Floats32]:
        """Positions and scores of the `k` best documents, best first; documents without any query term are left out.

        All that tie with the last one are there, so there may be more than `k`; ties are in the order of positions.
        """
        scores = self.scores(query)
        candidates = np.flatnonzero(scores > 0)
        if len(candidates) > k:
            edge = np.partition(scores[candidates], -k)[-k]
            candidates = candidates[scores[candidates] >= edge]
        best = candidates[np.lexsort((candidates, -scores[candidates]))]
        return best, scores[best]

    def scores(self, query: str) -> Floats32:
        """The score of every document for one query: as much work as the query's terms are frequent."""
        (terms,) = self.terms([query])
        if not len(terms):  # bm25s raises IndexError on an empty query
            return np.zeros(self.num_docs, dtype=np.float32)
        scores: Floats32 = self._index.get_scores_from_ids(terms.tolist())
        return scores

    def score_pairs(self, queries: Sequence[str], positions: Sequence[int]) -> Floats32:
        """The score of each (query, document) pair, equal to what `scores` gives, without scoring other documents."""
        numbers = {query: number for number, query in enumerate(dict.fromkeys(queries))}
        terms = self.terms(list(numbers))
        return self._pairs.lookup([terms[numbers[query]] for query in queries], np.asarray(positions, dtype=np.int64))

    def terms(self, queries: Sequence[str]) -> list[Ints]:
        """The known terms of each query, by number, repeated ones as often as they occur."""
        vocabulary = self._index.vocab_dict
        known = ([vocabulary[term] for term in terms if term in vocabulary] for terms in self._settings.tokens(queries))
        return [np.array(numbers, dtype=np.int64) for numbers in known]


class TermCounts(NamedTuple):
    """How often each term is in each document, in the form of the corpora that bm25s indexes: ids and a vocabulary."""

    ids: csr_matrix  # (documents, terms)
    vocab: dict[str, int]

    @classmethod
    def of(cls, texts: Iterable[str], settings: BM25Settings) -> "TermCounts":
        """Count the terms of texts, of which a few are held at a time."""
        vocabulary, starts, terms, counts = dict[str, int](), array("q", [0]), array("i"), array("f")
        for some in chunks(texts, _TEXTS):
            for words in settings.tokens(some):
                found = Counter(words)
                terms.extend([vocabulary.setdefault(word, len(vocabulary)) for word in found])
                counts.extend(found.values())
                starts.append(len(terms))
        shape = len(starts) - 1, len(vocabulary)
        return cls(csr_matrix((np.asarray(counts), np.asarray(terms), np.asarray(starts)), shape), vocabulary)


class _ArrayBM25(bm25s.BM25):
    """bm25s, which computes the same scores from arrays: its lists of lists take 3 kB for each passage."""

    def build_index_from_ids(self, unique_token_ids: Any, corpus_token_ids: csr_matrix, **_: Any) -> dict[str, Any]:
        """The score of each term in each document, by term, as bm25s holds and saves it."""
        rows = corpus_token_ids  # counts, which become scores
        num_docs, num_terms = rows.shape
        holding = np.bincount(rows.indices, minlength=num_terms).tolist()  # documents, for each term
        idf = np.array([math.log(1 + (num_docs - n + 0.5) / (n + 0.5)) for n in holding], dtype=np.float32)
        average = rows.data.sum(dtype=np.float64) / max(num_docs, 1) or 1  # length of a document
        for first in range(0, num_docs, _DOCS):
            starts = rows.indptr[first : first + _DOCS + 1]
            part, document = slice(starts[0], starts[-1]), np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            counts = rows.data[part]
            norms = self.k1 * ((1 - self.b) + self.b * np.bincount(document, counts, len(starts) - 1) / average)
            rows.data[part] = idf[rows.indices[part]] * (counts / (norms[document] + counts))
        columns = rows.tocsc()
        self.nonoccurrence_array = None  # for other variants of BM25
        return {"data": columns.data, "indices": columns.indices, "indptr": columns.indptr, "num_docs": num_docs}


class PairScores:
    """The score of each term in each document, ordered by document, so that one pair is found by binary search.

    bm25s keeps them by term: good for the scores of all documents, not for one. A search stays among a document's own
    terms, so its time does not depend on the number of documents.
    """

    def __init__(self, starts: Ints, terms: NDArray[np.int32], values: Floats32) -> None:
        self.starts = starts  # of each document, where its terms begin; the last entry is where the last one's end
        self.terms = terms  # ascending in each document
        self.values = values

    @classmethod
    def of(cls, index: Any) -> "PairScores":
        """The scores of a bm25s index."""
        scores = index.scores
        shape = scores["num_docs"], len(scores["indptr"]) - 1
        rows = csc_matrix((scores["data"], scores["indices"], scores["indptr"]), shape).tocsr()
        rows.sort_indices()
        return cls(rows.indptr.astype(np.int64), rows.indices.astype(np.int32, copy=False), rows.data)

    def lookup(self, terms: Sequence[Ints], documents: Ints) -> Floats32:
        """The sum of each document's scores for a list of terms; terms that are not in it count nothing."""
        lengths = np.array([len(numbers) for numbers in terms], dtype=np.int64)
        wanted = np.concatenate([np.zeros(0, np.int64), *terms])
        document = np.repeat(documents, lengths)
        place, end = self._search(wanted, self.starts[document], self.starts[document + 1])
        found = np.zeros(len(wanted), dtype=np.float32)
        inside = np.flatnonzero(place < end)
        inside = inside[self.terms[place[inside]] == wanted[inside]]
        found[inside] = self.values[place[inside]]
        totals = np.zeros(len(terms), dtype=np.float32)
        np.add.at(totals, np.repeat(np.arange(len(terms)), lengths), found)  # in the order and width that bm25s sums in
        return totals

    def _search(self, wanted: Ints, low: Ints, end: Ints) -> tuple[Ints, Ints]:
        """Where each wanted term is, or would be, between `low` and `end`: one binary search for all at once."""
        high = end
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) // 2
            open_ = low < high
            less = self.terms[np.minimum(middle, len(self.terms) - 1)] < wanted
            low, high = np.where(open_ & less, middle + 1, low), np.where(open_ & ~less, middle, high)
        return low, end

    def save(self, folder: Path) -> None:
        """Write the arrays beside bm25s's own."""
        for name in ("starts", "terms", "values"):
            np.save(folder / f"pair_{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> "PairScores":
        """Map saved arrays into memory."""
        return cls(*(np.load(folder / f"pair_{name}.npy", mmap_mode="r") for name in ("starts", "terms", "values")))
