"""Annotators that count words: exact BM25 scores, and the share of each query term in them."""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np

from mtlrank.annotate.annotator import Annotator, Documents, Pair
from mtlrank.batch import Record

_WORD = re.compile(r"(?u)\b\w\w+\b")  # as the index splits text


class BM25(Annotator):
    """The exact BM25 score of a passage for a query, as the collection's index gives it, by the collection's settings."""

    def records(self, pairs: Sequence[Pair], documents: Documents) -> Iterator[Record]:
        positions = documents.positions(pair.doc_id for pair in pairs)
        scores = documents.bm25.score_pairs([pair.query for pair in pairs], [positions[pair.doc_id] for pair in pairs])
        for pair, score in zip(pairs, scores.tolist(), strict=True):
            yield Record(*pair, label=score)

    def describe(self) -> dict[str, str]:
        return {"model": "BM25, lucene", "bm25s": version("bm25s")}


class TermImportance(BM25):
    """The share of a passage's BM25 score that each of the query's words carries; a pair without a score gives nothing.

    A record's span is a word of the query; a word that occurs twice has its share twice, so that shares sum to 1.
    """

    spans_in = "query"

    def records(self, pairs: Sequence[Pair], documents: Documents) -> Iterator[Record]:
        positions = documents.positions(pair.doc_id for pair in pairs)
        words = [[match.span() for match in _WORD.finditer(pair.query)] for pair in pairs]
        flat = [pair.query[slice(*span)] for pair, spans in zip(pairs, words, strict=True) for span in spans]
        where = [positions[pair.doc_id] for pair, spans in zip(pairs, words, strict=True) for _ in spans]
        scores = np.split(documents.bm25.score_pairs(flat, where), np.cumsum([len(spans) for spans in words])[:-1])
        for number, (pair, spans, carried) in enumerate(zip(pairs, words, scores, strict=True)):
            total = float(carried.sum())
            for span, score in zip(spans, carried.tolist(), strict=True):
                if total > 0:
                    yield Record(*pair, label=score / total, spans=(span,), group=number, spans_in=self.spans_in)
