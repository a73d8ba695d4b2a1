"""A first stage for documents that come with their queries."""

from collections.abc import Iterator, Sequence

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.batch import Record


def first_stage(records: Sequence[Record], wanted: Sequence[Record]) -> Iterator[str]:
    """Lines of a TREC run: of each query among `wanted`, its documents by BM25 over the texts of all `records`.

    Ties are in trec_eval's order.
    """
    index = BM25Index.build([record.text for record in records])
    number = {id(record): i for i, record in enumerate(records)}
    scores = index.score_pairs([record.query or "" for record in wanted], [number[id(record)] for record in wanted])
    ranked: dict[str, list[tuple[float, Record]]] = {}
    for record, score in zip(wanted, scores.tolist(), strict=True):
        ranked.setdefault(record.query_id, []).append((score, record))
    for found in ranked.values():
        ordered = sorted(found, key=lambda one: (one[0], one[1].doc_id), reverse=True)
        for rank, (score, record) in enumerate(ordered, 1):
            yield f"{record.query_id} Q0 {record.doc_id} {rank} {score:.9g} bm25\n"
