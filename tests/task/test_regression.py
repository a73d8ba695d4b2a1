import math

import pytest
import torch

from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Ordinal, Regression
from tests.batches import batch
from tests.task.tasks import opened


def test_ordinal_by_hand():
    task = Ordinal(["MSE"], [0, 1, 3])
    loss = task.loss(torch.tensor([[0.0, 1.0]]), batch([1], [2.0]))  # above 0 surely, half way from 1 to 3
    half = 0.5 * math.log(1 + math.exp(-1)) + 0.5 * math.log(1 + math.exp(1))
    assert loss.item() == pytest.approx((math.log(2) + half) / 2)
    assert task.scores(torch.tensor([[0.0, -50.0]])).item() == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="expected at least two finite numbers, ascending"):
        Ordinal(["MSE"], [1, 0])
    with pytest.raises(DataError, match="expected 0 to 3"):
        task.parse_label(4)


def test_huber_by_hand():
    task = opened(Regression(["MSE"], huber=1.0), mean=0.0, std=1.0)
    losses = task.loss(torch.tensor([[0.5], [3.0]]), batch([1, 1], [0.0, 0.0]))
    assert losses.tolist() == pytest.approx([0.125, 2.5])
    half = opened(Regression(["MSE"], huber=0.5), mean=0.0, std=1.0)
    losses = half.loss(torch.tensor([[0.25], [3.0]]), batch([1, 1], [0.0, 0.0]))
    assert losses.tolist() == pytest.approx([0.25**2 / 2, 0.5 * (3 - 0.5 / 2)])


def test_regression_is_scaled_for_learning_and_not_for_scores():
    task = opened(Regression(["MSE"]), mean=10.0, std=5.0)
    assert task.loss(torch.tensor([[1.0]]), batch([1], [20.0])).item() == pytest.approx(1.0)
    assert task.scores(torch.tensor([[1.0]])).item() == pytest.approx(15.0)


def test_labels_out_of_range_are_refused():
    with pytest.raises(DataError, match="out of range: expected 0 to 5"):
        Regression(["MSE"], 0, 5).parse_label(7)


@pytest.mark.parametrize("setting", ["minimum", "maximum", "huber"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400])
def test_bounds_are_finite(setting, value):
    with pytest.raises(ConfigError, match=f"{setting} is .*, expected null or a finite number"):
        Regression(["MSE"], **{setting: value})
    with pytest.raises(ConfigError, match="expected at least two finite numbers"):
        Ordinal(["MSE"], [0, value])
