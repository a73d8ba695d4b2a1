import copy

import pytest
import torch

from mtlrank.errors import ConfigError, DataError
from mtlrank.probing.labels import code_labels
from mtlrank.task import MarginMSE


def test_numbers_become_ten_buckets_of_equal_size(datasets):
    coded = code_labels(datasets["msm_sem_sim"], torch.arange(50) / 10)
    assert (coded.num_classes, coded.classes) == (10, "10 buckets by quantiles")
    assert torch.bincount(coded.targets).tolist() == [5] * 10


def test_numbers_that_are_often_the_same_make_fewer_buckets(datasets):
    coded = code_labels(datasets["msm_bm25"], torch.tensor([0.0] * 8 + [1.0, 2.0]))
    assert coded.num_classes == 3  # eight tenths are the smallest number, so two inner quantiles are above it
    assert coded.targets.tolist() == [0] * 8 + [1, 2]


def test_grades_become_relevant_or_not_by_the_tasks_level(datasets):
    coded = code_labels(datasets["trec2019"], torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert coded.targets.tolist() == [0, 0, 1, 1]
    assert coded.classes == "relevant (grade 2 or above) or not"


def test_labels_that_are_all_the_same_tell_nothing(datasets):
    with pytest.raises(DataError, match="All 3 training items of trec2019 have the same label. Raise probe.max_train."):
        code_labels(datasets["trec2019"], torch.tensor([0.0, 1.0, 1.0]))


def test_a_teachers_scores_are_no_labels(datasets):
    taught = copy.copy(datasets["trec2019"])
    taught.task = MarginMSE(["nDCG@10"])
    with pytest.raises(ConfigError, match="learns a teacher's scores"):
        code_labels(taught, torch.tensor([0.3, 0.9]))
