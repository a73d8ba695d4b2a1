"""Rankings: queries with judged documents and first-stage candidates."""

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from zlib import crc32

from mtlrank.annotate.bm25 import RankedDoc
from mtlrank.batch import Record
from mtlrank.datamodule.collection import Collection, Source
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError
from mtlrank.storage import write_text
from mtlrank.task import Task


class IRDataset(PreparedDataset):
    """A ranking task from collections: train on judged documents and sampled negatives, re-rank candidates elsewhere.

    A split is a collection (see `Collection`) or a share of the training queries, as in `val=0.2`, drawn by a hash of the
    query id. Training pairs each relevant document with `num_negatives` candidates that are not judged relevant, and
    keeps judged non-relevant documents too if `judged_negatives`. Other splits hold the `num_candidates` best candidates.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: Source,
        val: Source | float | None = None,
        test: Source | float | None = None,
        num_candidates: int = 100,
        num_negatives: int = 4,
        judged_negatives: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(name, task, preprocessor)
        self.sources = {"train": train, "val": val, "test": test}
        self.num_candidates = num_candidates
        self.num_negatives = num_negatives
        self.judged_negatives = judged_negatives
        self.seed = seed
        self.relevance_level: int = getattr(task, "relevance_level", 1)
        self._check_shares()
        self._collections: dict[str, Collection] = {}

    def records(self, split: str) -> Iterable[Record]:  # noqa: D102
        if self.sources[split] is None:
            return []
        return self._training_records() if split == "train" else self._candidate_records(split)

    def collection(self, split: str) -> Collection:
        """The collection that a split is drawn from."""
        source = self.sources[split]
        if source is None or isinstance(source, float):
            split, source = "train", self.sources["train"]
        assert source is not None
        assert not isinstance(source, float)
        if split not in self._collections:
            self._collections[split] = Collection(source)
        return self._collections[split]

    def query_ids(self, split: str) -> list[str]:
        """The judged queries of a split."""
        judged = list(self.collection(split).qrels)
        shares = {name: share for name, share in self.sources.items() if isinstance(share, float)}
        if split != "train" and split not in shares:
            return judged
        return [query_id for query_id in judged if self._split_of(query_id, shares) == split]

    def write_judgements(self, split: str, folder: Path) -> None:
        """All judgements of the split's queries, and the candidates with their first-stage scores."""
        qrels, run = self.collection(split).qrels, self._candidates(split)
        query_ids = self.query_ids(split)
        judged = (f"{q} 0 {d} {grade}\n" for q in query_ids for d, grade in qrels[q].items())
        write_text(folder / "qrels.txt", "".join(judged))
        lines = (f"{d.query_id} Q0 {d.doc_id} {d.rank} {d.score:.9g} first-stage\n" for q in query_ids for d in run[q])
        write_text(folder / "candidates.run", "".join(lines))

    def _split_of(self, query_id: str, shares: Mapping[str, float]) -> str:
        point, edge = crc32(f"{self.seed} {query_id}".encode()) / 2**32, 0.0
        for name, share in shares.items():
            edge += share
            if point < edge:
                return name
        return "train"

    def _candidates(self, split: str) -> dict[str, list[RankedDoc]]:
        return self.collection(split).candidates(self.query_ids(split), self.num_candidates)

    def _training_records(self) -> Iterator[Record]:
        collection, candidates = self.collection("train"), self._candidates("train")
        query_ids = self.query_ids("train")
        ids = {d for q in query_ids for d in (*collection.qrels[q], *(c.doc_id for c in candidates[q]))}
        texts = collection.texts(ids)
        group = 0
        for query_id in query_ids:
            judged = {d: grade for d, grade in collection.qrels[query_id].items() if d in texts}
            unjudged = [c.doc_id for c in candidates[query_id] if c.doc_id in texts and c.doc_id not in judged]
            for docs in self._training_groups(query_id, judged, unjudged):
                for doc_id in docs:
                    query, text, grade = collection.queries[query_id], texts[doc_id], judged.get(doc_id, 0)
                    number = group if self.task.grouped else None
                    yield Record(query_id, doc_id, query, text, grade, group=number)
                group += 1

    def _training_groups(self, query_id: str, judged: Mapping[str, int], unjudged: list[str]) -> Iterator[list[str]]:
        """Each relevant document with its negatives; judged non-relevant ones by themselves where there are no groups."""
        draw = random.Random(f"{self.seed} {query_id}")
        positives = [d for d, grade in judged.items() if grade >= self.relevance_level]
        negatives = [d for d, grade in judged.items() if grade < self.relevance_level]
        if not self.judged_negatives:
            negatives = []
        if self.task.grouped:
            pool = negatives + unjudged
            for positive in positives:
                if pool:
                    yield [positive, *draw.sample(pool, min(self.num_negatives, len(pool)))]
            return
        sampled = draw.sample(unjudged, min(self.num_negatives * len(positives), len(unjudged)))
        yield [*positives, *negatives, *sampled]

    def _candidate_records(self, split: str) -> Iterator[Record]:
        collection, candidates = self.collection(split), self._candidates(split)
        texts = collection.texts({c.doc_id for ranked in candidates.values() for c in ranked})
        for query_id, ranked in candidates.items():
            for doc_id in (c.doc_id for c in ranked if c.doc_id in texts):
                grade = collection.qrels[query_id].get(doc_id, 0)
                yield Record(query_id, doc_id, collection.queries[query_id], texts[doc_id], grade)

    def _check_shares(self) -> None:
        shares = [share for share in self.sources.values() if isinstance(share, float)]
        if any(not 0 < share < 1 for share in shares) or sum(shares) >= 1:
            raise ConfigError(f"Dataset {self.name!r}: shares of training queries lie between 0 and 1, found {shares}.")
        if isinstance(self.sources["train"], float) or self.sources["train"] is None:
            raise ConfigError(f"Dataset {self.name!r}: train is {self.sources['train']}, expected a collection.")
