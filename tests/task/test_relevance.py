import math

import pytest
import torch

from mtlrank.errors import DataError
from mtlrank.task import Relevance, RelevanceClasses
from tests.batches import batch


def test_relevance_is_cross_entropy_on_grades_of_the_level_and_above():
    task = Relevance(["nDCG@10"], relevance_level=2)
    losses = task.loss(torch.tensor([[0.0], [0.0], [2.0]]), batch([1, 1, 1], [1, 2, 3]))
    expected = [math.log(2), math.log(2), math.log(1 + math.exp(-2))]
    torch.testing.assert_close(losses, torch.tensor(expected))
    assert task.is_relevant(torch.tensor([1, 2, 3])).tolist() == [False, True, True]


def test_negative_grades_count_as_not_relevant():
    assert Relevance(["AP"]).parse_label(-1) == 0


def test_a_grade_is_whole():
    with pytest.raises(DataError, match="whole grade"):
        Relevance(["AP"]).parse_label(0.5)


def test_classes_of_relevance_by_hand():
    task = RelevanceClasses(["AP"], positive_weight=3.0)
    losses = task.loss(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), batch([1, 1], [1, 0]))
    sigmoid = 1 / (1 + math.exp(-1))
    assert losses.tolist() == pytest.approx([-3 * math.log(sigmoid), -math.log(1 - sigmoid)])
    assert task.scores(torch.tensor([[0.5, 2.0]])).item() == 1.5


def test_a_weight_of_relevant_documents():
    losses = Relevance(["AP"], positive_weight=4.0).loss(torch.zeros(2, 1), batch([1, 1], [1, 0]))
    assert losses.tolist() == pytest.approx([4 * math.log(2), math.log(2)])
