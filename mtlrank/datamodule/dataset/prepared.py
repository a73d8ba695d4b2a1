"""The base of all datasets: records in, a prepared dataset out, batches from it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlrank.batch import Record
from mtlrank.datamodule.dataset.split import PreparedSplit, TokenStore
from mtlrank.datamodule.dataset.writer import SplitWriter, TextTable, place
from mtlrank.datamodule.preprocessor import LoadedPreprocessor, Preprocessor
from mtlrank.errors import DataError
from mtlrank.storage import new_folder, read_manifest, safe_name, write_manifest
from mtlrank.task import Buckets, Classification, Task

SCHEMA = 1
SPLITS = ("train", "val", "test")


class PreparedDataset(ABC):
    """One source of labelled records. A subclass says where they come from in `records(split)`; all else is here.

    `prepare` writes a self-contained folder, `open` maps it into memory, `split` gives what samplers and loaders use.
    """

    def __init__(self, name: str, task: Task, preprocessor: Preprocessor) -> None:
        self.name = safe_name(name, "The dataset name")
        self.task = task
        self.preprocessor = preprocessor
        self.manifest: dict[str, Any] = {}
        self._splits: dict[str, PreparedSplit] = {}

    @abstractmethod
    def records(self, split: str) -> Iterable[Record]:
        """The records of `split`, one of train, val and test, always in the same order. None: the split is empty."""

    def write_judgements(self, split: str, folder: Path) -> None:  # noqa: B027 - only rankings have judgements
        """Write what measures need beside labels into `folder`: qrels.txt and candidates.run for rankings."""

    @property
    def has_judgements(self) -> bool:
        """Whether the dataset is judged as a ranking, with qrels and first-stage candidates."""
        return self.task.kind == "ranking"

    # -- prepare -----------------------------------------------------------------------------------------------------

    def prepare(self, target: Path, description: dict[str, Any]) -> None:
        """Read, check and tokenise all records into the folder `target`; the manifest comes last."""
        preprocessor = self.preprocessor.load()
        with new_folder(target) as folder:
            texts = TextTable()
            writers = {split: self._read(split, texts, preprocessor) for split in SPLITS}
            tokens = texts.write(folder, preprocessor)
            splits = {}
            for split, writer in writers.items():
                splits[split] = writer.write(folder / split, tokens, preprocessor)
                if self.has_judgements and splits[split]["samples"]:
                    self.write_judgements(split, folder / split)
            preprocessor.tokenizer.save_pretrained(folder / "tokenizer")
            write_manifest(folder, self._describe(description, preprocessor, splits))

    def _read(self, split: str, texts: TextTable, preprocessor: LoadedPreprocessor) -> SplitWriter:
        records = list(self.records(split))
        if split == "train":
            if not records:
                raise DataError(f"Dataset {self.name!r} has no training records. Check its source.")
            self._learn_labels(records)
        writer = SplitWriter(f"{self.name}/{split}", self.task)
        for record in records:
            writer.add(record, texts)
        return writer

    def _learn_labels(self, records: list[Record]) -> None:
        """Find out what the training labels are, and tell the task."""
        if isinstance(self.task, Classification) and not isinstance(self.task, Buckets):
            classes = sorted({str(record.label) for record in records})
            if len(classes) < 2:
                raise DataError(f"{self.name}/train has the single class {classes[0]!r}: there is nothing to learn.")
            self.labels: dict[str, Any] = {"classes": classes}
        else:
            labels = self._numbers(records)
            self.labels = {"mean": float(labels.mean()), "std": float(labels.std())}
            if isinstance(self.task, Buckets):
                shares = np.arange(1, self.task.num_buckets) / self.task.num_buckets
                edges = np.unique(np.quantile(labels, shares))
                self.labels["edges"] = edges[edges > labels.min()].tolist()
        self.task.learn_labels(self.labels)

    def _numbers(self, records: list[Record]) -> NDArray[np.float64]:
        labels = np.empty(len(records))
        for i, record in enumerate(records):
            try:
                # What a bucket is depends on the numbers themselves.
                encode = Task.encode_label if isinstance(self.task, Buckets) else type(self.task).encode_label
                labels[i] = encode(self.task, record.label)
            except DataError as error:
                raise DataError(f"{place(f'{self.name}/train', i + 1, record)}: {error}") from error
        return labels

    def _describe(
        self, description: dict[str, Any], preprocessor: LoadedPreprocessor, splits: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **description,
            "kind": self.task.kind,
            "labels": self.labels,
            "splits": splits,
            "tokenizer": {"name": self.preprocessor.tokenizer_name, **preprocessor.identity()},
            "template": preprocessor.template._asdict(),
            "max_length": preprocessor.max_length,
            "max_query_length": preprocessor.max_query_length,
        }

    # -- use ---------------------------------------------------------------------------------------------------------

    def open(self, folder: Path) -> None:
        """Map a prepared folder into memory, after checking that no byte of it has changed."""
        self.manifest = read_manifest(folder)
        if self.manifest.get("schema") != SCHEMA:
            raise DataError(f"{folder} has schema {self.manifest.get('schema')}, expected {SCHEMA}. Prepare it again.")
        self.task.learn_labels(self.manifest["labels"])
        store = TokenStore(folder, self.manifest)
        self._splits = {split: PreparedSplit(folder / split, store, self.task) for split in SPLITS}

    def split(self, split: str) -> PreparedSplit:
        """The prepared split; an empty or unknown one is an error that lists what there is."""
        assert self._splits, "open comes before split"
        found = self._splits.get(split)
        if not found:
            names = ", ".join(name for name, other in self._splits.items() if other)
            raise DataError(f"Dataset {self.name!r} has no split {split!r}. It has: {names}.")
        return found

    def has(self, split: str) -> bool:
        """Whether the prepared dataset has samples in `split`."""
        return bool(self._splits.get(split))
