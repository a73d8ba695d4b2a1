import time
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats

from mtlrank.evaluation.significance import confidence_interval, randomisation_test
from mtlrank.evaluation.significance.weighted import mean, statistic


def p_of(differences, **options):
    differences = np.asarray(differences)
    return randomisation_test(
        lambda swaps: differences @ (1.0 - 2.0 * swaps) / len(differences), len(differences), **options
    )


def interval(baseline, system, **options):
    """Of runs by units, (runs, units) each."""
    both = np.concatenate([np.atleast_2d(baseline), np.atleast_2d(system)])
    return confidence_interval(
        mean(both, np.arange(both.shape[1])), both.shape[1], len(np.atleast_2d(baseline)), **options
    )


def test_three_queries_have_eight_sign_flips():
    # means of +-0.3 +-0.2 +-0.1, of which only +++ and --- are as far from 0 as the one found
    assert p_of([0.3, 0.2, 0.1]) == 2 / 8
    assert p_of([0.3, -0.2, 0.1]) == 6 / 8  # 0.2/3: only those of +-(0.3 - 0.2 - 0.1), which are 0, are nearer


def test_few_queries_are_enumerated():
    differences = np.random.default_rng(1).normal(0.4, 1, 10)
    means = [np.mean(differences * signs) for signs in product([1, -1], repeat=10)]
    assert p_of(differences) == np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)


def test_what_is_equal_but_for_rounding_is_as_extreme():
    differences = [0.1, 0.2, 0.3, -0.4]
    exact = [Fraction(str(value)) for value in differences]
    flipped = [sum(s * v for s, v in zip(signs, exact, strict=True)) for signs in product([1, -1], repeat=4)]
    assert p_of(differences) == sum(abs(total) >= abs(sum(exact)) for total in flipped) / 16


def test_the_exact_test_is_scipys():
    baseline, system = np.random.default_rng(2).uniform(size=(2, 12))
    theirs = stats.permutation_test(
        (baseline, system), lambda a, b, axis: np.mean(a - b, axis), permutation_type="samples", vectorized=True
    )
    assert p_of(system - baseline) == pytest.approx(theirs.pvalue)


def test_the_drawn_test_is_near_scipys_and_the_same_for_the_same_seed():
    baseline, system = np.random.default_rng(4).uniform(size=(2, 43))
    theirs = stats.permutation_test(
        (baseline, system), lambda a, b, axis: np.mean(a - b, axis), permutation_type="samples", vectorized=True, rng=1
    )
    ours = p_of(system - baseline)
    assert ours == pytest.approx(theirs.pvalue, abs=0.02)
    assert ours == p_of(system - baseline) != p_of(system - baseline, seed=1)


def test_p_is_never_zero_and_one_for_equal_systems():
    assert p_of(np.ones(100)) == 1 / 10_001
    assert p_of(np.zeros(100)) == p_of([0.0]) == p_of([0.5]) == 1.0


def test_p_is_uniform_if_there_is_no_difference():
    draw = np.random.default_rng(5)
    found = [p_of(draw.normal(size=20), resamples=500, seed=i) for i in range(400)]
    assert 0.03 <= np.mean(np.array(found) < 0.05) <= 0.08


def test_the_interval_has_the_width_of_the_mean_s_standard_error():
    baseline, system = np.random.default_rng(6).uniform(size=(2, 200))
    differences = system - baseline
    half = 1.96 * differences.std(ddof=1) / np.sqrt(200)
    low, high = interval(baseline, system)
    assert low == pytest.approx(differences.mean() - half, abs=half / 15)
    assert high == pytest.approx(differences.mean() + half, abs=half / 15)


def test_of_few_units_drawn_means_have_the_variance_of_the_mean():
    values, drawn = np.linspace(0.1, 0.9, 10) ** 2, []

    def statistic(weights):
        drawn.append(values @ weights / weights.sum(0))
        return drawn[-1][None]

    confidence_interval(statistic, 10, 0)
    assert np.concatenate(drawn[1:]).std() == pytest.approx(values.std(ddof=1) / np.sqrt(10), rel=0.02)


def test_the_interval_is_near_scipys():
    differences = np.random.default_rng(7).exponential(size=300)
    theirs = stats.bootstrap((differences,), np.mean, method="percentile", rng=1).confidence_interval
    assert interval(np.zeros(300), differences) == pytest.approx(tuple(theirs), abs=0.01)


@pytest.mark.parametrize("runs", [1, 2, 3, 4])
def test_intervals_hold_the_truth_as_often_as_they_say(runs):
    """Also where seeds differ more than queries let a mean differ: two or three of them tell their variance badly."""
    draw, held = np.random.default_rng(8), 0
    for i in range(300):
        queries = draw.normal(0, 1, 40)
        seeds = draw.normal(0, 0.3 if runs > 1 else 0, (2, runs, 1))
        baseline, system = (queries + seeds[side] + draw.normal(0, 0.3, (runs, 40)) + 0.1 * side for side in (0, 1))
        low, high = interval(baseline, system, resamples=400, seed=i)
        held += low <= 0.1 <= high
    assert 0.92 <= held / 300 <= 0.997


