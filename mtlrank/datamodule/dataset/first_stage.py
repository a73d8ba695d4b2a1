"""A first stage for documents that come with their queries, without an order."""

from collections.abc import Iterator, Mapping, Sequence

from ir_measures import ScoredDoc

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.batch import Record
from mtlrank.chunks import chunks
from mtlrank.datamodule.collection import Collection, RankedDocs
from mtlrank.datamodule.reading import Reading

BM25_ORDER = "bm25-order"  # tag of runs that `ranked_by_bm25` made
_TEXTS = 1_000  # in memory at a time


def first_stage(records: Sequence[Record], wanted: Sequence[Record]) -> list[ScoredDoc]:
    """The documents among `wanted` with their scores by BM25 over the texts of all `records`."""
    index = BM25Index.build([record.text for record in records])
    number = {id(record): i for i, record in enumerate(records)}
    scores = index.score_pairs([record.query or "" for record in wanted], [number[id(record)] for record in wanted])
    return [ScoredDoc(r.query_id, r.doc_id, score) for r, score in zip(wanted, scores.tolist(), strict=True)]


def ranked_by_bm25(collection: Collection, candidates: Mapping[str, RankedDocs]) -> dict[str, RankedDocs]:
    """Candidates from a run without an order, by BM25 over the texts of all documents of that run."""
    rows = collection.source.pair_values("run", Reading.silent())
    number = {doc_id: i for i, doc_id in enumerate(dict.fromkeys(row.doc_id for row in rows))}
    index = BM25Index.build(_texts(collection, list(number)), collection.source.bm25_settings)
    ranked = {}
    for query_id, docs in candidates.items():
        doc_ids = [doc.doc_id for doc in docs]
        query = collection.queries[query_id]
        scores = index.score_pairs([query] * len(doc_ids), [number[doc_id] for doc_id in doc_ids])
        best = sorted(zip(scores.tolist(), doc_ids, strict=True), reverse=True)
        ranked[query_id] = RankedDocs.of(query_id, [(doc_id, score) for score, doc_id in best])
    return ranked


def _texts(collection: Collection, doc_ids: Sequence[str]) -> Iterator[str]:
    for some in chunks(doc_ids, _TEXTS):
        texts = collection.docs.texts(some)
        yield from (texts.get(doc_id, "") for doc_id in some)
