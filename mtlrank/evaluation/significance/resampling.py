"""Randomisation test and bootstrap, for any measure that can be computed from weighted units.

scipy has both, but for measures of one sample: its `permutation_test` sorts each pair (18 s for 10,000 units and 10,000
resamples), and its `bootstrap` does not cover seeds. Our tests compare both with scipy's.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mtlrank.dtypes import Floats
from mtlrank.evaluation.significance.weighted import Statistic

Swaps = NDArray[np.bool_]

FEW = 10  # units below which resamples of them say too little
_CELLS = 500_000  # of a batch of resamples: some megabytes


def randomisation_test(
    difference: Callable[[Swaps], Floats], num_units: int, resamples: int = 10_000, seed: int = 0
) -> float:
    """The two-sided p of the paired randomisation test (Fisher 1935; for rankings Smucker et al. 2007).

    If two systems are equally good, it does not matter which of them gave a unit's results. `difference` takes the units
    that are swapped between the systems, (units, resamples), and gives the differences of the measure, (resamples,). p is
    the share of swaps whose difference is at least as far from 0 as the observed one. All 2^units are tried if they are no
    more than `resamples`, and p is exact; else that many are drawn, and the observed (unswapped) result counts as one more
    draw, so that p is never 0 (Davison and Hinkley 1997, section 4.3).
    """
    observed = abs(float(difference(np.zeros((num_units, 1), dtype=bool))[0]))
    drawn = np.abs(np.concatenate([difference(swaps) for swaps in _swaps(num_units, resamples, seed)]))
    extreme = int(np.sum(drawn >= observed - 1e-10 * drawn.max(initial=observed)))  # equal up to rounding is as extreme
    if _all_fit(num_units, resamples):
        return extreme / len(drawn)
    return (extreme + 1) / (len(drawn) + 1)


def confidence_interval(
    statistic: Statistic,
    num_units: int,
    baseline_runs: int,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    *,
    is_mean: bool = True,
) -> tuple[float, float] | None:
    """The interval of the difference of a measure: that of bootstrap percentiles (Efron and Tibshirani 1993, chapter 13).

    `statistic` gives the measure of each run, (runs, resamples), the first `baseline_runs` being the baseline's (0: the
    interval is that of the measure itself); its value is the mean over runs. In each resample, n - 1 of the n units are
    drawn with replacement, the same for all runs; so the variance is s^2/n, the unbiased one (Rao and Wu 1988). Runs,
    which are few, are not drawn: each resample adds an error of the mean over runs from Student's t, with Welch's
    degrees of freedom (Welch 1947), as two or three runs estimate their own variance badly. So the interval covers both
    variances; it is a little too wide where units and runs interact. None for one unit, and for two of a measure that is no
    mean: a correlation has no value without one of them.

    Few units estimate their variance badly, too: then quantiles further out are taken, those that Student's t has beyond
    a normal distribution's (expanded percentiles; Hesterberg 2015), less so where runs make most of the variance. No
    mean lies beyond the units themselves, however: with fewer than `FEW`, a mean's interval is that of Student's t, by the
    jackknife's variance, s^2/n (Tukey 1958).
    """
    if num_units < (2 if is_mean else 3):
        return None
    found = statistic(np.ones((num_units, 1)))
    error, freedom = _error_of_runs(found[:baseline_runs, 0], found[baseline_runs:, 0])
    if is_mean and num_units < FEW:
        left_out = _difference(statistic(1 - np.eye(num_units)), baseline_runs)  # one unit at a time
        variance = (num_units - 1) * float(left_out.var())
        return _students(float(_difference(found, baseline_runs)[0]), level, variance, num_units - 1, error**2, freedom)
    generator = np.random.default_rng(seed)
    of_units = np.concatenate(
        [
            _difference(statistic(_drawn(num_units, size, generator)), baseline_runs)
            for size in _batch_sizes(num_units, resamples)
        ]
    )
    tail = _tail(level, num_units - 1, float(of_units.var()), error**2)
    low, high = np.quantile(of_units + error * generator.standard_t(freedom, resamples), [tail, 1 - tail])
    return float(low), float(high)


def _swaps(num_units: int, resamples: int, seed: int) -> Iterator[Swaps]:
    """Which units are swapped, (units, resamples), in batches: all possibilities, or as many as asked for."""
    if _all_fit(num_units, resamples):
        yield (np.arange(2**num_units) >> np.arange(num_units)[:, None] & 1).astype(bool)
        return
    generator = np.random.default_rng(seed)
    for size in _batch_sizes(num_units, resamples):
        yield generator.integers(0, 2, (num_units, size), dtype=bool)


def _difference(values: Floats, baseline_runs: int) -> Floats:
    """Of the means over runs, (runs, resamples) to (resamples,); the mean itself if there is no baseline."""
    baseline = values[:baseline_runs].mean(0) if baseline_runs else 0.0
    difference: Floats = values[baseline_runs:].mean(0) - baseline
    return difference


def _students(
    value: float, level: float, of_units: float, freedom: float, of_runs: float, freedom_of_runs: float
) -> tuple[float, float]:
    """The interval of Student's t around a value with two variances, by Welch's degrees of freedom."""
    from scipy import stats

    variance = of_units + of_runs
    if not variance:
        return value, value
    both = variance**2 / (of_units**2 / freedom + of_runs**2 / freedom_of_runs)
    half = float(stats.t.isf((1 - level) / 2, both)) * variance**0.5
    return value - half, value + half


def _error_of_runs(*systems: Floats) -> tuple[float, float]:
    """The standard error of the difference of systems' means over their runs, and its degrees of freedom (Welch 1947).

    A system with one run gives no estimate of this variance, and adds none.
    """
    parts = [(float(values.var(ddof=1)) / len(values), len(values) - 1) for values in systems if len(values) > 1]
    variance = sum(part for part, _ in parts)
    if not variance:
        return 0.0, 1.0
    return variance**0.5, variance**2 / sum(part**2 / freedom for part, freedom in parts)


def _drawn(number: int, resamples: int, generator: np.random.Generator) -> Floats:
    """How often each of `number` was drawn in `number` - 1 draws with replacement, (number, resamples)."""
    drawn = generator.integers(0, number, (number - 1, resamples))
    cells = drawn * resamples + np.arange(resamples)
    return np.bincount(cells.ravel(), minlength=number * resamples).reshape(number, resamples).astype(np.float64)


def _tail(level: float, freedom: int, of_units: float, of_runs: float) -> float:
    """The share of resamples below the interval: that of a normal variable beyond the quantile of Student's t.

    The degrees of freedom are those of both variances, of which that of the runs is allowed for already (Welch 1947).
    """
    from scipy import stats  # slow to import, and most readers of results compute no interval

    quantile = (1 - level) / 2
    if of_units <= 1e-9 * of_runs:  # rounding
        return quantile
    return float(stats.norm.sf(stats.t.isf(quantile, freedom * (1 + of_runs / of_units) ** 2)))


def _all_fit(num_units: int, resamples: int) -> bool:
    return num_units < 60 and 2**num_units <= resamples


def _batch_sizes(num_units: int, resamples: int) -> Iterator[int]:
    size = max(1, _CELLS // num_units)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
