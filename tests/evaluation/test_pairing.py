import numpy as np

from mtlrank.evaluation.judged_head import ranking_head
from mtlrank.evaluation.pairing import pair_heads
from mtlrank.evaluation.significance.paired import t_test
from mtlrank.evaluation.significance.resampling import randomisation_test

VALUES = np.array([[0.1 * i / 7 for i in range(40)]])


def ranking(values):
    return ranking_head("rank", "test", [f"q{i}" for i in range(40)], {"AP": values}, {"AP": VALUES})


def test_equal_values_of_other_numbers_of_runs_do_not_differ_by_rounding():
    three = np.repeat(VALUES, 3, axis=0)
    assert (three.mean(0) != VALUES[0]).any()
    pair = pair_heads(ranking(VALUES), ranking(three), "AP")
    assert t_test(*pair.contributions) == 1.0
    assert randomisation_test(pair.swapped, 40, resamples=200) == 1.0
