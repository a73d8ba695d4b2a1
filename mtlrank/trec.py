"""Judgements and rankings in TREC's formats."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import Qrel, ScoredDoc

from mtlrank.errors import DataError
from mtlrank.storage import write_text

FIRST_STAGE = "first stage"  # name of the ranking that a head re-ranks, in files and tables


def read_qrels(*paths: Path) -> list[Qrel]:
    """Judgements from TREC qrels files."""
    return [qrel for path in paths for qrel in _read(ir_measures.read_trec_qrels, path, "qrels")]


def read_run(*paths: Path) -> list[ScoredDoc]:
    """A ranking from TREC run files."""
    return [doc for path in paths for doc in _read(ir_measures.read_trec_run, path, "run")]


def tag_of(*paths: Path) -> str:
    """The system's name in TREC run files; empty if they have no line."""
    for path in paths:
        with path.open(encoding="utf-8") as file:
            if line := file.readline():
                return line.split()[-1]
    return ""


def write_run(path: Path, run: Iterable[ScoredDoc], tag: str) -> None:
    """Write a TREC run, ordered as trec_eval orders it: by score, equal scores by document id, both descending.

    Nine digits represent a float32 exactly, so measures of the file are the measures of the scores.
    """
    lines = [run_line(doc.query_id, doc.doc_id, rank, doc.score, tag) for rank, doc in in_order(run)]
    write_text(path, "".join(lines))


def in_order(run: Iterable[ScoredDoc]) -> Iterator[tuple[int, ScoredDoc]]:
    """(rank, document), query by query, as trec_eval orders them, which reads scores as float32."""
    by_query: dict[str, list[ScoredDoc]] = {}
    for doc in run:
        by_query.setdefault(doc.query_id, []).append(doc)
    for docs in by_query.values():
        scores = np.array([doc.score for doc in docs], dtype=np.float32).tolist()
        places = sorted(range(len(docs)), key=lambda place: (scores[place], docs[place].doc_id), reverse=True)
        yield from enumerate((docs[place] for place in places), 1)


def doc_ids_in_order(run: Iterable[ScoredDoc]) -> dict[str, list[str]]:
    """The documents of each query, the best first, as `in_order` gives them."""
    by_query: dict[str, list[str]] = {}
    for _, doc in in_order(run):
        by_query.setdefault(doc.query_id, []).append(doc.doc_id)
    return by_query


def qrel_line(query_id: str, doc_id: str, grade: int) -> str:
    """A line of TREC qrels."""
    return f"{query_id} 0 {doc_id} {grade}\n"


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
