import math

import numpy as np
import pytest
import torch

from mtlrank.errors import ConfigError, DataError
from mtlrank.task import (
    Buckets,
    PairwiseRelevance,
    Regression,
    Relevance,
    SpanClassification,
    SpanPairClassification,
    SpanRegression,
    by_sample,
)
from tests.batches import batch


def opened(task, **labels):
    task.learn_labels(labels)
    return task


TASKS = {
    "relevance": opened(Relevance(["nDCG@10"])),
    "pairwise": opened(PairwiseRelevance(["nDCG@10"])),
    "regression": opened(Regression(["MSE"]), mean=1.0, std=2.0),
    "buckets": opened(Buckets(["Accuracy"], 4), edges=[0.5, 1.5]),
    "terms": opened(SpanRegression(["MSE"], 0, 1), mean=0.5, std=0.5),
    "spans": opened(SpanClassification(["Accuracy"]), classes=["A", "B", "C"]),
    "span pairs": opened(SpanPairClassification(["Accuracy"]), classes=["A", "B"]),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_loss_is_per_sample_and_does_not_depend_on_the_other_samples(task):
    data = batch([3, 3, 3, 3, 3], [0, 1, 1, 0, 1], item_sample=[0, 0, 1, 1, 2])
    logits = torch.randn(5, task.output_dim)
    losses = task.loss(logits, data)
    assert losses.shape == (3,)
    alone = task.loss(logits[2:4], batch([3, 3], [1, 0], item_sample=[0, 0]))
    torch.testing.assert_close(losses[1:2], alone)


def test_settings_of_other_kinds_are_refused():
    with pytest.raises(ConfigError, match="relevance_level is 0, expected a whole number"):
        Relevance(["AP"], relevance_level=0)
    with pytest.raises(ConfigError, match="maximum is 'ten', expected null or a number"):
        Regression(["MSE"], maximum="ten")
    with pytest.raises(DataError, match="not a whole grade of relevance"):
        Relevance(["AP"]).parse_label(2000)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_scores_have_a_row_an_item(task):
    assert len(task.scores(torch.randn(5, task.output_dim))) == 5


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("label", [float("nan"), float("inf"), ""])
def test_labels_that_are_none_are_refused(task, label):
    with pytest.raises(DataError, match="label"):
        task.parse_label(label)


@pytest.mark.parametrize("kind", ["relevance", "pairwise", "regression", "buckets", "terms"])
@pytest.mark.parametrize("label", ["nan", "many", "1_0", "1e39", 10**400])
def test_words_are_no_numbers(kind, label):
    with pytest.raises(DataError, match="label"):
        TASKS[kind].parse_label(label)


def test_relevance_is_cross_entropy_on_grades_of_the_level_and_above():
    task = Relevance(["nDCG@10"], relevance_level=2)
    losses = task.loss(torch.tensor([[0.0], [0.0], [2.0]]), batch([1, 1, 1], [1, 2, 3]))
    expected = [math.log(2), math.log(2), math.log(1 + math.exp(-2))]
    torch.testing.assert_close(losses, torch.tensor(expected))
    assert task.relevant(batch([1, 1, 1], [1, 2, 3])).tolist() == [0, 1, 1]


def test_negative_grades_count_as_not_relevant():
    assert Relevance(["AP"]).parse_label(-1) == 0


def test_a_grade_is_whole():
    with pytest.raises(DataError, match="whole grade"):
        Relevance(["AP"]).parse_label(0.5)


def test_pairwise_loss_by_hand():
    task = PairwiseRelevance(["nDCG@10"], margin=1.0)
    data = batch([1] * 5, [1, 0, 0, 1, 0], item_sample=[0, 0, 0, 1, 1])
    losses = task.loss(torch.tensor([[0.5], [0.0], [2.0], [3.0], [0.0]]), data)
    assert losses.tolist() == pytest.approx([(0.5 + 2.5) / 2, 0.0])


def test_regression_is_scaled_for_learning_and_not_for_scores():
    task = opened(Regression(["MSE"]), mean=10.0, std=5.0)
    assert task.loss(torch.tensor([[1.0]]), batch([1], [20.0])).item() == pytest.approx(1.0)
    assert task.scores(torch.tensor([[1.0]])).item() == pytest.approx(15.0)


def test_labels_out_of_range_are_refused():
    with pytest.raises(DataError, match="out of range: expected 0 to 5"):
        Regression(["MSE"], 0, 5).parse_label(7)


def test_buckets_by_hand():
    task = TASKS["buckets"]
    assert task.targets(np.array([0.4, 0.5, 1.0, 9])).tolist() == [0, 1, 1, 2]
    assert task.output_dim == 3


@pytest.mark.parametrize(("edges", "expected"), [("quantiles", [3.0, 6.0]), ("width", [4.0, 8.0])])
def test_edges_of_buckets_by_hand(edges, expected):
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 12], dtype=np.float32)
    assert Buckets(["Accuracy"], 3, edges).find_edges(labels) == expected


def test_equal_labels_make_fewer_buckets():
    assert Buckets(["Accuracy"], 4).find_edges(np.array([0, 0, 0, 0, 0, 5], dtype=np.float32)) == []


@pytest.mark.parametrize("setting", [{"num_buckets": 1}, {"edges": "round"}])
def test_impossible_buckets_are_refused(setting):
    with pytest.raises(ConfigError, match="num_buckets of at least 2 and edges quantiles or width"):
        Buckets(["Accuracy"], **setting)


def test_values_by_sample_lie_in_rows():
    data = batch([2] * 5, item_sample=[0, 0, 1, 1, 1])
    grid = by_sample(torch.arange(5.0), data, fill=-1)
    assert grid.tolist() == [[0, 1, -1], [2, 3, 4]]
