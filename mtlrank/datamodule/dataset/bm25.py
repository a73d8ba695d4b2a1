"""BM25-score prediction: what a first-stage ranker thinks of a (query, passage) pair."""

import random
from collections.abc import Iterable

from mtlrank.batch import Record
from mtlrank.datamodule.collection import Collection, Source
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.task import Task


class BM25Scores(PreparedDataset):
    """Pairs of a query and a passage, labelled with the passage's exact BM25 score in its collection.

    Each query is paired with `per_query` passages: half of them drawn from its `depth` best, half from the whole
    collection, so that labels reach from no overlap to the best match. No judgements are needed.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: Source,
        val: Source | None = None,
        test: Source | None = None,
        max_queries: int | None = None,
        per_query: int = 10,
        depth: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(name, task, preprocessor)
        self.sources = {"train": train, "val": val, "test": test}
        self.max_queries = max_queries
        self.per_query = per_query
        self.depth = depth
        self.seed = seed

    def records(self, split: str) -> Iterable[Record]:  # noqa: D102
        source = self.sources[split]
        if source is None:
            return
        collection = Collection(source)
        texts = {doc_id: text for doc_id, text in collection.docs() if text.strip()}
        doc_ids = list(texts)
        draw = random.Random(f"{self.seed} {split}")
        queries = list(collection.queries.items())
        if self.max_queries is not None and len(queries) > self.max_queries:
            queries = draw.sample(queries, self.max_queries)
        for query_id, query in queries:
            ranked = collection.bm25.retrieve([query_id], [query], self.depth)
            best = [doc.doc_id for doc in ranked if doc.doc_id in texts]
            chosen = draw.sample(best, min(self.per_query // 2, len(best)))
            others = draw.sample(doc_ids, min(self.per_query, len(doc_ids)))
            chosen += [doc_id for doc_id in others if doc_id not in chosen][: self.per_query - len(chosen)]
            scores = collection.bm25.score(query, chosen)
            for doc_id, score in zip(chosen, scores, strict=True):
                yield Record(query_id, doc_id, query, texts[doc_id], float(score))
