"""Rankings: queries with judged documents and first-stage candidates."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mtlrank.annotate.annotator import Annotator
from mtlrank.annotate.bm25 import BM25Index
from mtlrank.batch import Record
from mtlrank.checks import or_null, whole
from mtlrank.chunks import chunks
from mtlrank.datamodule.collection import Collection, RankedDocs
from mtlrank.datamodule.dataset import training_samples
from mtlrank.datamodule.dataset.bm25_text import BM25Text
from mtlrank.datamodule.dataset.document_texts import Labelled, Texts
from mtlrank.datamodule.dataset.first_stage import BM25_ORDER, ranked_by_bm25
from mtlrank.datamodule.dataset.folds import Folds, check_divisible
from mtlrank.datamodule.dataset.held_out import HeldOut
from mtlrank.datamodule.dataset.leaks import LeakedQueries, not_drawn
from mtlrank.datamodule.dataset.merge import UNREACHABLE, WITHOUT_CANDIDATES
from mtlrank.datamodule.dataset.negatives import Negatives
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.datamodule.named_files import locate_all
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.shard import Shard
from mtlrank.storage import safe_name, write_text
from mtlrank.task import Task
from mtlrank.trec import qrel_line, run_line
from mtlrank.words import of_dataset

Source = str | Mapping[str, Any]
_DOCUMENTS = 1000  # whose texts are looked for at a time


class IRDataset(PreparedDataset):
    """A ranking task from collections: train on judged documents and sampled negatives, re-rank candidates elsewhere.

    A split is a collection (see `open_source`) or a share of the training queries, as in `val=0.2`, drawn by a hash of
    the query id; other splits than train hold the `num_candidates` best candidates. `more_tests` are further test sets by
    name, as in {dl20: msmarco-passage/trec-dl-2020/judged}; the head is judged on each by itself. With `train=None`
    and no other splits, the dataset tests a head that was trained elsewhere. Training learns from `learn_from`:

    - `judged`: relevant documents and negatives (see `Negatives`), grouped as the task wants or as `grouping` says;
    - `docpairs`: the collection's own triples, a group each, with a distillation by the scores that come with them;
    - `run`: the scores of the collection's run, as a teacher to distil. With a regression they are predicted, in every
      split; with a distillation, training groups are `num_negatives` + 1 candidates of a query (`groups_per_query` of them)
      with their scores, and other splits are judged;
    - `annotator`: the same with the labels of an annotator as the teacher's scores.

    A run without scores, such as MS MARCO's `top1000.train`, is a pool that `judged` and `annotator` draw from, without
    `negative_ranks`. In other splits it may have at most `num_candidates` documents of each query. Where training
    judgements have another scale than those of the other splits, `train_relevance_level` is the lowest grade that is
    relevant there.

    `negatives_run` is a TREC run that training draws its candidates from instead, such as a first model's; the first stage
    of the other splits stays as it is.

    Training learns from at most `max_queries` queries, drawn by a hash; the other splits stay as they are.

    `folds` is for cross-validation: a number of them, or a file that says the fold of each query (see `Folds`). Then `fold`
    is the test, the one before it validates, and `train` names the collection of all.

    With `bm25_in_text`, the BM25 score of each pair stands between its texts (see `BM25Text`).

    `missing_texts=skip` leaves out documents that have no text (and counts them) where the default is to stop;
    `leaked_queries=drop` leaves training queries out whose text is a query of another split.
    """

    text_keys = ("query", "text")

    def __init__(
        self,
        name: str,
        task: Task,
        preprocessor: Preprocessor,
        train: Source | None,
        val: Source | float | None = None,
        test: Source | float | None = None,
        num_candidates: int = 100,
        learn_from: str = "judged",
        grouping: str | None = None,
        num_negatives: int = 4,
        max_negatives: int | None = None,
        negative_ranks: tuple[int, int] | None = None,
        judged_negatives: bool = True,
        groups_per_positive: int = 1,
        negatives_run: str | None = None,
        train_relevance_level: int | None = None,
        missing_texts: str = "stop",
        leaked_queries: str = "stop",
        annotator: Annotator | None = None,
        max_queries: int | None = None,
        groups_per_query: int = 1,
        more_tests: Mapping[str, Source] | None = None,
        folds: int | str | None = None,
        fold: int | None = None,
        bm25_in_text: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name, task, preprocessor)
        self.more_tests = {
            safe_name(name, "The name of a test set"): where for name, where in (more_tests or {}).items()
        }
        self.sources = {"train": train, "val": val, "test": test}
        self.sources |= {f"test@{name}": where for name, where in self.more_tests.items()}
        self.relevance_level = task.level
        self.train_relevance_level = or_null(whole(1)).check("train_relevance_level", train_relevance_level)
        if folds is not None:
            check_divisible(name, task, self.sources, self.train_relevance_level)
            self.sources |= dict.fromkeys(Folds.shares, train)
            self.held_out: HeldOut | Folds = Folds(name, folds, fold, seed, self._all_judged)
        elif fold is not None:
            raise ConfigError(f"Dataset {name!r}: fold is {fold!r}, but folds is null: set it to the number of folds.")
        else:
            self.held_out = HeldOut(self.sources, seed)
        self.num_candidates = whole(1).check("num_candidates", num_candidates)
        self.negatives = Negatives(
            grouping=grouping or ("pairwise" if task.grouped else "pointwise"),
            relevance_level=self.relevance_level,
            num_negatives=num_negatives,
            max_negatives=max_negatives,
            negative_ranks=negative_ranks or (1, num_candidates),
            judged_negatives=judged_negatives,
            groups_per_positive=groups_per_positive,
            seed=seed,
        )
        self.learn_from = learn_from
        self.negative_ranks = negative_ranks
        self.negatives_run = negatives_run
        self.annotator = annotator
        self.max_queries = or_null(whole(1)).check("max_queries", max_queries)
        self.seed = seed
        self.groups_per_query = whole(1).check("groups_per_query", groups_per_query)
        self.texts = Texts(name, missing_texts, _skipping(name, train))
        if bm25_in_text is not None:
            given = [source for source in self.sources.values() if isinstance(source, str | Mapping)]
            self.bm25_text = BM25Text(name, bm25_in_text, preprocessor, given)
        self.leaked = LeakedQueries(name, leaked_queries)
        if task.grouped and self.negatives.grouping == "pointwise":
            raise ConfigError(
                f"Dataset {name!r}: a {type(task).__name__} task compares the documents of a group, and with "
                "grouping=pointwise a group has one. Leave grouping out, or choose task=relevance."
            )
        if self.negatives.grouping != "pointwise" and learn_from != "docpairs":
            whole(1).check("num_negatives", num_negatives)  # else a group has nothing to compare
        if train is None and negatives_run is not None:
            raise ConfigError(f"Dataset {name!r}: negatives_run is for training, and train is null. Leave it out.")
        training_samples.check(name, task, learn_from, annotator, negatives_run, max_queries)
        self._collections: dict[str, Collection] = {}
        self._candidates: dict[str, dict[str, RankedDocs]] = {}

    def _begin(self, shard: Shard, reading: Reading) -> None:
        super()._begin(shard, reading)
        self._collections.clear()  # they belong to another shard and reading
        self._candidates.clear()

    def records(self, split: str) -> Iterable[Record]:
        if split == "train":
            self._check_runs()
        if self.sources[split] is None:
            return []
        slow = split == "train" and self.annotator is not None
        size = training_samples.ANNOTATED if slow else 10 * training_samples.QUERIES
        whole = self.learn_from == "docpairs"
        return self.texts.records(
            self.collection(split), self._samples_of(split), size, whole=whole, bm25_text=self.bm25_text
        )

    def _samples_of(self, split: str) -> Iterator[list[Labelled]]:
        if self.task.kind == "regression":
            return self._scored(split)
        return self._training_samples() if split == "train" else self._to_rerank(split)

    def collection(self, split: str) -> Collection:
        """The collection that a split is drawn from."""
        source = "train" if split in self.held_out else split
        if source not in self._collections:
            self._collections[source] = Collection(self._source(split), self.reading, self.shard.holds)
        return self._collections[source]

    def _of_all_shards(self, split: str) -> Collection:
        """The collection with the queries of every shard. Its problems are reported when the split is read."""
        return Collection(self._source(split), Reading.silent())

    def _source(self, split: str) -> Source:
        """The source of a split's collection; that of a share of the training queries is the source of train."""
        source = self.sources["train" if split in self.held_out else split]
        assert source is not None
        assert not isinstance(source, float)
        return source

    def pool(self, split: str) -> Collection:
        """The collection whose first stage gives a split its candidates."""
        if split != "train" or self.negatives_run is None:
            return self.collection(split)
        if "negatives" not in self._collections:
            where = self._source("train")
            parts = {"id": where} if isinstance(where, str) else where
            self._collections["negatives"] = Collection(
                {**parts, "run": self.negatives_run}, self.reading, self.shard.holds
            )
        return self._collections["negatives"]

    def query_ids(self, split: str) -> list[str]:
        """The queries of a split in this shard: judged ones, unless something else is learnt from."""
        collection = self.collection(split)
        queries: Mapping[str, Any] = collection.qrels if self._is_judged(split) else collection.queries
        mine = [query_id for query_id in queries if self.held_out.holds(split, query_id)]
        return [query_id for query_id in mine if query_id not in self._unread] if split == "train" else mine

    @cached_property
    def _unread(self) -> set[str]:
        """The training queries, of all shards, that are beyond `max_queries`."""
        if self.max_queries is None:
            return set()
        everything = self._of_all_shards("train")
        queries: Iterable[str] = everything.qrels if self._is_judged("train") else everything.all_queries
        texts = {q: everything.all_queries[q] for q in queries if self.held_out.holds("train", q)}
        return not_drawn(texts, self._asked_elsewhere(), self.max_queries, self.seed)

    def _all_judged(self) -> Iterable[str]:
        """The judged queries of train, in all shards."""
        return self._of_all_shards("train").qrels

    def qrels(self, split: str) -> dict[str, dict[str, int]]:
        """query_id to doc_id to grade, relevant from the task's `relevance_level` on."""
        qrels, level = self.collection(split).qrels, self.train_relevance_level
        if level is None or split not in self.held_out:
            return qrels
        least, gain = self.relevance_level, self.relevance_level - level
        return {
            query_id: {d: grade + gain if grade >= level else min(grade, least - 1) for d, grade in judged.items()}
            for query_id, judged in qrels.items()
        }

    def _is_judged(self, split: str) -> bool:
        return self.learn_from == "judged" or (self.task.kind == "ranking" and split != "train")

    def write_judgements(self, split: str, folder: Path) -> None:
        """All judgements of the split's queries, and the candidates with first-stage scores, or BM25's."""
        if self.sources[split] is None:
            return
        qrels, run = self.qrels(split), self.candidates(split)
        judged = (qrel_line(q, d, grade) for q in run for d, grade in qrels.get(q, {}).items())
        write_text(folder / "qrels.txt", "".join(judged))
        collection, tag = self.collection(split), "first-stage"
        if collection.source.has("run") and not collection.is_ordered:
            run, tag = ranked_by_bm25(collection, run), BM25_ORDER
        lines = (run_line(*doc, tag=tag) for q in run for doc in run[q])
        write_text(folder / "candidates.run", "".join(lines))
        level = self.relevance_level
        lost = sum(all(grade < level for grade in qrels.get(q, {}).values()) for q in run)
        self.reading.count("judged queries without a relevant document, which count as 0", lost)
        self._count_unreachable(split, {q: qrels.get(q, {}) for q in run})

    def _count_unreachable(self, split: str, qrels: Mapping[str, Mapping[str, int]]) -> None:
        """Count the relevant documents that nothing can rank, as the collection has no text of them."""
        level, docs = self.relevance_level, self.collection(split).docs
        relevant = (d for judged in qrels.values() for d, grade in judged.items() if grade >= level)
        for some in chunks(relevant, _DOCUMENTS):
            texts = docs.texts(some)
            self.reading.count(UNREACHABLE, sum(doc_id not in texts for doc_id in some))

    def check_sources(self) -> None:
        for source in (each for each in self.sources.values() if each is not None and not isinstance(each, float)):
            Collection(source)
        if self.negatives_run is not None:
            locate_all(self.negatives_run, "negatives_run")
        if isinstance(self.held_out, Folds):
            self.held_out.check_file()

    def describe(self) -> dict[str, Any]:
        sources = {split: source for split, source in self.sources.items() if source is not None}
        described: dict[str, Any] = {
            split: source if isinstance(source, float) else self._describe(self.collection(split))
            for split, source in sources.items()
        }
        if self.negatives_run is not None:
            described["train"]["negatives_run"] = self.pool("train").source.describe()["run"]
        if self.annotator is not None:
            described["annotator"] = self.annotator.describe()
        if self.bm25_text:
            described["bm25_in_text"] = self.bm25_text.describe()
        return described | ({"folds": self.held_out.describe()} if isinstance(self.held_out, Folds) else {})

    def _describe(self, collection: Collection) -> dict[str, Any]:
        first_stage = f"BM25, {collection.source.bm25_settings}, bm25s index {BM25Index.FORMAT}"
        if collection.source.has("run"):
            first_stage = "run" if collection.is_ordered else "run without an order"
        return {**collection.source.describe(), "first_stage": first_stage}

    def candidates(self, split: str) -> dict[str, RankedDocs]:
        """The first-stage ranking of the split's queries."""
        if split not in self._candidates:
            collection = self.pool(split)
            if split in self.held_out and collection is self.collection(split):
                parts = dict.fromkeys([*self.held_out.shares, split])  # its run is read once for all of them
                asked = [query_id for part in parts for query_id in self.query_ids(part)]
                collection.read_run(asked, max(map(self._depth, parts)))
            ranked = collection.candidates(self.query_ids(split), self._depth(split))
            self._candidates[split] = ranked
            if collection is not self.collection(split) and self.shard.total == 1 and not any(ranked.values()):
                raise DataError(f"{self.name}: negatives_run={self.negatives_run} ranks none of the training queries.")
            if self._is_judged(split):
                self.reading.count(WITHOUT_CANDIDATES, sum(not docs for docs in ranked.values()))
        return self._candidates[split]

    def _depth(self, split: str) -> int:
        """How many candidates of a query are looked at."""
        return self.negatives.depth if split == "train" else self.num_candidates

    # -- samples: lists of labelled documents ----------------------------------------------------------------------------

    def _training_samples(self) -> Iterator[list[Labelled]]:
        query_ids = self._training_queries()  # first: it may stop, and candidates take long
        collection = self.collection("train")
        if self.learn_from == "docpairs":
            labels = None if self.task.distils else (float(self.relevance_level), 0.0)
            yield from training_samples.docpairs(self.name, collection, set(query_ids), labels)
            return
        if self.learn_from == "run":
            collection.require("run")
        learnt = training_samples.TrainingQueries(query_ids, self.candidates("train"), collection, self.texts)
        if self.learn_from == "judged":
            grades = self.qrels("train")
            if grades and not any(
                grade >= self.relevance_level for judged in grades.values() for grade in judged.values()
            ):
                what = f"judged queries without a document of grade {self.relevance_level} or more (relevance_level)"
                self.reading.count(what, len(grades))
            yield from training_samples.judged(learnt, grades, self.negatives)
        else:
            yield from training_samples.taught(learnt, self.negatives, self.groups_per_query, self.annotator)

    def _to_rerank(self, split: str) -> Iterator[list[Labelled]]:
        qrels = self.qrels(split)
        for query_id, ranked in self.candidates(split).items():
            yield from ([(query_id, d.doc_id, float(qrels[query_id].get(d.doc_id, 0)))] for d in ranked)

    def _scored(self, split: str) -> Iterator[list[Labelled]]:
        self.collection(split).require("run")
        query_ids = self._training_queries() if split == "train" else self.query_ids(split)
        ranked = self.candidates(split)
        yield from ([(query_id, d.doc_id, d.score)] for query_id in query_ids for d in ranked[query_id])

    # -- training queries, and checks of the sources ---------------------------------------------------------------------

    def _check_runs(self) -> None:
        """Check that runs have ranks where these are needed, before hours of work."""
        for split in (split for split in self.splits if self.sources[split] is not None):
            if split != "train":
                is_judged = self._is_judged(split)
                what = f"{split} by num_candidates={self.num_candidates}" if is_judged else "learn_from=run"
                self.collection(split).require_order(what, unless=self.num_candidates if is_judged else None)
            elif self.learn_from == "run" or (self.negative_ranks and self.learn_from != "docpairs"):
                self.pool(split).require_order("learn_from=run" if self.learn_from == "run" else "negative_ranks")

    def _training_queries(self) -> list[str]:
        """The queries to learn from: none that is asked again in another split."""
        queries = self.collection("train").queries
        mine = {query_id: queries[query_id] for query_id in self.query_ids("train")}
        return self.leaked.without(mine, self._asked_elsewhere(), self.reading)

    def _asked_elsewhere(self) -> Iterator[str]:
        """The texts of the queries of validation and test, those of other shards too."""
        for split in (split for split in self.splits[1:] if self.sources[split] is not None):
            everything = self._of_all_shards(split)
            for query_id in everything.all_queries if self.task.kind == "regression" else everything.qrels:
                if self.held_out.holds(split, query_id):
                    yield everything.all_queries[query_id]


def _skipping(name: str, train: Source | None) -> str:
    """The setting that leaves documents without a text out, as it is typed."""
    way = "missing_texts=skip"
    if train is None:  # then only `evaluate` reads it
        return way
    return of_dataset(name, way, "++")
