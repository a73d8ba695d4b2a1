"""Scores are collected in whatever order samples come."""

import pytest
import torch

from mtlrank.errors import DivergedError
from mtlrank.evaluation.predictions import Predictions


@pytest.fixture(params=["trec2019", "msm_ner", "msm_bm25"])
def dataset(request, datasets):
    """Samples of one item, and of several; scores that are numbers, and rows of classes."""
    return datasets[request.param]


def drawn(dataset, *samples):
    """A batch: its samples, and a score for each of their items."""
    num_items = sum(len(dataset.split("test").items_of(sample)) for sample in samples)
    shape = (len(dataset.task.classes),) if dataset.task.kind == "classification" else ()
    return torch.tensor(samples), torch.rand(num_items, *shape)


def of(dataset, scores, samples, sample):
    """The part of a batch's scores that is a sample's."""
    counts = [len(dataset.split("test").items_of(each)) for each in samples.tolist()]
    return scores.split(counts)[samples.tolist().index(sample)]


def test_scores_stand_in_the_order_of_the_split_and_later_ones_count(dataset):
    predictions = Predictions(dataset, "test")
    first, second = drawn(dataset, 9, 2, 7), drawn(dataset, 4, 9)
    predictions.add(*first)
    predictions.add(*second)
    scores, items = predictions.scores()
    found = {2: first, 4: second, 7: first, 9: second}
    assert items.tolist() == [item for sample in found for item in dataset.split("test").items_of(sample)]
    assert torch.equal(scores, torch.cat([of(dataset, part[1], part[0], sample) for sample, part in found.items()]))
    assert predictions.num_samples == 4


def test_what_processes_send_each_other_is_all_that_came(dataset):
    whole, parts = Predictions(dataset, "test"), [Predictions(dataset, "test") for _ in range(3)]
    for part, samples in zip(parts, ([5, 1], [0, 8, 3], []), strict=True):
        if samples:
            batch = drawn(dataset, *samples)
            whole.add(*batch)
            part.add(*batch)
    packed = [part.pack() for part in parts]
    for part in parts:
        for each in packed:
            part.unpack(each)
        assert all(map(torch.equal, part.scores(), whole.scores()))


def test_one_score_that_is_not_finite_is_a_divergence(dataset):
    predictions = Predictions(dataset, "test")
    samples, scores = drawn(dataset, 3, 6)
    scores[-1] = float("nan")
    predictions.add(samples, scores)
    with pytest.raises(DivergedError, match="predicts NaN or infinity"):
        predictions.judge()
