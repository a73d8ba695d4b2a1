"""Rankings in TREC's formats."""

from collections.abc import Iterable
from pathlib import Path

import ir_measures
from ir_measures import Qrel, ScoredDoc

from mtlrank.errors import DataError
from mtlrank.storage import write_text


def read_qrels(*paths: Path) -> list[Qrel]:
    """Judgements from TREC qrels files."""
    return [qrel for path in paths for qrel in _read(ir_measures.read_trec_qrels, path, "qrels")]


def read_run(*paths: Path) -> list[ScoredDoc]:
    """A ranking from TREC run files."""
    return [doc for path in paths for doc in _read(ir_measures.read_trec_run, path, "run")]


def write_run(path: Path, run: Iterable[ScoredDoc], tag: str) -> None:
    """Write a TREC run, ordered as trec_eval orders it: by score, equal scores by document id, both descending.

    Nine digits name a float32 exactly, so that measures of the file are the measures of the scores.
    """
    by_query: dict[str, list[ScoredDoc]] = {}
    for doc in run:
        by_query.setdefault(doc.query_id, []).append(doc)
    lines = []
    for query_id, docs in by_query.items():
        ranked = sorted(docs, key=lambda doc: (doc.score, doc.doc_id), reverse=True)
        lines += [run_line(query_id, doc.doc_id, rank, doc.score, tag) for rank, doc in enumerate(ranked, 1)]
    write_text(path, "".join(lines))


def run_line(query_id: str, doc_id: str, rank: int, score: float, tag: str) -> str:
    """A line of a TREC run."""
    return f"{query_id} Q0 {doc_id} {rank} {score:.9g} {tag}\n"


def _read(reader: object, path: Path, what: str) -> Iterable[object]:
    if not path.is_file():
        raise DataError(f"The {what} file {str(path)!r} does not exist.")
    try:
        yield from reader(str(path))  # type: ignore[operator]
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} is not a TREC {what} file: {error}") from error
