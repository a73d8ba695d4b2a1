"""A first stage for documents that come with their queries."""

from collections.abc import Sequence

from ir_measures import ScoredDoc

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.batch import Record


def first_stage(records: Sequence[Record], wanted: Sequence[Record]) -> list[ScoredDoc]:
    """The documents among `wanted` with their scores by BM25 over the texts of all `records`."""
    index = BM25Index.build([record.text for record in records])
    number = {id(record): i for i, record in enumerate(records)}
    scores = index.score_pairs([record.query or "" for record in wanted], [number[id(record)] for record in wanted])
    return [ScoredDoc(r.query_id, r.doc_id, score) for r, score in zip(wanted, scores.tolist(), strict=True)]
