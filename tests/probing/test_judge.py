"""Measures of what probes say."""

import numpy as np
import torch

from mtlrank.probing.judge import Judge


def test_equal_scores_are_no_ranking(datasets):
    dataset = datasets["trec2019"]
    judge = Judge(dataset, "test", np.arange(40))
    for scores in (torch.full((40,), -2.5), -2.5 + torch.arange(40) * 2.5e-7):  # or but for rounding
        assert judge.values(scores) == dict.fromkeys(dataset.task.measures)
    values = judge.values(torch.arange(40.0))
    assert all(0 <= value <= 1 for value in values.values())


def test_equal_predictions_of_classes_and_numbers_have_measures(datasets):
    for key, shape in (("msm_ner", (40, len(datasets["msm_ner"].task.classes))), ("msm_bm25", (40,))):
        values = Judge(datasets[key], "test", np.arange(40)).values(torch.zeros(shape))
        assert None not in values.values()
