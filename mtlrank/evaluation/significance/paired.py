"""Tests of the mean of paired differences, and Holm's correction for many tests."""

from collections.abc import Sequence

import numpy as np

from mtlrank.dtypes import Floats

_MANY = 10  # units on which equal results tell something about others


def t_test(baseline: Floats, system: Floats) -> float | None:
    """The two-sided p of the paired t-test (Student 1908); both arrays are (units,).

    It is 1 if both are equal everywhere. None where it is not defined: one unit, or differences that are all the same.
    """
    if np.array_equal(baseline, system):
        return 1.0
    if _is_constant(system - baseline):
        return None
    from scipy import stats  # slow to import, and most readers of results make no test

    return float(stats.ttest_rel(system, baseline).pvalue)


def tost(baseline: Floats, system: Floats, margin: float) -> float | None:
    """The p of equivalence within `margin`: two one-sided paired t-tests (Schuirmann 1987), the larger of both.

    It tests whether the mean difference lies between -margin and margin. It is 0 if both are equal on at least ten units.
    None where it is not defined: one unit, or differences that are all the same, as these have no variance.
    """
    differences = system - baseline
    if _is_constant(differences):
        return 0.0 if len(differences) >= _MANY and not differences.any() else None
    from scipy import stats

    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(above, below))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the same order (Holm 1979).

    The k-th smallest of n is multiplied by n - k + 1, and none may be smaller than one before it. So the chance of even
    one false discovery among all of them stays below the level, however they depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors), 1.0)
    return [float(p) for p in corrected]


def _is_constant(differences: Floats) -> bool:
    """Whether differences are the same but for rounding."""
    return bool(np.ptp(differences) <= 1e-12 * np.abs(differences).max())
