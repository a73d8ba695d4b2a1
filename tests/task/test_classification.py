import math

import numpy as np
import pytest
import torch

from mtlrank.errors import ConfigError
from mtlrank.task import Buckets, Classification
from tests.batches import batch
from tests.task.tasks import TASKS, opened


def test_class_weights_by_hand():
    logits, data = torch.zeros(2, 2), batch([1, 1], [0, 1])
    balanced = TASKS["weighted"].loss(logits, data)
    assert balanced.tolist() == pytest.approx([4 / 6 * math.log(2), 4 / 2 * math.log(2)])
    absent = opened(Classification(["Accuracy"], "balanced"), classes=["A", "B", "C"], counts=[3, 1, 0])
    assert absent.weights == pytest.approx([4 / 6, 4 / 2, 0])
    named = opened(Classification(["Accuracy"], {"B": 5.0}), classes=["A", "B"])
    assert named.loss(logits, data).tolist() == pytest.approx([math.log(2), 5 * math.log(2)])
    with pytest.raises(ConfigError, match="unknown classes: C. Classes: A, B"):
        opened(Classification(["Accuracy"], {"C": 1.0}), classes=["A", "B"])


def test_a_whole_number_is_one_class_however_it_is_stored():
    """A column of whole numbers of which one is missing has fractions in Parquet."""
    assert [Classification(["Accuracy"]).parse_label(label) for label in (1, 1.0, "1", -0.0, 1.5)] == [
        *("1", "1", "1", "0", "1.5")
    ]


def test_buckets_by_hand():
    task = TASKS["buckets"]
    assert task.targets(np.array([0.4, 0.5, 1.0, 9])).tolist() == [0, 1, 1, 2]
    assert task.output_dim == 3


@pytest.mark.parametrize(("edges", "expected"), [("quantiles", [3.0, 6.0]), ("width", [4.0, 8.0])])
def test_edges_of_buckets_by_hand(edges, expected):
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 12], dtype=np.float32)
    assert Buckets(["Accuracy"], 3, edges).find_edges(labels) == expected


def test_equal_labels_make_fewer_buckets():
    assert Buckets(["Accuracy"], 4).find_edges(np.zeros(6, dtype=np.float32)) == []
    assert Buckets(["Accuracy"], 4).find_edges(np.array([0, 0, 0, 0, 0, 5], dtype=np.float32)) == [5.0]


@pytest.mark.parametrize(
    ("labels", "num_buckets", "sizes"),
    [
        ([0] * 100 + [1] * 100, 10, [100, 100]),
        ([grade for grade in range(5) for _ in range(20)], 10, [20] * 5),
        ([0] * 55 + list(range(1, 46)), 2, [55, 45]),
        ([0] * 55 + list(range(1, 46)), 4, [55, 20, 25]),
        (list(range(40)), 4, [10] * 4),
    ],
)
def test_no_bucket_is_empty_and_the_lowest_label_has_its_own(labels, num_buckets, sizes):
    labels = np.array(labels, dtype=np.float32)
    edges = Buckets(["Accuracy"], num_buckets).find_edges(labels)
    assert np.bincount(np.searchsorted(edges, labels, side="right")).tolist() == sizes


def test_a_weight_below_0_is_refused_by_its_class():
    with pytest.raises(ConfigError, match="class_weights.A is -1, expected a finite number, at least 0"):
        Classification(["Accuracy"], class_weights={"A": -1})


def test_a_task_without_a_measure_is_refused():
    with pytest.raises(ConfigError, match="at least one measure"):
        Classification([])


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"num_buckets": 1}, "num_buckets is 1, expected a whole number, at least 2"),
        ({"edges": "round"}, "edges is 'round', expected one of quantiles, width"),
    ],
)
def test_impossible_buckets_are_refused(setting, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Buckets(["Accuracy"], **setting)


def test_classes_that_look_like_numbers_can_be_weighed():
    task = opened(Buckets(["Accuracy"], 3, class_weights={0: 2.0}), edges=[0.5, 1.5], counts=[1, 1, 1])
    assert task.weights == [2.0, 1.0, 1.0]