def test_seeds_that_differ_make_the_interval_wider():
    queries = np.random.default_rng(9).normal(0, 0.01, 50)
    alike, apart = np.tile(queries, (3, 1)), queries + np.array([[-0.3], [0.0], [0.3]])
    narrow, wide = interval(alike, alike + queries), interval(alike, apart + queries)
    assert wide[1] - wide[0] > 10 * (narrow[1] - narrow[0])


@pytest.mark.parametrize("number", [10, 20, 50])
def test_of_few_units_that_are_normal_the_interval_is_students(number):
    units = stats.norm.ppf((np.arange(number) + 0.5) / number)
    theirs = stats.ttest_1samp(units, 0).confidence_interval()
    found = interval(np.zeros(number), units, resamples=100_000)
    assert found == pytest.approx(tuple(theirs), rel=0.03)


@pytest.mark.parametrize("number", [2, 3, 9])
def test_of_fewer_than_ten_units_it_is_students_exactly(number):
    differences = np.random.default_rng(number).exponential(size=number)
    theirs = stats.ttest_1samp(differences, 0).confidence_interval()
    assert interval(np.zeros(number), differences) == pytest.approx(tuple(theirs))


def test_of_few_units_a_mean_over_items_has_students_interval_too():
    draw = np.random.default_rng(12)
    units = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])
    labels = draw.normal(size=21)
    predictions = labels + draw.normal(0, 0.5, (1, 21))
    found = statistic("MSE", labels, predictions, units)
    value = found(np.ones((6, 1)))[0, 0]
    without = [found((np.arange(6) != unit)[:, None].astype(float))[0, 0] for unit in range(6)]
    half = stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert confidence_interval(found, 6, 0) == pytest.approx((value - half, value + half))


@pytest.mark.parametrize("number", [3, 5, 9])
def test_correlations_of_few_units_have_intervals_that_hold_the_truth(number):
    draw, held = np.random.default_rng(14), 0
    for i in range(300):
        labels = draw.normal(size=number)
        predictions = 0.5 * labels + 0.75**0.5 * draw.normal(size=(1, number))
        low, high = confidence_interval(
            statistic("Pearson", labels, predictions, np.arange(number)), number, 0, 400, i, is_mean=False
        )
        held += low <= 0.5 <= high
    assert held / 300 >= 0.9


def test_two_units_have_no_interval_of_a_correlation():
    found = statistic("Pearson", np.arange(2.0), np.arange(2.0)[None], np.arange(2))
    assert confidence_interval(found, 2, 0, is_mean=False) is None


@pytest.mark.parametrize("units", [2, 3, 5, 9])
@pytest.mark.parametrize("runs", [1, 3])
def test_intervals_of_few_units_hold_the_truth_as_often_as_they_say(units, runs):
    draw, held = np.random.default_rng(13), 0
    for _ in range(1000):
        queries, seeds = draw.normal(0, 1, units), draw.normal(0, 0.3 if runs > 1 else 0, (2, runs, 1))
        baseline, system = (queries + seeds[side] + draw.normal(0, 0.3, (runs, units)) for side in (0, 1))
        low, high = interval(baseline, system + 0.1)
        held += low <= 0.1 <= high
    assert 0.93 <= held / 1000 <= 0.999


@pytest.mark.parametrize("number", [4, 30])
@pytest.mark.parametrize("shape", [(8, 8), (3, 3), (2, 5)])
def test_where_only_seeds_differ_the_interval_is_welchs(shape, number):
    draw = np.random.default_rng(3)  # two or three runs whose variances differ: Welch's degrees of freedom are few
    baseline, system = (draw.normal(size=(number, 1)) for number in shape)
    theirs = stats.ttest_ind(system[:, 0], baseline[:, 0], equal_var=False).confidence_interval()
    found = interval(baseline * np.ones((1, number)), system * np.ones((1, number)), resamples=100_000)
    assert found == pytest.approx(tuple(theirs), abs=(theirs.high - theirs.low) / 40)


def test_degenerate_samples():
    assert interval([0.2], [0.5]) is None
    # two units: Student's t with one degree of freedom is 12.706, and the standard error of the mean is 0.1
    assert interval([0.0, 0.0], [0.1, 0.3]) == pytest.approx((0.2 - 1.2706, 0.2 + 1.2706), abs=1e-4)
    assert interval(np.zeros(9), np.full(9, 0.25)) == (0.25, 0.25)


def test_the_number_of_runs_may_differ():
    low, high = interval(np.zeros((2, 30)), np.random.default_rng(11).normal(1, 0.1, (5, 30)))
    assert 0.9 < low < high < 1.1


def test_43_queries_take_well_under_a_second():
    baseline, system = np.random.default_rng(12).uniform(size=(2, 5, 43))
    started = time.process_time()
    p_of((system - baseline).mean(0))
    interval(baseline, system)
    assert time.process_time() - started < 1
