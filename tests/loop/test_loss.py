import math

import pytest
import torch

from mtlrank.batch import MTLBatch
from mtlrank.loop.loss import ExampleMean, Muppet, Sum
from mtlrank.loop.multitask import MultiTaskLoop

LOSSES = {"a": torch.tensor([1.0, 3.0, 5.0]), "b": torch.tensor([7.0])}
DIMS = {"a": 5, "b": 1}


def test_values_by_hand():
    assert ExampleMean()(LOSSES, DIMS).item() == pytest.approx(16 / 4)
    assert Sum()(LOSSES, DIMS).item() == pytest.approx(3 + 7)
    expected = (9 / math.log(5) + 7 / math.log(2)) / 4
    assert Muppet()(LOSSES, DIMS).item() == pytest.approx(expected)


def test_a_sum_of_means_on_two_processes_is_that_of_one():
    """What the loop hands to a combiner that weighs tasks alike: 63 samples of one task and one of another, in halves."""
    loop = MultiTaskLoop.__new__(MultiTaskLoop)
    torch.nn.Module.__init__(loop)
    halves = [{"a": torch.ones(32)}, {"a": torch.ones(31), "b": torch.tensor([10.0])}]
    batch = MTLBatch({}, {"a": 63, "b": 1}, 1.0, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.distributed.is_initialized", lambda: True)
        patch.setattr("torch.distributed.get_world_size", lambda: 2)
        both = [Sum()(loop._shares(half, batch), {}) for half in halves]
    assert float(sum(both)) / 2 == pytest.approx(11)


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
