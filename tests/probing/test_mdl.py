import math

import pytest
import torch

from mtlrank.errors import ConfigError, DataError
from mtlrank.probing.mdl import check_portions, frequency_bits, log_frequencies, online_bits, portion_ends, uniform_bits

PORTIONS = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25, 50, 100]


def test_portions_end_where_the_paper_ends_them():
    assert portion_ends(100_000, PORTIONS) == [100, 200, 400, 800, 1600, 3200, 6250, 12500, 25000, 50000, 100_000]


def test_portions_that_are_too_small_are_joined_to_the_next():
    assert portion_ends(1000, PORTIONS) == [16, 32, 62, 125, 250, 500, 1000]
    assert portion_ends(40, PORTIONS) == [20, 40]


def test_constant_probabilities_give_the_uniform_code():
    ends = [25, 50, 100]
    bits = online_bits(ends, 4, lambda start, end: torch.full((3,), (end - start) * math.log(4)))
    assert bits.tolist() == pytest.approx([200.0] * 3)
    assert uniform_bits(100, 4) == 200


def test_a_code_by_hand():
    """16 items at 1 bit, 16 at probability 1/2 (1 bit each), 32 at 1/4 or at 1 (2 bits or none)."""
    costs = {16: torch.tensor([16 * math.log(2)] * 2), 32: torch.tensor([32 * math.log(4), 0.0])}
    bits = online_bits([16, 32, 64], 2, lambda start, end: costs[start])
    assert bits.tolist() == pytest.approx([16 + 16 + 64, 16 + 16])


def test_frequencies_by_hand():
    assert log_frequencies(torch.tensor([0, 0, 1]), 3).exp().tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    labels = torch.tensor([0, 0, 0, 0, 0, 1])  # two at 1 bit; then 3/4 for 0, twice; then 5/6 for 0 and 1/6 for 1
    expected = 2 - 2 * math.log2(3 / 4) - math.log2(5 / 6) - math.log2(1 / 6)
    assert frequency_bits(labels, [2, 4, 6], 2) == pytest.approx(expected)


@pytest.mark.parametrize("portions", [[], [50, 10, 100], [10, 50], [0, 100], [1, float("nan"), 100]])
def test_portions_must_ascend_to_all(portions):
    with pytest.raises(ConfigError, match="probe.portions"):
        check_portions(portions)


def test_too_few_items_are_refused():
    with pytest.raises(DataError, match="31 labelled items are too few to probe: expected at least 32"):
        portion_ends(31, PORTIONS)
    with pytest.raises(DataError, match="Raise probe.max_train"):
        online_bits(portion_ends(100, [100]), 2, lambda start, end: torch.zeros(1))
