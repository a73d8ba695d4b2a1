"""Collections: queries, documents, judgements and first-stage candidates, by ir_datasets id or from one's own files."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import ir_datasets
from ir_datasets.formats import TrecQrels, TrecScoredDocs, TsvDocs, TsvQueries
from ir_datasets.util import LocalDownload

from mtlrank import embedded
from mtlrank.annotate.bm25 import BM25Index, RankedDoc
from mtlrank.errors import ConfigError, DataError

Source = str | Mapping[str, str]
_FILES = {
    "docs": lambda file: TsvDocs(file),
    "queries": lambda file: TsvQueries(file),
    "qrels": lambda file: TrecQrels(file, {}),
    "run": lambda file: TrecScoredDocs(file),
}


class Collection:
    """A source of (query, document) pairs.

    `source` is an ir_datasets id, or a mapping with `docs` and `queries` (TSV: id, text), `qrels` (TREC) and, optionally,
    `run` (TREC run with the candidates). Without a run or scoreddocs, candidates are retrieved with BM25.
    """

    def __init__(self, source: Source) -> None:
        self.source = source if isinstance(source, str) else dict(source)
        self.dataset = _from_files(source) if isinstance(source, Mapping) else _from_id(source)

    @cached_property
    def queries(self) -> dict[str, str]:
        """query_id to text, in the source's order."""
        self._require("queries")
        return {query.query_id: query.default_text() for query in self._read(self.dataset.queries_iter())}

    @cached_property
    def qrels(self) -> dict[str, dict[str, int]]:
        """query_id to doc_id to grade, for queries that have a text."""
        self._require("qrels")
        grades: dict[str, dict[str, int]] = {query_id: {} for query_id in self.queries}
        for qrel in self._read(self.dataset.qrels_iter()):
            if qrel.query_id in grades:
                grades[qrel.query_id][qrel.doc_id] = qrel.relevance
        return {query_id: judged for query_id, judged in grades.items() if judged}

    def texts(self, doc_ids: Iterable[str]) -> dict[str, str]:
        """The texts of the documents that the collection has, in one pass over it; blank ones are left out."""
        wanted = set(doc_ids)
        found = ((doc_id, text) for doc_id, text in self.docs() if doc_id in wanted)
        return {doc_id: text for doc_id, text in found if text.strip()}

    def docs(self) -> Iterator[tuple[str, str]]:
        """(doc_id, text) of every document."""
        self._require("docs")
        for doc in self._read(self.dataset.docs_iter()):
            yield doc.doc_id, doc.default_text()

    @cached_property
    def bm25(self) -> BM25Index:
        """A BM25 index of all documents."""
        docs = dict(self.docs())
        if not any(text.strip() for text in docs.values()):
            raise DataError(f"The collection {self.source!r} has no documents with text to retrieve from.")
        return BM25Index(list(docs), list(docs.values()))

    def candidates(self, query_ids: Iterable[str], k: int) -> dict[str, list[RankedDoc]]:
        """The first-stage ranking of each query, best first, at most `k` documents."""
        wanted = [query_id for query_id in query_ids if query_id in self.queries]
        if not self.dataset.has_scoreddocs():
            run = self.bm25.retrieve(wanted, [self.queries[query_id] for query_id in wanted], k)
            ranked: dict[str, list[RankedDoc]] = {query_id: [] for query_id in wanted}
            for doc in run:
                ranked[doc.query_id].append(doc)
            return ranked
        scores: dict[str, dict[str, float]] = {query_id: {} for query_id in wanted}
        for doc in self._read(self.dataset.scoreddocs_iter()):
            if doc.query_id in scores:
                scores[doc.query_id][doc.doc_id] = doc.score
        return {query_id: _ranked(query_id, found, k) for query_id, found in scores.items()}

    def _require(self, what: str) -> None:
        if not getattr(self.dataset, f"has_{what}")():
            raise ConfigError(f"The collection {self.source!r} has no {what}, which this dataset needs.")

    def _read(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Pass rows on; what goes wrong on the way is the source's fault and is told with its name."""
        try:
            yield from rows
        except (OSError, ValueError, IndexError, RuntimeError, UnicodeError) as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"  # a failed download tells its whole history
            raise DataError(f"Cannot read the collection {self.source!r}: {reason}") from error


def _ranked(query_id: str, scores: dict[str, float], k: int) -> list[RankedDoc]:
    """Order as trec_eval does: by score, equal scores by document id, both descending."""
    order = sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)[:k]
    return [RankedDoc(query_id, doc_id, rank, score) for rank, (doc_id, score) in enumerate(order, 1)]


def _from_files(source: Mapping[str, str]) -> Any:
    unknown = set(source) - set(_FILES)
    if unknown:
        raise ConfigError(f"A collection of files has {', '.join(_FILES)}; found {', '.join(sorted(unknown))}.")
    components = []
    for kind, path in source.items():
        located = Path(embedded.locate(path))
        if not located.is_file():
            raise DataError(f"The collection's {kind} file {path!r} does not exist.")
        components.append(_FILES[kind](LocalDownload(located)))
    return ir_datasets.Dataset(*components)


def _from_id(source: str) -> Any:
    for split in embedded.SPLITS:
        if source == f"{embedded.NAME}/{split}" and source not in ir_datasets.registry:
            ir_datasets.registry.register(source, _embedded_split(split))
    try:
        return ir_datasets.load(source)
    except KeyError as error:
        raise ConfigError(_unknown(source)) from error


def _embedded_split(split: str) -> Any:
    files = {"queries": "queries.tsv", "qrels": "qrels.txt", "run": "bm25.run"}
    paths = {kind: f"{embedded.NAME}/{split}/{name}" for kind, name in files.items()}
    return _from_files({"docs": f"{embedded.NAME}/docs.tsv", **paths})


def _unknown(source: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(source, list(ir_datasets.registry), n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"Unknown ir_datasets id {source!r}.{hint} Your own files: a mapping with docs, queries, qrels and run."
