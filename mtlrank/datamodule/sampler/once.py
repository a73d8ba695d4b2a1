"""Samplers that give every sample once, or take turns."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mtlrank.checks import all_known, choice
from mtlrank.datamodule.sampler.sampler import MTLSampler, SampleOrder, pairs_of
from mtlrank.errors import ConfigError


class Sequential(MTLSampler):
    """Every sample once, dataset after dataset, in the order of preparation."""

    def order(self, random: np.random.Generator) -> SampleOrder:
        return pairs_of(map(np.arange, self.sizes.values()))


class LongestFirst(MTLSampler):
    """Every sample once, dataset after dataset, long ones first: batches have samples of similar length, for evaluation.

    What needs the most memory comes first, so that a batch size that is too large fails at once.
    """

    def order(self, random: np.random.Generator) -> SampleOrder:
        assert self.lengths is not None, "the longest first needs the lengths"
        return pairs_of(np.argsort(-np.asarray(lengths), kind="stable") for lengths in self.lengths())


class RandomProportional(MTLSampler):
    """Every sample once, all datasets shuffled together, so that datasets appear in proportion to their size.

    `limits` caps what some datasets give to an epoch; the next epoch continues with their other samples.
    """

    def __init__(
        self, sizes: Mapping[str, int], batch_size: int, limits: Mapping[str, int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(sizes, batch_size, **kwargs)
        if not isinstance(limits or {}, Mapping) or any(type(v) is not int or v < 0 for v in (limits or {}).values()):
            raise ConfigError(f"limits is {limits!r}, expected whole numbers of at least 0, as in {{trec2019: 200}}.")
        self.limits = dict(limits or {})
        all_known("limits", self.limits, sizes, "datasets")

    def counts(self) -> list[int]:
        return [min(size, self.limits.get(name, size)) for name, size in self.sizes.items()]

    def order(self, random: np.random.Generator) -> SampleOrder:
        sizes = enumerate(zip(self.sizes.values(), self.counts(), strict=True))
        samples = (
            random.permutation(size) if count == size else self.pass_through(dataset, self.epoch * count, count)
            for dataset, (size, count) in sizes
        )
        return np.asarray(random.permutation(pairs_of(samples)))


class RoundRobin(MTLSampler):
    """The datasets take turns, one sample each.

    With `stop="cycle"` short datasets start again until the longest is through, with `longest` they leave the round when
    they are through, and with `shortest` the epoch ends with the shortest.
    """

    def __init__(self, sizes: Mapping[str, int], batch_size: int, stop: str = "cycle", **kwargs: Any) -> None:
        super().__init__(sizes, batch_size, **kwargs)
        self.stop = choice(("shortest", "longest", "cycle")).check("stop", stop)

    def counts(self) -> list[int]:
        sizes = [size for size in self.sizes.values() if size]
        if self.stop == "longest" or not sizes:
            return list(self.sizes.values())
        turns = min(sizes) if self.stop == "shortest" else max(sizes)
        return [turns if size else 0 for size in self.sizes.values()]

    def order(self, random: np.random.Generator) -> SampleOrder:
        counts = self.counts()
        pairs = pairs_of(self.pass_through(dataset, self.epoch * count, count) for dataset, count in enumerate(counts))
        turns = np.concatenate([np.arange(count) for count in counts])
        return pairs[np.argsort(turns, kind="stable")]


def check_once(split: str, make: Callable[..., MTLSampler]) -> None:
    """Raise `ConfigError` for a sampler that does not take every sample once."""
    if getattr(make, "func", make) not in (Sequential, LongestFirst):
        raise ConfigError(
            f"datamodule.{split}_sampler is {sampler_name(make)}, but judging takes every sample once. Expected "
            "longest_first or sequential."
        )


def sampler_name(make: Callable[..., MTLSampler]) -> str:
    """The name of a sampler's class, or of the function that makes it."""
    return str(getattr(getattr(make, "func", make), "__name__", make))
