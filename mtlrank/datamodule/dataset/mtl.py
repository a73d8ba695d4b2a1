"""The datasets that are learnt together."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import torch.utils.data

from mtlrank.batch import Draw, MTLBatch, TaskBatch
from mtlrank.datamodule.dataset.prepared import PreparedDataset
from mtlrank.dtypes import Ints
from mtlrank.errors import ConfigError


def check_names(names: Iterable[str]) -> None:
    """Raise `ConfigError` if two of the datasets that are learnt together have one name."""
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise ConfigError(f"Two datasets share the name {', '.join(twice)}. Give each its own name.")


class MTLDataset:
    """Several datasets in config order; the key binds a dataset to its head, its `name` labels both.

    A sampler's `dataset_idx` is a position in this order.
    """

    def __init__(self, datasets: Mapping[str, PreparedDataset]) -> None:
        self.datasets = dict(datasets)
        self._splits: dict[str, MTLSplit] = {}
        check_names(dataset.name for dataset in self.datasets.values())

    @property
    def by_name(self) -> dict[str, PreparedDataset]:
        """Datasets by name, in order."""
        return {dataset.name: dataset for dataset in self.datasets.values()}

    def split(self, split: str) -> "MTLSplit":
        """One split of all datasets; datasets without it take part with no samples."""
        if split not in self._splits:
            self._splits[split] = MTLSplit(self.by_name, split)
        return self._splits[split]


class MTLSplit(torch.utils.data.Dataset[MTLBatch]):
    """One split of several datasets. Asked for what a sampler drew, it gives a batch for each task."""

    def __init__(self, datasets: Mapping[str, PreparedDataset], split: str) -> None:
        self.names = list(datasets)
        self.splits = [dataset.split(split) if dataset.has(split) else None for dataset in datasets.values()]
        self._about: dict[tuple[str, bytes], list[Ints]] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """Samples of each dataset, by name, in order."""
        return {name: len(split) if split else 0 for name, split in zip(self.names, self.splits, strict=True)}

    def lengths(self) -> list[Ints]:
        """Tokens of each sample, for each dataset in order."""
        return self._lengths

    @cached_property
    def _lengths(self) -> list[Ints]:
        return [split.lengths() if split else np.zeros(0, dtype=np.int64) for split in self.splits]

    def about(self, name: str, samples: Ints) -> list[Ints]:
        """For each dataset in order, the samples about the same pairs as some samples of the dataset `name`.

        A sample is about a pair if one of its sequences has the same query and document or, without queries, the same
        document.
        """
        asked = name, samples.tobytes()
        if asked not in self._about:
            self._about[asked] = self._read_about(name, samples)
        return self._about[asked]

    def _read_about(self, name: str, samples: Ints) -> list[Ints]:
        split = self.splits[self.names.index(name)]
        assert split is not None, "an empty split has no samples"
        pairs = split.pairs_of(samples)
        pairs |= {("-", doc_id) for _, doc_id in pairs}
        return [split.samples_about(pairs) if split else np.zeros(0, dtype=np.int64) for split in self.splits]

    def __getitems__(self, draw: Draw) -> MTLBatch:
        """The batch of each task that was drawn, in config order."""
        drawn: dict[int, list[int]] = {}
        for dataset_idx, sample_idx in draw.pairs:
            drawn.setdefault(dataset_idx, []).append(sample_idx)
        tasks = {self.names[idx]: self._collate(idx, drawn[idx]) for idx in sorted(drawn)}
        return MTLBatch(tasks, draw.totals, draw.weight, draw.seed, draw.step)

    def _collate(self, idx: int, samples: Iterable[int]) -> TaskBatch:
        split = self.splits[idx]
        assert split is not None, "a sampler drew from an empty split"
        return split.collate(list(samples))
