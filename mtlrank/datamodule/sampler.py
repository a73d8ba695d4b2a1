"""Samplers yield batches of (dataset_idx, sample_idx).

The sequence of batches is a function of the seed, the epoch and the sizes alone: no state depends on the rank, so a run
can be continued anywhere. Ranks share each batch-row of the sequence and take equally many steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from mtlrank.errors import ConfigError

Batch = list[tuple[int, int]]
Order = NDArray[np.int64]


class MTLSampler(Sampler[Batch], ABC):
    """Base of all samplers: a subclass gives the order of an epoch, this cuts it into batches for one rank.

    `sizes` are the datasets' numbers of samples by name. `set_position` chooses the epoch and where to start in it.
    """

    def __init__(
        self, sizes: Mapping[str, int], batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected at least 1.")
        self.sizes = dict(sizes)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = 0

    @abstractmethod
    def order(self, random: np.random.Generator) -> Order:
        """All (dataset_idx, sample_idx) of one epoch, (samples, 2)."""

    def num_samples(self) -> int:
        """Length of an epoch's order."""
        return sum(self.sizes.values())

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Continue at batch `start` of `epoch`."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Batches of an epoch on each rank."""
        return -(-self.num_samples() // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current position on. At the end, a rank that is left without one repeats one."""
        order = self.order(np.random.default_rng([self.seed, self.epoch]))
        step = self.batch_size * self.world_size
        for position in range(self.start, len(self)):
            rows = order[position * step + self.rank : (position + 1) * step : self.world_size]
            rows = rows if len(rows) else order[self.rank % len(order)][None]
            yield [(int(dataset), int(sample)) for dataset, sample in rows]


class Sequential(MTLSampler):
    """Every sample once, dataset after dataset, in the order of preparation."""

    def order(self, random: np.random.Generator) -> Order:  # noqa: D102
        return _all_pairs(list(self.sizes.values()))


class RandomProportional(MTLSampler):
    """Every sample once, all datasets shuffled together, so that datasets appear in proportion to their size.

    `limits` caps what some datasets give to an epoch; each epoch draws other samples.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(sizes, batch_size, seed, rank, world_size)
        self.limits = dict(limits or {})
        unknown = sorted(set(self.limits) - set(self.sizes))
        if unknown:
            known = ", ".join(self.sizes)
            raise ConfigError(f"limits names unknown datasets: {', '.join(unknown)}. Datasets: {known}.")

    def num_samples(self) -> int:  # noqa: D102
        return sum(min(size, self.limits.get(name, size)) for name, size in self.sizes.items())

    def order(self, random: np.random.Generator) -> Order:  # noqa: D102
        parts = []
        for idx, (name, size) in enumerate(self.sizes.items()):
            samples = random.permutation(size)[: self.limits.get(name, size)]
            parts.append(np.stack([np.full(len(samples), idx), samples], axis=1))
        return np.asarray(random.permutation(np.concatenate(parts)))


class RoundRobin(MTLSampler):
    """The datasets take turns, one sample each. Short datasets start again until the longest is through."""

    def num_samples(self) -> int:  # noqa: D102
        sizes = [size for size in self.sizes.values() if size]
        return max(sizes, default=0) * len(sizes)

    def order(self, random: np.random.Generator) -> Order:  # noqa: D102
        longest = max(self.sizes.values())
        columns = []
        for idx, size in enumerate(self.sizes.values()):
            if size:
                rounds = -(-longest // size)
                samples = np.concatenate([random.permutation(size) for _ in range(rounds)])[:longest]
                columns.append(np.stack([np.full(longest, idx), samples], axis=1))
        return np.stack(columns, axis=1).reshape(-1, 2)


def _all_pairs(sizes: list[int]) -> Order:
    return np.concatenate([np.stack([np.full(size, idx), np.arange(size)], axis=1) for idx, size in enumerate(sizes)])
