"""Reading a prepared dataset: whole batches assembled at once from memory-mapped tokens."""

from collections.abc import Iterable, Iterator, Sequence, Set
from functools import cached_property
from hashlib import blake2b
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ir_measures import Qrel, ScoredDoc
from numpy.typing import NDArray

from mtlrank.batch import TaskBatch
from mtlrank.datamodule.dataset.arrays import Array, Chained, RowRanges, mapped, offsets, ranges
from mtlrank.datamodule.dataset.first_stage import BM25_ORDER
from mtlrank.datamodule.dataset.held_out import drawn
from mtlrank.datamodule.dataset.split_files import NO_TEXT
from mtlrank.datamodule.dataset.token_store import PreparedTokens
from mtlrank.datamodule.preprocessor import Lengths
from mtlrank.dtypes import Ints
from mtlrank.storage import MANIFEST, read_json
from mtlrank.storage.local import system_errors
from mtlrank.task import Task
from mtlrank.trec import FIRST_STAGE, read_qrels, read_run, tag_of

_BLOCK = 10_000  # sequences that are in memory at a time


class PreparedSplit:
    """One split of a prepared dataset: `len` counts samples, `collate` makes a batch of some of them.

    `chosen` (samples, by number) and for rankings `queries` (those that are judged) make it a part of the split.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        store: PreparedTokens,
        task: Task,
        classes: Sequence[Ints | None],
        chosen: Ints | None = None,
        queries: frozenset[str] | None = None,
    ) -> None:
        self.folders = list(folders)
        self.store = store
        self._opened = self.folders, store, task, classes, chosen, queries
        self._task = task
        self._queries = queries
        self.samples = RowRanges([mapped(path) for path in self.files("sample_offsets.npy")], chosen)
        self.items = RowRanges([mapped(path) for path in self.files("item_offsets.npy")])
        self.sequences = self._load(
            "sequences", lambda part, rows: np.where(rows < 0, rows, rows + store.first_text[part])
        )
        self.spans = self._load("spans", lambda _, rows: rows.astype(np.int64))
        self.labels = self._load("labels", lambda part, rows: _targets(task, classes[part], rows))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its arguments: the other process maps the files itself."""
        return PreparedSplit, self._opened

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, most: int) -> "PreparedSplit":
        """At most `most` samples or, of a ranking, all samples of at most `most` judged queries.

        They are drawn by a hash, always the same. Queries without samples may be drawn too: their measures are 0.
        """
        queries = None
        if self._task.kind == "ranking":
            queries = frozenset(drawn(dict.fromkeys(qrel.query_id for qrel in self.qrels), most, seed=0))
            numbers = [sample for sample, pairs in enumerate(self.pairs()) if pairs[0][0] in queries]
        else:
            numbers = list(map(int, drawn(map(str, range(len(self))), most, seed=0)))
        return self._only(numbers, queries)

    def without(self, queries: Set[bytes], longest: int) -> "PreparedSplit":
        """The samples that ask none of these queries (see `queries`)."""
        texts, has_query = self._first_texts(np.arange(len(self.sequences)))
        known = np.unique(texts[has_query])
        unwanted = known[[query in queries for query in self._tokens_of(known, longest)]]
        times = offsets((has_query & np.isin(texts, unwanted)).astype(np.int64))
        first, count = self.samples[np.arange(len(self))]
        kept = np.flatnonzero(times[first + count] == times[first])
        return self._only(kept, self._queries)

    def _only(self, samples: Sequence[int] | Ints, queries: frozenset[str] | None) -> "PreparedSplit":
        """Some of the samples, by their places here."""
        folders, store, task, classes, chosen, _ = self._opened
        kept = np.asarray(samples, dtype=np.int64)
        return PreparedSplit(folders, store, task, classes, kept if chosen is None else chosen[kept], queries)

    @cached_property
    def qrels(self) -> list[Qrel]:
        """The judgements of a ranking's queries, read once: each validation asks for the same."""
        everything = read_qrels(*self.files("qrels.txt"))
        return [qrel for qrel in everything if self._queries is None or qrel.query_id in self._queries]

    def first_stage(self) -> list[ScoredDoc]:
        """The ranking of the candidates that a head re-ranks: without those whose texts were missing or rejected."""
        prepared = set(self.ids)
        candidates = read_run(*self.files("candidates.run"))
        return [doc for doc in candidates if (doc.query_id, doc.doc_id) in prepared]

    @cached_property
    def has_pairs(self) -> bool:
        """Whether all sequences are two texts."""
        return bool((self.sequences.all()[:, 1] != NO_TEXT).all())

    def collate(self, sample_ids: Sequence[int] | Ints) -> TaskBatch:
        """The samples as one packed batch, in the given order."""
        samples = np.asarray(sample_ids, dtype=np.int64)
        first_sequence, sequences_per_sample = self.samples[samples]
        sequences = ranges(first_sequence, sequences_per_sample)
        first_item, items_per_sequence = self.items[sequences]
        items = ranges(first_item, items_per_sequence)
        item_pair = np.repeat(np.arange(len(sequences)), items_per_sequence)
        item_sample = np.repeat(np.arange(len(samples)), sequences_per_sample)[item_pair]
        packed = self.store.pack(self.sequences[sequences].astype(np.int64))
        labels = torch.from_numpy(self.labels[items])
        return packed.batch(item_pair, item_sample, labels, self.spans[items], samples)

    def lengths(self) -> Ints:
        """How many tokens each sample has, (samples,), of all its sequences together."""
        first, sequences_per_sample = self.samples[np.arange(len(self))]
        tokens = self.store.lengths(self.sequences.all().astype(np.int64))
        total = offsets(tokens)
        lengths: Ints = total[first + sequences_per_sample] - total[first]
        return lengths

    def num_items(self, samples: Ints) -> Ints:
        """How many items each of some samples has."""
        first, sequences_per_sample = self.samples[samples]
        _, items_per_sequence = self.items[ranges(first, sequences_per_sample)]
        return np.diff(offsets(items_per_sequence)[offsets(sequences_per_sample)])

    def items_of_samples(self, samples: Ints) -> Ints:
        """The items of some samples, as positions in `labels`, sample by sample."""
        sequences = ranges(*self.samples[samples])
        return ranges(*self.items[sequences])

    @cached_property
    def sequence_of_item(self) -> Ints:
        """The sequence of each item of the split."""
        _, counts = self.items[np.arange(len(self.items))]
        sequences: Ints = np.repeat(np.arange(len(self.items)), counts)
        return sequences

    @cached_property
    def ids(self) -> list[tuple[str, str]]:
        """(query_id, doc_id) of each sequence."""
        return [_pair(line) for line in self._lines()]

    def pairs(self) -> list[list[tuple[str, str]]]:
        """(query_id, doc_id) of each sequence of each sample; `-` where there is no query."""
        first, counts = self.samples[np.arange(len(self))]
        return [self.ids[start : start + count] for start, count in zip(first.tolist(), counts.tolist(), strict=True)]

    def pairs_of(self, samples: Ints) -> set[tuple[str, str]]:
        """(query_id, doc_id) of the sequences of some samples, without holding all the others."""
        sequences = set(ranges(*self.samples[samples]).tolist())
        return {_pair(line) for number, line in enumerate(self._lines()) if number in sequences}

    def samples_about(self, pairs: Iterable[tuple[str, str]]) -> Ints:
        """The samples that have a sequence of one of these (query_id, doc_id), in order."""
        wanted = {f"{query_id}\t{doc_id}\n" for query_id, doc_id in pairs}
        sequences = [number for number, line in enumerate(self._lines()) if line in wanted]
        return self.samples.ranges_of(np.array(sequences, dtype=np.int64))

    def first_text(self, sequence: int) -> Ints:
        """The tokens of a sequence's first text, a query's where there is one, (tokens,)."""
        first, length = self.store.texts[self.sequences[np.array([sequence])][:, 0].astype(np.int64)]
        return self.store.tokens[ranges(first, length)]

    @property
    def longest_text(self) -> int:
        """How many tokens of a text are kept. Texts of two splits are compared up to the smaller number."""
        return self.store.limits.longest_text

    @property
    def has_roles(self) -> bool:
        """Whether the first text of a pair is a query, or the like of one, and not one of two sentences."""
        return self.store.limits.max_query_length is not None

    def queries(self, longest: int) -> set[bytes]:
        """The distinct first texts of pairs, each as the bytes of its first `longest` tokens."""
        texts, has_query = self._first_texts(ranges(*self.samples[np.arange(len(self))]))
        return set(self._tokens_of(np.unique(texts[has_query]), longest))

    def _first_texts(self, sequences: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """The row of the first text of each sequence, and whether it is the query of a pair."""
        first, second, _ = self.sequences[sequences].astype(np.int64).T
        return first, second != NO_TEXT

    def _tokens_of(self, texts: Ints, longest: int) -> list[bytes]:
        """The first tokens of some texts, given by their rows."""
        starts, lengths = self.store.texts[texts]
        lengths = np.minimum(lengths, longest)
        tokens = self.store.tokens[ranges(starts, lengths)]
        return [part.tobytes() for part in np.split(tokens, np.cumsum(lengths)[:-1])] if len(texts) else []

    def digests(self, *, any_order: bool = False) -> Iterator[bytes]:
        """A hash of each sequence's tokens, as the model reads them. Two texts without roles are in any order."""
        for start in range(0, len(self.sequences), _BLOCK):
            rows = self.sequences[np.arange(start, min(start + _BLOCK, len(self.sequences)))].astype(np.int64)
            if (any_order or not self.has_roles) and self.has_pairs:
                yield from map(min, self._hashes(rows), self._hashes(rows[:, [1, 0, 2]]))
            else:
                yield from self._hashes(rows)

    def _hashes(self, rows: Ints) -> Iterator[bytes]:
        packed = self.store.pack(rows)
        for first, end in pairwise(packed.starts[packed.pair_starts].tolist()):
            yield blake2b(packed.ids[first:end].tobytes(), digest_size=16).digest()

    def ids_of(self, sequence: int) -> tuple[str, str]:
        """(query_id, doc_id) of one of the first sequences, without reading the others."""
        return _pair(next(islice(self._lines(), sequence, None)))

    def name_of(self, sample: int) -> str:
        """The name of a sample for people: the ids of its query and its first document."""
        first, _ = self.samples[np.array([sample])]
        return " ".join(part for part in self.ids_of(int(first[0])) if part != "-")

    @property
    def baseline_name(self) -> str:
        """What ranked the candidates: BM25, if their run has no order, so that there is no first stage to compare with."""
        return "BM25 order" if tag_of(*self.files("candidates.run")) == BM25_ORDER else FIRST_STAGE

    def files(self, name: str) -> list[Path]:
        """A file of each shard, such as `qrels.txt`; together they are the split's."""
        return [folder / name for folder in self.folders]

    def _lines(self) -> Iterator[str]:
        """The ids of each sequence, as a line."""
        for path in self.files("ids.tsv"):
            with system_errors(f"read {path}, which was there when the run began"), path.open(encoding="utf-8") as file:
                yield from file

    def _load(self, name: str, decode: Any) -> Chained:
        return Chained([mapped(path) for path in self.files(f"{name}.npy")], decode)


def _pair(line: str) -> tuple[str, str]:
    query_id, doc_id = line.rstrip("\n").split("\t")
    return query_id, doc_id


def open_splits(folder: Path, manifest: dict[str, Any], task: Task) -> dict[str, PreparedSplit]:
    """Map the splits of a prepared dataset into memory; the task learns its labels."""
    task.learn_labels(manifest["labels"])
    shards = [folder / name for name in manifest["shards"]]
    lengths = Lengths(*(manifest[field] for field in Lengths._fields))
    store = PreparedTokens(shards, manifest, lengths)
    stores = {"train": PreparedTokens(shards, manifest, lengths._replace(max_passages=manifest["train_passages"]))}
    classes = [_class_numbers(shard, manifest["labels"]) for shard in shards]
    return {
        split: PreparedSplit([shard / split for shard in shards], stores.get(split, store), task, classes)
        for split in manifest["splits"]
    }


def _class_numbers(shard: Path, labels: dict[str, Any]) -> Ints | None:
    """For each class of a shard, its number in the whole dataset (-1: its rows were left out); None for numbers."""
    if "classes" not in labels:
        return None
    known = {name: number for number, name in enumerate(labels["classes"])}
    return np.array([known.get(name, -1) for name in read_json(shard / MANIFEST)["classes"]], dtype=np.int64)


def _targets(task: Task, classes: Ints | None, stored: Array) -> NDArray[np.float32]:
    """A task's targets for the stored labels of a shard, which numbers classes in its own way."""
    if classes is not None:
        stored = classes[stored.astype(np.int64)]
    return task.targets(stored.astype(np.float32))
