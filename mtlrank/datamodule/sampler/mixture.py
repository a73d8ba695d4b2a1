"""Samplers that mix datasets in proportions of their own, whatever their sizes.

An epoch has `epoch_samples` samples, by default as many as all datasets together. Small datasets start again when they are
through, and each epoch continues with the samples of large ones where the last one ended.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtlrank.checks import ABOVE_ZERO, NOT_NEGATIVE, all_known, choice, is_number, or_null, whole
from mtlrank.datamodule.sampler.sampler import MTLSampler, SampleOrder, pairs_of
from mtlrank.dtypes import Floats, Ints
from mtlrank.errors import ConfigError


class Mixture(MTLSampler):
    """Base of the mixtures. A subclass gives the datasets' shares, which may change in the course of training.

    The epochs so far hold each dataset's share to within a sample (or, with `one_task`, a batch), each in random order.
    What rounding takes from a dataset is given back later, so that small ones are not left out. If shares change within
    an epoch, it consists of `num_pieces` pieces with fixed shares.
    """

    num_pieces = 1  # of an epoch

    def __init__(
        self, sizes: Mapping[str, int], batch_size: int, epoch_samples: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(sizes, batch_size, **kwargs)
        self.epoch_samples = or_null(whole(1)).check("epoch_samples", epoch_samples)

    @abstractmethod
    def weights(self, epoch: int, progress: float) -> Floats:
        """The datasets' shares, (datasets,), up to a factor, after the fraction `progress` of an epoch."""

    def num_samples(self) -> int:
        samples = self.epoch_samples or sum(self.sizes.values())
        return -(-samples // self.batch_size) * self.batch_size if self.one_task else samples

    def num_batches(self) -> int:
        return -(-self.num_samples() // self.batch_size) if self.one_task else super().num_batches()

    def counts(self) -> list[int]:
        totals: list[int] = np.sum(self._counts_of_pieces()[1], axis=0).tolist()
        return totals

    def order(self, random: np.random.Generator) -> SampleOrder:
        before, pieces = self._counts_of_pieces()
        totals = np.sum(pieces, axis=0)
        drawn = [self.pass_through(dataset, *counts) for dataset, counts in enumerate(zip(before, totals, strict=True))]
        done, parts = np.zeros(len(drawn), dtype=np.int64), []
        for counts in pieces:
            mine = (samples[start : start + n] for samples, start, n in zip(drawn, done, counts, strict=True))
            parts.append(self._shuffled(random, pairs_of(mine)))
            done += counts
        return np.concatenate(parts)

    def _sizes(self) -> Floats:
        return np.array(list(self.sizes.values()), dtype=np.float64)

    def _shuffled(self, random: np.random.Generator, pairs: SampleOrder) -> SampleOrder:
        """Samples in random order or, with `one_task`, batches of them, which are of one dataset each."""
        if not self.one_task:
            return np.asarray(random.permutation(pairs))
        batches = pairs.reshape(-1, self.batch_size, 2)
        return np.asarray(random.permutation(batches)).reshape(-1, 2)

    def _counts_of_pieces(self) -> tuple[Ints, list[Ints]]:
        """Samples of each dataset in all earlier epochs, and in the pieces of this one.

        What earlier epochs rounded away is carried over.
        """
        unit = self.batch_size if self.one_task else 1
        units, owed = self.num_samples() // unit, np.zeros(len(self.sizes))
        before, counts = np.zeros(len(self.sizes), dtype=np.int64), list[Ints]()
        for epoch in range(self.epoch + 1):
            before += sum(counts)
            counts = []
            for piece in range(self.num_pieces):
                start, end = (units * number // self.num_pieces for number in (piece, piece + 1))
                weights = self.weights(epoch, (piece + 0.5) / self.num_pieces)
                owed += weights / weights.sum() * (end - start)
                taken = _rounded(owed, end - start)
                owed -= taken
                counts.append(taken * unit)
        return before, counts


def _rounded(owed: Floats, total: int) -> Ints:
    """Whole numbers of at least 0 near to `owed` which sum to `total`: the largest remainders are rounded up."""
    counts = np.maximum(np.floor(owed), 0).astype(np.int64)
    while rest := total - int(counts.sum()):
        if rest > 0:
            counts[np.argsort(counts - owed, kind="stable")[:rest]] += 1
        else:  # some of `owed` are negative: these datasets got too much before
            counts[np.argmax(np.where(counts > 0, counts - owed, -np.inf))] -= 1
    return counts


class Uniform(Mixture):
    """All datasets equally often, whatever their sizes."""

    def weights(self, epoch: int, progress: float) -> Floats:
        return (self._sizes() > 0).astype(np.float64)


class Temperature(Mixture):
    """In proportion to min(size, cap)^(1/temperature): 1 is proportional, more is nearer to uniform.

    Examples-proportional mixing with an artificial limit and temperature scaling (T5; Raffel et al. 2020, section 3.5.2).
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        temperature: float = 2.0,
        cap: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(sizes, batch_size, **kwargs)
        self.temperature = ABOVE_ZERO.check("temperature", temperature)
        self.cap = or_null(whole(1)).check("cap", cap) or math.inf

    def weights(self, epoch: int, progress: float) -> Floats:
        capped: Floats = np.minimum(self._sizes(), self.cap)
        shares: Floats = (capped / capped.max()) ** (1 / self.temperature)
        return shares


class Probabilities(Mixture):
    """Fixed shares by dataset name, as in {trec2019: 0.5, msm_bm25: 0.5}; any positive numbers do."""

    def __init__(
        self, sizes: Mapping[str, int], batch_size: int, probabilities: Mapping[str, float], **kwargs: Any
    ) -> None:
        super().__init__(sizes, batch_size, **kwargs)
        all_known("probabilities", probabilities, sizes, "datasets")
        missing = [name for name in sizes if name not in probabilities]
        if missing:
            raise ConfigError(
                f"probabilities has no {', '.join(missing)}. Give every dataset a share; 0 leaves it out."
            )
        if not sum(NOT_NEGATIVE.check(f"probabilities.{name}", share) for name, share in probabilities.items()):
            raise ConfigError(f"probabilities is {dict(probabilities)}, expected numbers that are not all 0.")
        empty = [name for name, size in sizes.items() if probabilities[name] and not size]
        if empty:
            raise ConfigError(f"probabilities gives a share to {', '.join(empty)}, which has no samples. Set it to 0.")
        self.probabilities = np.array([probabilities[name] for name in sizes], dtype=np.float64)

    def weights(self, epoch: int, progress: float) -> Floats:
        return self.probabilities


class Annealed(Mixture):
    """In proportion to size^alpha, where alpha goes from `start` to `end` in the course of training.

    From proportional to nearly uniform, as Stickland and Murray (2019) do from epoch to epoch (alpha = 1 - 0.8 (e - 1) /
    (E - 1) in epoch e of E); here alpha moves within epochs too, ten times in each. The `course` is `linear`, `cosine`
    (slow at both ends), or a `table` of [progress, alpha] steps, where progress is the part of `epochs` that is over, by
    default of the whole training.
    """

    num_pieces = 10

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        epochs: int | None = None,
        start: float = 1.0,
        end: float = 0.2,
        course: str = "linear",
        table: Sequence[Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(sizes, batch_size, **kwargs)
        self.course = choice(("linear", "cosine", "table")).check("course", course)
        if (course == "table") != (table is not None):
            raise ConfigError("course=table and a table belong together, as in table=[[0,1.0],[0.5,0.2]].")
        if self.max_tokens is not None:
            raise ConfigError(
                "training.max_tokens needs the same mixture in each epoch, but the sampler annealed changes it. Use "
                "training.batch_size."
            )
        steps = [list(step) if isinstance(step, Sequence) else step for step in table or []]
        if table is not None and not _is_course(steps):
            raise ConfigError(f"table is {steps}, expected ascending [progress, alpha] steps that start at progress 0.")
        for name, alpha in (("start", start), ("end", end)):
            if not is_number(alpha):
                raise ConfigError(f"{name} is {alpha!r}, expected a number, the exponent of the sizes.")
        self.epochs = or_null(whole(1)).check("epochs", epochs) or self.training_epochs
        self.start_alpha, self.end_alpha = start, end
        self.table = steps

    def alpha(self, progress: float) -> float:
        """The exponent after the fraction `progress` of the training."""
        if self.course == "table":
            return float([value for point, value in self.table if point <= progress][-1])
        part = progress if self.course == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return self.start_alpha + (self.end_alpha - self.start_alpha) * part

    def weights(self, epoch: int, progress: float) -> Floats:
        sizes = self._sizes()
        alpha = self.alpha(min(1.0, (epoch + progress) / self.epochs))
        return np.where(sizes > 0, (sizes / sizes.max()) ** alpha, 0.0)


def _is_course(steps: Sequence[Any]) -> bool:
    """Whether steps are pairs of finite numbers, ascending from 0."""
    are_pairs = all(isinstance(step, list) and len(step) == 2 for step in steps)
    are_numbers = are_pairs and all(is_number(x) for step in steps for x in step)
    return bool(steps) and are_numbers and steps[0][0] == 0 and list(steps) == sorted(steps)
