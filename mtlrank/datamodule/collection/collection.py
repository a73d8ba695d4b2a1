"""Collections: queries, documents, judgements and first-stage candidates, by ir_datasets id or from one's own files."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Collection as Ids
from functools import cached_property
from itertools import groupby, islice
from typing import Any

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.datamodule.collection.best_of_run import BestOfRun
from mtlrank.datamodule.collection.ranking import RankedDocs
from mtlrank.datamodule.collection.rows import PairValue, Triple
from mtlrank.datamodule.collection.source import open_source
from mtlrank.datamodule.collection.store import DocStore
from mtlrank.datamodule.lines import IMPOSSIBLE, wrong_id
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError

_CHECKED = 1_000_000  # lines of a run whose order is checked; there may be half a billion


class Collection:
    """A source of (query, document) pairs; see `open_source` for what a source can be.

    Queries, judgements and the candidates that are asked for are held in memory; documents are not. Without a run,
    candidates are retrieved with BM25. Rows that cannot be used go to `reading`; `holds` says which queries are wanted.
    """

    def __init__(
        self,
        source: str | Mapping[str, Any],
        reading: Reading | None = None,
        holds: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.source = open_source(source)
        self.reading = reading or Reading()
        self.holds = holds
        self._ranked: dict[str, RankedDocs] = {}  # of the run, at most `_depth` documents a query
        self._depth = 0

    @cached_property
    def queries(self) -> dict[str, str]:
        """query_id to text of the wanted queries, in the source's order."""
        return {query_id: text for query_id, text in self.all_queries.items() if self.holds(query_id)}

    @cached_property
    def all_queries(self) -> dict[str, str]:
        """query_id to text of all queries."""
        self.require("queries")
        queries = dict[str, str]()
        for name, text, place in self.source.texts("queries", self.reading):
            if wrong := wrong_id("query_id", name):
                self.reading.reject(place, wrong, text)
            elif IMPOSSIBLE.search(text):
                self.reading.reject(place, f"expected text, found invalid characters in query {name!r}", text)
            elif not text.strip():
                self.reading.reject(place, f"expected a text, found a blank one for query {name!r}", text)
            elif name not in queries:
                queries[name] = text
            elif queries[name] != text:
                self.reading.reject(place, f"query {name!r} has two different texts", text)
            else:
                self.reading.count("queries given twice", self.holds(name))
        return queries

    @cached_property
    def qrels(self) -> dict[str, dict[str, int]]:
        """query_id to doc_id to grade, for wanted queries that have a text, in the order of the queries."""
        self.require("qrels")
        grades: dict[str, dict[str, int]] = {query_id: {} for query_id in self.queries}
        for query_id, doc_id, grade, place in self.source.pair_values("qrels", self.reading):
            if not self.holds(query_id):
                continue
            judged = grades.get(query_id)
            if judged is None:
                self.reading.count("judgements of queries without a text")
            elif doc_id not in judged:
                judged[doc_id] = int(grade)
            elif judged[doc_id] == grade:
                self.reading.count("judgements given twice")
            else:
                found = f"two grades, {judged[doc_id]} and {grade:g}"
                self.reading.reject(place, f"expected one grade for {doc_id!r} and query {query_id!r}, found {found}")
        return {query_id: judged for query_id, judged in grades.items() if judged}

    @cached_property
    def docs(self) -> DocStore:
        """The documents."""
        self.require("docs")
        docs = DocStore(self.source, self.reading)
        if self.holds(""):  # the empty id belongs to exactly one shard, so duplicates are counted once over all shards
            self.reading.count("documents given twice", docs.twice, of=str(docs.path))
        return docs

    @property
    def bm25(self) -> BM25Index:
        """A BM25 index of all documents, by position in `docs`."""
        return self.docs.bm25

    @cached_property
    def is_ordered(self) -> bool:
        """Whether the run ranks documents: not if, in its first lines, all documents of each query have the same score.

        MS MARCO's `top1000` files, for one, have no scores: such a run is a pool of candidates.
        """
        first, tied = dict[str, tuple[str, float]](), False
        for row in islice(self.source.pair_values("run", Reading.silent()), _CHECKED):
            doc_id, score = first.setdefault(row.query_id, (row.doc_id, row.value))
            if row.value != score:
                return True
            tied = tied or row.doc_id != doc_id
        return not tied

    def require_order(self, what: str, unless: int | None = None) -> None:
        """Raise `DataError` if the source has a run without ranks, which `what` needs.

        With `unless`, a run with at most so many documents of each query will do: all of them are taken.
        """
        if self.source.has("run") and not self.is_ordered and (unless is None or self._has_more_than(unless)):
            way = "" if unless is None else ", or set num_candidates so high that all documents of each query are taken"
            raise DataError(
                f"The run of {self.source.name} ranks nothing: all documents of a query have the same score, and {what} "
                f"needs ranks. Give a run with scores, or let BM25 retrieve, as in {{id: ..., run: bm25}}{way}."
            )

    def _has_more_than(self, k: int) -> bool:
        """Whether the run has more than `k` lines of a query."""
        lines = Counter[str]()
        for row in self.source.pair_values("run", Reading.silent()):
            lines[row.query_id] += 1
            if lines[row.query_id] > k:
                return True
        return False

    def candidates(self, query_ids: Ids[str], k: int) -> dict[str, RankedDocs]:
        """The first-stage ranking of each query, best first, at most `k` documents.

        Of a run that is not ordered: `k` of each query's documents, drawn and ordered by a hash.
        """
        if self.source.has("run"):
            self.read_run(query_ids, k)
            return {query_id: self._ranked[query_id].best(k) for query_id in query_ids}
        return {query_id: self._retrieve(query_id, k) for query_id in query_ids}

    def read_run(self, query_ids: Ids[str], k: int) -> None:
        """Read the `k` best of all these queries at once; `candidates` for a few at a time would read the run each time."""
        if self.source.has("run") and (k > self._depth or any(query_id not in self._ranked for query_id in query_ids)):
            k, is_first = max(k, self._depth), not self._depth
            self._ranked = self._best_of_run(dict.fromkeys([*self._ranked, *query_ids]), k, is_first)
            self._depth = k

    def docpairs(self) -> Iterator[Triple]:
        """Training triples; those of queries without a text are counted and left out."""
        self.require("docpairs")
        for triple in self.source.docpairs(self.reading):
            if triple.query_id in self.queries:
                yield triple
            elif self.holds(triple.query_id):
                self.reading.count("triples of queries without a text")

    def _best_of_run(self, query_ids: Ids[str], k: int, is_first: bool) -> dict[str, RankedDocs]:
        best, unknown = BestOfRun(query_ids, k, self.reading, is_ordered=self.is_ordered), 0
        for query_id, lines in self._run_by_query():
            if query_id in best.ranked:
                best.add(query_id, lines)
            elif query_id not in self.queries and self.holds(query_id):
                unknown += sum(1 for _ in lines)
        if best.unsure:
            for query_id, lines in self._run_by_query():
                if query_id in best.unsure:
                    best.check(query_id, lines)
        if is_first:
            self.reading.count("run lines of queries that the split has not", unknown)
        return best.ranked

    def _run_by_query(self) -> Iterator[tuple[str, Iterator[PairValue]]]:
        """Consecutive lines of the run with the same query, which may come again later."""
        return groupby(self.source.pair_values("run", self.reading), key=lambda line: line.query_id)

    def _retrieve(self, query_id: str, k: int) -> RankedDocs:
        """The `k` best documents, in trec_eval's order of equal scores: document ids, descending."""
        positions, scores = self.bm25.retrieve(self.queries[query_id], k)
        scored = zip(scores.tolist(), self.docs.names(positions.tolist()), strict=True)
        return RankedDocs.of(query_id, [(doc_id, score) for score, doc_id in sorted(scored, reverse=True)[:k]])

    def require(self, part: str) -> None:
        """Raise `ConfigError` if the source lacks a part."""
        if not self.source.has(part):
            raise ConfigError(f"The collection {self.source.name!r} has no {part}, which this dataset needs.")
