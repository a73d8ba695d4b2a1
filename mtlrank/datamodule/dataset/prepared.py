"""The base of all datasets: records in, a prepared dataset out, batches from it."""

import gc
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from copy import copy
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from torch import nn

from mtlrank.batch import Record
from mtlrank.config import SPLITS
from mtlrank.datamodule.dataset.bm25_text import BM25Text
from mtlrank.datamodule.dataset.first_stage import first_stage
from mtlrank.datamodule.dataset.merge import SCHEMA, merge_shards
from mtlrank.datamodule.dataset.shard_writer import ShardWriter, place_of, samples_of, usable
from mtlrank.datamodule.dataset.split import PreparedSplit, open_splits
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.own_parts import name_of, records_of
from mtlrank.shard import Shard
from mtlrank.storage import new_folder, read_manifest, safe_name, write_manifest, write_text
from mtlrank.task import Task
from mtlrank.trec import qrel_line, write_run


class PreparedDataset(ABC):
    """One source of labelled records. A subclass yields them in `records(split)`; everything else is here.

    `prepare_shard` writes a part of it, `merge` makes one self-contained folder of the shards, `open` maps that into
    memory, `split` gives what samplers and loaders use.

    While records are read, `reading` judges rows that cannot be used, and `shard` says which queries this process is asked
    for: a source may leave out the others early (they are left out anyway).

    `text_keys` and `spans_in` are for users of a trained head: `text_keys` are the keys that JSON Lines have for a text, or
    for the two of a pair (None: some records may be single texts), and `spans_in` is the text that the spans are in. With
    `bm25_text`, its head also reads the BM25 score of a pair.
    """

    text_keys: tuple[str, ...] | None = None
    spans_in: Literal["text", "query"] = "text"
    bm25_text: BM25Text | None = None

    def __init__(self, name: str, task: Task, preprocessor: Preprocessor) -> None:
        if not isinstance(task, Task) or not isinstance(preprocessor, Preprocessor):
            raise ConfigError(f"Dataset {name!r} needs a task and a preprocessor, found {task!r} and {preprocessor!r}.")
        if preprocessor.lengths.max_passages > 1:
            check_one_score(name, task)
        check_no_weights(name, task)
        self.name = safe_name(str(name), "The dataset name")
        self.task = task
        self.preprocessor = preprocessor
        self.reading = Reading()
        self.shard = Shard()
        self.more_tests: dict[str, Any] = {}  # sources of further test sets, by name
        self.folder = Path()  # of the prepared form
        self.manifest: dict[str, Any] = {}
        self._splits: dict[str, PreparedSplit] = {}
        self._seen: int | None = None  # a hash of the records of the split that was read last

    @abstractmethod
    def records(self, split: str) -> Iterable[Record]:
        """The records of `split`: train, val, test, or a further test set (`test@name`).

        Each call gives the same records in the same order, and none for a split that there is not.
        """

    def write_judgements(self, split: str, folder: Path) -> None:
        """Write what measures of a ranking need beside labels into `folder`: qrels.txt and candidates.run. Not for train.

        By default, every usable record is judged, and is a candidate, which BM25 ranks.
        """
        whole = copy(self)
        whole.reading = Reading.silent()  # bad rows were reported the first time
        whole.shard = Shard()  # BM25 indexes all documents of the split
        everything = list(whole.records(split))
        self._check_same(split, everything)
        records = [good for record in everything if (good := self._usable(record)) is not None]
        mine = [
            record
            for record in records
            if self._is_mine(record) and place_of(record, split) not in self.reading.bad_rows  # without tokens
        ]
        pairs = Counter((record.query_id, record.doc_id) for record in mine)
        if twice := next((pair for pair, times in pairs.items() if times > 1), None):
            raise DataError(
                f"{self.name}/{split}: document {twice[1]!r} of query {twice[0]!r} comes {pairs[twice]} times. A "
                "ranking holds each document once."
            )
        if records:
            qrels = [qrel_line(record.query_id, record.doc_id, int(record.label)) for record in mine]
            write_text(folder / "qrels.txt", "".join(qrels))
            write_run(folder / "candidates.run", first_stage(records, mine), tag="bm25")

    def _check_same(self, split: str, records: list[Record]) -> None:
        """Refuse records that are not those which the shard was made of: labels and judgements would differ."""
        mine = chain.from_iterable(sample for sample in samples_of(iter(records)) if self._is_mine(sample[0]))
        if self._seen not in (None, reduce(_hash, mine, 0)):
            raise DataError(
                f"{name_of(self)}.records({split!r}) gives other records when it is called again, so labels and judgements "
                "would differ: expected the same in the same order. Draw with a fixed seed, and make a new iterator in "
                "each call."
            )

    def _usable(self, record: Record) -> Record | None:
        """The record as it is prepared, unless it is a bad row."""
        try:
            return usable(record, self.task)[0]
        except DataError:
            return None

    def describe(self) -> dict[str, Any]:
        """Where records come from, for the manifest: ids, versions, files with their hashes, models."""
        return {}

    def check_sources(self) -> None:  # noqa: B027 - optional in a user's class
        """Raise an error for a missing source. No row is read: preparing other datasets may take hours before."""

    @property
    def splits(self) -> tuple[str, ...]:
        """train, val, test, and `test@name` for each further test set."""
        return (*SPLITS, *(f"test@{name}" for name in self.more_tests))

    @property
    def is_ranking(self) -> bool:
        """Whether the dataset is judged as a ranking, with qrels and first-stage candidates."""
        return self.task.kind == "ranking"

    def require_measures(self, split: str) -> None:
        """Raise `ConfigError` for the training split of a ranking: it is a sample of documents, which is not judged."""
        if self.is_ranking and split == "train":
            raise ConfigError(
                f"{self.name} is a ranking: its training documents are a sample, which is not judged. Choose split val or "
                "test, or other tasks."
            )

    # -- prepare -----------------------------------------------------------------------------------------------------

    def prepare_shard(
        self,
        target: Path,
        shard: Shard,
        reading: Reading,
        fingerprint: str = "",
        check: Callable[[], None] | None = None,
    ) -> None:
        """Read, check and tokenise the samples of a shard into the folder `target`; its manifest comes last.

        Only shards with equal `fingerprint`s are merged. If `check` raises once all is read, there is no folder.
        """
        self._begin(shard, reading)
        preprocessor = self.preprocessor.load()
        with new_folder(target) as folder, _rare_collection():
            splits = {}
            with ShardWriter(folder, self.task, preprocessor, reading) as writer:
                for split in self.splits:
                    splits[split] = writer.write(split, self._samples(split))
                    # Even if there is no sample: judged queries without candidates count.
                    if self.is_ranking and split != "train":
                        self.write_judgements(split, folder / split)
            preprocessor.tokenizer.save_pretrained(folder / "tokenizer")
            bad = [json.dumps(row._asdict(), ensure_ascii=False) for row in reading.bad_rows.values()]
            if bad:
                write_text(folder / "bad_rows.jsonl", "\n".join(bad) + "\n")
            if check:
                check()
            write_manifest(folder, {**self._describe_shard(writer, splits), "fingerprint": fingerprint})

    def merge(
        self, target: Path, shards: Sequence[Path], key: str = "", licence: str | None = None, max_bad_rows: int = 100
    ) -> None:
        """Make one prepared dataset of all shards; their files are taken as they are.

        `key` is the dataset's key in the config, `licence` the terms that users of the data must know.
        """
        description = {"key": key or self.name, "name": self.name, "licence": licence}
        merge_shards(target, shards, self.task, description, max_bad_rows)

    def _is_mine(self, record: Record) -> bool:
        """Whether the record belongs to the shard that is prepared."""
        return self.shard.holds(record.query_id if record.query is not None else record.doc_id)

    def _begin(self, shard: Shard, reading: Reading) -> None:
        """Before a shard is read: what belongs to another one is forgotten."""
        self.shard, self.reading = shard, reading

    def _samples(self, split: str) -> Iterator[list[Record]]:
        groups, seen = set[int](), 0
        for sample in samples_of(records_of(self, split)):
            first = sample[0]
            if first.group in groups:
                raise DataError(
                    f"{place_of(first, split)}: group {first.group} comes a second time. Records of a group must follow "
                    "each other, as they form one sample."
                )
            if first.group is not None:
                groups.add(first.group)
            if first.note is not None and self.bm25_text is None:
                raise DataError(
                    f"{place_of(first, split)}: expected no note, as users of the head could not give it: "
                    f"{name_of(self)} has no bm25_text."
                )
            if self._is_mine(first):
                seen = reduce(_hash, sample, seen)
                yield sample
        self._seen = seen

    def _describe_shard(self, writer: ShardWriter, splits: dict[str, Any]) -> dict[str, Any]:
        preprocessor = writer.preprocessor
        return {
            "schema": SCHEMA,
            "shard": list(self.shard),
            "kind": self.task.kind,
            "source": self.describe(),
            "splits": splits,
            "classes": list(writer.classes),
            "first_place": writer.first_place,
            "bad_rows": len(self.reading.bad_rows),
            "counts": self.reading.counts,
            "tokens": {"all": writer.texts.tokens.rows, "unknown": writer.texts.num_unknown},
            "tokenizer": {"name": self.preprocessor.tokenizer_name, **preprocessor.identity()},
            "template": preprocessor.template._asdict(),
            **preprocessor.lengths._asdict(),
            "train_passages": self.preprocessor.train_passages,
        }

    # -- use ---------------------------------------------------------------------------------------------------------

    def open(self, folder: Path) -> None:
        """Map a prepared folder into memory, after checking that no byte of it has changed."""
        self.folder = folder
        try:
            self.manifest = read_manifest(folder)
        except DataError as error:
            raise DataError(f"{error} Once this folder is removed, the same command prepares it.") from error
        if self.manifest.get("schema") != SCHEMA:
            raise DataError(f"{folder} has schema {self.manifest.get('schema')}, expected {SCHEMA}. Prepare it again.")
        for split in self.manifest["splits"]:  # which become names of folders
            if split not in SPLITS:
                safe_name(str(split).removeprefix("test@"), f"The split {split!r} of {folder}")
        self._splits = open_splits(folder, self.manifest, self.task)

    def split(self, split: str) -> PreparedSplit:
        """The prepared split; an empty or unknown one is an error that lists what there is."""
        assert self._splits, "open comes before split"
        found = self._splits.get(split)
        if not found:
            names = ", ".join(name for name, other in self._splits.items() if other)
            raise DataError(f"Dataset {self.name!r} has no split {split!r}. It has: {names}.")
        return found

    def limit(self, split: str, most: int) -> None:
        """Keep at most `most` samples of a split or, of a ranking, those of `most` queries (see `PreparedSplit.part`)."""
        part = self.split(split).part(most)
        if not part:
            raise ConfigError(
                f"None of the {most} queries that are drawn of the split {split!r} of {self.name} has candidates. Raise "
                "training.max_val_queries, or set it to null."
            )
        self._splits[split] = part

    def leave_out(self, queries: Set[bytes], longest: int) -> int:
        """Drop training samples that ask one of these queries (see `PreparedSplit.queries`); returns their number."""
        whole = self.split("train")
        self._splits["train"] = whole.without(queries, longest)
        return len(whole) - len(self._splits["train"])

    @property
    def has_pairs(self) -> bool:
        """Whether all sequences of the opened splits are two texts."""
        return all(split.has_pairs for split in self._splits.values())

    def sets(self, split: str) -> list[str]:
        """The prepared splits with samples that `split` stands for: itself and, for `test`, further test sets."""
        return [
            name for name, found in self._splits.items() if found and (name == split or name.startswith(f"{split}@"))
        ]

    def has(self, split: str) -> bool:
        """Whether the prepared dataset has samples in `split`."""
        return bool(self._splits.get(split))


def _hash(before: int, record: Record) -> int:
    """A hash of a record and of those before it."""
    return hash((before, record.query_id, record.doc_id, record.query, record.text, str(record.label)))


def check_one_score(name: str, task: Task) -> None:
    """Refuse several passages for a task that does not give one score per passage, of which the best counts."""
    if task.kind == "classification" or task.num_spans or task.output_dim != 1:
        raise ConfigError(
            f"Dataset {name!r}: max_passages above 1 is for tasks with one score for a document, and {type(task).__name__} "
            "has others. Set max_passages=1, or choose another task, as relevance."
        )


def check_no_weights(name: str, task: Task) -> None:
    """Refuse weights in a task, which would not be learnt. A module without any, such as a loss of torch, is fine."""
    for key, value in vars(task).items():
        if isinstance(value, nn.Parameter) or (isinstance(value, nn.Module) and list(value.parameters())):
            raise ConfigError(
                f"Dataset {name!r}: its task {name_of(task)} has weights, {key!r}, which no optimizer would see. Weights "
                "belong in a head, or in a loss that combines tasks."
            )


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Collect garbage less often: there are many small objects, and each collection visits all imported libraries."""
    usual = gc.get_threshold()
    gc.set_threshold(100_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
