"""A measure of two systems on one test set, as the tests of significance need it."""

from collections.abc import Callable
from math import lcm
from typing import NamedTuple

import numpy as np

from mtlrank.dtypes import Floats, Ints
from mtlrank.evaluation.judged_head import HeadResults
from mtlrank.evaluation.significance.resampling import Swaps
from mtlrank.evaluation.significance.weighted import Statistic, mean, statistic


class PairedValues(NamedTuple):
    """The two systems' values of one measure as the tests need them."""

    statistic: Statistic  # of all runs, the baseline's first
    swapped: Callable[[Swaps], Floats]  # the difference, if some units are swapped
    contributions: tuple[Floats, Floats] | None  # of each unit, (units,), to the mean; None if it is no mean


def values_of_runs(head: HeadResults, measure: str) -> Floats:
    """The value of a measure in each run, (runs,)."""
    values: Floats = head.statistic(measure)(np.ones((head.num_units, 1)))[:, 0]
    return values


def pair_heads(baseline: HeadResults, system: HeadResults, measure: str) -> PairedValues:
    """Two heads with the same items, by a measure that both have."""
    return (_of_means if measure in baseline.values else _of_predictions)(baseline, system, measure)


def _of_means(baseline: HeadResults, system: HeadResults, measure: str) -> PairedValues:
    """A measure that is a mean over queries or items: the values are averaged over runs first."""
    units, both = baseline.units, (baseline.values[measure], system.values[measure])
    base, other = (values.mean(0) for values in both)
    other = np.where(np.isclose(base, other, rtol=1e-12, atol=0), base, other)  # means over 1 and 3 equal runs differ
    before, after = _contributions(base, units), _contributions(other, units)
    differences = after - before
    return PairedValues(
        mean(np.concatenate(both), units),
        lambda swaps: differences @ (1.0 - 2.0 * swaps) / len(differences),
        (before, after),
    )


def _of_predictions(baseline: HeadResults, system: HeadResults, measure: str) -> PairedValues:
    """A measure of all predictions together, whose mean over runs is compared.

    Predictions are swapped within pairs of runs, one of each system; there are as many pairs as give every run the same
    weight. Where a measure ignores the scale, predictions are standardised first: else swaps would mix two scales.
    """
    labels, both = baseline.labels, (baseline.predictions, system.predictions)
    units, sequences = baseline.units, baseline.sequences
    pairs = lcm(*(len(part) for part in both))
    scaled = [_SCALED.get(measure, lambda runs: runs)(part) for part in both]
    pooled = statistic(
        measure,
        np.tile(labels, 2),
        np.concatenate([np.resize(part, (pairs, len(labels))) for part in scaled], axis=1),
        np.concatenate([units, units + baseline.num_units]),
        np.concatenate([sequences, sequences + sequences.max() + 1]),
    )

    def swapped(swaps: Swaps) -> Floats:
        theirs = np.concatenate([~swaps, swaps]).astype(np.float64)
        difference: Floats = (pooled(1.0 - theirs) - pooled(theirs)).mean(0)
        return difference

    return PairedValues(statistic(measure, labels, np.concatenate(both), units, sequences), swapped, None)


def _standardised(runs: Floats) -> Floats:
    """Predictions with a mean of 0 and a variance of 1, (runs, items); constant ones are left at 0."""
    centred: Floats = runs - runs.mean(1, keepdims=True)
    spread = centred.std(1, keepdims=True)
    return centred / np.where(spread > 0, spread, 1.0)


def _ranks(runs: Floats) -> Floats:
    from scipy.stats import rankdata  # slow to import, and reports rank nothing

    ranks: Floats = rankdata(runs, axis=1)
    return ranks


_SCALED: dict[str, Callable[[Floats], Floats]] = {"Pearson": _standardised, "Spearman": _ranks}


def _contributions(values: Floats, units: Ints) -> Floats:
    """What each unit adds to the mean over items, scaled so that the mean over units is the mean over items, (units,)."""
    sums = np.bincount(units, values).astype(np.float64)
    return sums * (len(sums) / len(values))
