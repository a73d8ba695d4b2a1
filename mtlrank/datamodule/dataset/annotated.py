"""Auxiliary tasks made of a collection: its (query, passage) pairs, labelled by an annotator."""

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mtlrank.annotate.annotator import Annotator, Pair
from mtlrank.batch import Record
from mtlrank.checks import or_null, whole
from mtlrank.chunks import chunks
from mtlrank.config import SPLITS
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset.balance import balanced
from mtlrank.datamodule.dataset.held_out import HeldOut
from mtlrank.datamodule.dataset.leaks import LeakedQueries, hash_of_words, not_drawn
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError
from mtlrank.own_parts import records_of
from mtlrank.task import Buckets, Classification, Task
from mtlrank.words import of_dataset

_QUERIES = 200  # whose pairs are in memory at a time
_PAIRS = 200  # that are annotated at once


class AnnotatedPairs(PreparedDataset):
    """Pairs of a query and a passage with an annotator's labels; no judgements are needed.

    A split is a collection or a share of the training queries, as in `val=0.2`, drawn by a hash of the query id: the same
    queries that `IRDataset` holds out with this share and seed.

    Each query (at most `max_queries`, drawn by a hash) is paired with `per_query` passages: `per_query // 2` of them
    drawn from its `depth` best, the others from the whole collection, so that labels reach from no overlap to the best
    match. An annotator that does not read queries labels each of these passages once, and in one split: a passage that
    validation or test holds is left out of training, and one of test out of validation. `balance` draws equally many
    training items of each class.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        annotator: Annotator,
        train: str | Mapping[str, Any],
        val: str | Mapping[str, Any] | float | None = None,
        test: str | Mapping[str, Any] | float | None = None,
        max_queries: int | None = None,
        per_query: int = 10,
        depth: int = 100,
        balance: bool = False,
        leaked_queries: str = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__(name, task, preprocessor)
        if not isinstance(annotator, Annotator):
            raise ConfigError(
                f"Dataset {name!r}: annotator is {annotator!r}, expected one as in /annotate@annotator: bm25."
            )
        if task.tags != annotator.tags:
            found, fix = ("words", "true") if task.tags else ("whole entities", "false")
            raise ConfigError(
                f"Dataset {name!r}: the task {type(task).__name__} labels {found}, and the annotator does not. Set "
                f"{of_dataset(name, f'annotator.tags={fix}')}."
            )
        self.annotator = annotator
        self.text_keys = ("query", "text") if annotator.reads_query else ("text",)
        self.spans_in = annotator.spans_in
        self.sources = {"train": train, "val": val, "test": test}
        self.held_out = HeldOut(self.sources, seed)
        self.max_queries = or_null(whole(1)).check("max_queries", max_queries)
        self.per_query = whole(1).check("per_query", per_query)
        self.depth = whole(1).check("depth", depth)
        if balance and (not isinstance(task, Classification) or isinstance(task, Buckets)):
            raise ConfigError(f"Dataset {name!r}: balance=true needs classes; quantile buckets are balanced already.")
        if balance and task.tags:
            raise ConfigError(
                f"Dataset {name!r}: balance=true would leave words out, and all are tagged. Leave it out."
            )
        self.balance = balance
        self.leaked = LeakedQueries(name, leaked_queries)
        self.seed = seed
        self._held: dict[str, set[bytes]] = {}  # by split: hashes of its passages, kept by `_passages_of`

    def records(self, split: str) -> Iterable[Record]:
        if self.sources[split] is None:
            return []
        if split == "train":  # before hours of work
            for source in self._collections().values():
                Collection(source).require_order("depth")
        if self.balance and self.shard.total > 1:
            raise ConfigError(
                f"Dataset {self.name!r}: balance=true needs all records in one shard. Set prepare.num_shards=1."
            )
        collection = Collection(self._source(split), self._reading(), self._holds)
        records = self._annotated(collection, split)
        return balanced(records, self.seed) if self.balance and split == "train" else records

    def describe(self) -> dict[str, Any]:
        sources = {split: Collection(source).source for split, source in self._collections().items()}
        described = {s: {**source.describe(), "bm25": str(source.bm25_settings)} for s, source in sources.items()}
        return {**described, **self.held_out.shares, "annotator": self.annotator.describe()}

    def check_sources(self) -> None:
        for source in self._collections().values():
            Collection(source)

    def _collections(self) -> dict[str, Any]:
        """The sources of the splits that are collections of their own."""
        return {s: each for s, each in self.sources.items() if each is not None and s not in self.held_out.shares}

    def _source(self, split: str) -> Any:
        """The source of the collection that a split is drawn from."""
        return self.sources["train" if split in self.held_out else split]

    def _queries(self, collection: Collection, split: str) -> dict[str, str]:
        """The queries of a split, of all shards, by id."""
        return {name: text for name, text in collection.all_queries.items() if self.held_out.holds(split, name)}

    def _reading(self) -> Reading:
        """The reading that reports problems. If every shard reads the whole collection, only shard 1 reports."""
        alone = self.annotator.reads_query or self.shard.number == 1
        return self.reading if alone else Reading.silent()

    def _holds(self, query_id: str) -> bool:
        """Whether this shard needs a query: its own, or every query if passages are labelled without one."""
        return not self.annotator.reads_query or self.shard.holds(query_id)

    def _annotated(self, collection: Collection, split: str) -> Iterator[Record]:
        seen, last = set[str](), 0
        elsewhere = set[bytes]()  # passages of later splits, which must not be learnt from
        if not self.annotator.reads_query:
            elsewhere = elsewhere.union(*map(self._passages_of, SPLITS[SPLITS.index(split) + 1 :]))
        for pairs in chunks(self._pairs(collection, split), _PAIRS):
            if not self.annotator.reads_query:
                new = {pair.doc_id: pair for pair in pairs if pair.doc_id not in seen and self.shard.holds(pair.doc_id)}
                seen.update(new)
                pairs = [pair for pair in new.values() if hash_of_words(pair.text) not in elsewhere]
                self.reading.count("passages of another split left out", len(new) - len(pairs))
            for record in records_of(self.annotator, pairs, collection.docs):
                group = None if record.group is None else last + record.group  # an annotator counts within a chunk
                yield record._replace(group=group)
            last += len(pairs)

    def _pairs(self, collection: Collection, split: str) -> Iterator[Pair]:
        everyones = self._queries(collection, split)
        elsewhere = list(self._asked_elsewhere()) if split == "train" else []
        unread = not_drawn(everyones, elsewhere, self.max_queries, self.seed)
        mine = {q: text for q, text in collection.queries.items() if q in everyones and q not in unread}
        queries = self.leaked.without(mine, elsewhere, collection.reading)
        collection.read_run(queries, self.depth)
        for number, some in enumerate(chunks(queries, _QUERIES)):
            ranked = collection.candidates(some, self.depth)
            passages = {q: self._passages(q, [doc.doc_id for doc in ranked[q]], collection) for q in some}
            texts = collection.docs.texts(doc_id for doc_ids in passages.values() for doc_id in doc_ids)
            for done, (query_id, doc_ids) in enumerate(passages.items(), start=number * _QUERIES):
                self.reading.at(done, len(queries))
                with_text = [doc_id for doc_id in doc_ids if doc_id in texts]
                collection.reading.count("documents without a text", len(doc_ids) - len(with_text))
                yield from (Pair(query_id, d, collection.queries[query_id], texts[d]) for d in with_text)

    def _passages_of(self, split: str) -> set[bytes]:
        """The passages of a whole split, whatever the shard."""
        if self.sources[split] is not None and split not in self._held:
            pairs = self._pairs(Collection(self._source(split), Reading.silent()), split)
            self._held[split] = {hash_of_words(pair.text) for pair in pairs}
        return self._held.get(split, set())

    def _asked_elsewhere(self) -> Iterator[str]:
        """The texts of the queries of validation and test."""
        for split in ("val", "test"):
            if self.sources[split] is not None:
                yield from self._queries(Collection(self._source(split), Reading.silent()), split).values()

    def _passages(self, query_id: str, best: list[str], collection: Collection) -> list[str]:
        draw = random.Random(f"{self.seed} {query_id}")
        chosen = draw.sample(best, min(self.per_query // 2, len(best)))
        others = draw.sample(range(len(collection.docs)), min(self.per_query, len(collection.docs)))
        new = [doc_id for doc_id in collection.docs.names(others) if doc_id not in chosen]
        return chosen + new[: self.per_query - len(chosen)]
