import math

import pytest
import torch

from mtlrank.loop.loss import ExampleMean, Muppet, Sum

LOSSES = {"a": torch.tensor([1.0, 3.0, 5.0]), "b": torch.tensor([7.0])}
DIMS = {"a": 5, "b": 1}


def test_values_by_hand():
    assert ExampleMean()(LOSSES, DIMS).item() == pytest.approx(16 / 4)
    assert Sum()(LOSSES, DIMS).item() == pytest.approx(3 + 7)
    expected = (9 / math.log(5) + 7 / math.log(2)) / 4
    assert Muppet()(LOSSES, DIMS).item() == pytest.approx(expected)


def test_example_mean_weighs_every_sample_alike_and_sum_does_not():
    for combiner, alike in ((ExampleMean(), True), (Sum(), False)):
        losses = {name: loss.clone().requires_grad_() for name, loss in LOSSES.items()}
        combiner(losses, DIMS).backward()
        weights = torch.cat([loss.grad for loss in losses.values()])
        assert bool((weights == weights[0]).all()) == alike


@pytest.mark.parametrize("combiner", [ExampleMean(), Sum(), Muppet()])
def test_the_order_of_samples_does_not_matter(combiner):
    shuffled = {name: loss.flip(0) for name, loss in LOSSES.items()}
    torch.testing.assert_close(combiner(LOSSES, DIMS), combiner(shuffled, DIMS))
