import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from mtlrank.evaluation.significance import holm, t_test, tost


def samples(num_units=43, shift=0.05):
    draw = np.random.default_rng(3)
    baseline = draw.uniform(size=num_units)
    return baseline, baseline + draw.normal(shift, 0.1, num_units)


def test_the_t_test_is_scipys():
    baseline, system = samples()
    assert t_test(baseline, system) == stats.ttest_rel(system, baseline).pvalue


@pytest.mark.parametrize("margin", [0.01, 0.08, 0.5])
def test_equivalence_is_statsmodels(margin):
    baseline, system = samples()
    assert tost(baseline, system, margin) == pytest.approx(ttost_paired(system, baseline, -margin, margin)[0], rel=1e-9)


def test_equivalence_needs_both_sides():
    zeros, around = np.zeros(200), np.tile([-0.01, 0.01], 100)
    assert tost(zeros, around, 0.1) < 1e-6
    assert tost(zeros, around + 0.2, 0.1) > 0.99
    assert tost(zeros, around - 0.2, 0.1) > 0.99


def test_equal_systems_do_not_differ_and_are_equivalent():
    same = np.linspace(0.1, 0.7, 10)
    assert (t_test(same, same), tost(same, same, 0.01)) == (1.0, 0.0)
    few = same[:9]
    assert (t_test(few, few), tost(few, few, 0.01)) == (1.0, None)


def test_the_same_difference_everywhere_has_no_t_tests_and_gives_no_warning():
    zeros, shifted = np.zeros(50), np.full(50, 0.1)
    assert (t_test(zeros, shifted), tost(zeros, shifted, 0.2)) == (None, None)


def test_one_unit_has_no_t_tests():
    assert t_test(np.array([0.1]), np.array([0.3])) is None
    assert tost(np.array([0.1]), np.array([0.3]), 0.01) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_statsmodels(seed):
    p_values = np.random.default_rng(seed).uniform(size=12) ** 3
    p_values[4] = p_values[7]
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
