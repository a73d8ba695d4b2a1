"""Scores are collected in whatever order samples come."""

from statistics import fmean

import numpy as np
import pytest
import torch

from mtlrank.datamodule.dataset.split import PreparedSplit
from mtlrank.errors import DivergedError
from mtlrank.evaluation.predictions import GROUP, Predictions
from mtlrank.task import PairwiseRelevance


@pytest.fixture(params=["trec2019", "msm_ner", "msm_bm25"])
def dataset(request, datasets):
    """Samples of one item, and of several; scores that are numbers, and rows of classes."""
    return datasets[request.param]


def drawn(dataset, *samples):
    """A batch: its samples, and a score for each of their items."""
    num_items = len(dataset.split("test").items_of_samples(np.array(samples)))
    shape = (len(dataset.task.classes),) if dataset.task.kind == "classification" else ()
    return torch.tensor(samples), torch.rand(num_items, *shape)


def of(dataset, scores, samples, sample):
    """The part of a batch's scores that is a sample's."""
    counts = dataset.split("test").num_items(samples.numpy()).tolist()
    return scores.split(counts)[samples.tolist().index(sample)]


def test_scores_stand_in_the_order_of_the_split_and_later_ones_count(dataset):
    predictions = Predictions(dataset, "test")
    first, second = drawn(dataset, 9, 2, 7), drawn(dataset, 4, 9)
    predictions.add(*first)
    predictions.add(*second)
    scores, items = predictions.scores()
    found = {2: first, 4: second, 7: first, 9: second}
    assert items.tolist() == dataset.split("test").items_of_samples(np.array(list(found))).tolist()
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


def test_the_loss_is_the_mean_over_samples_from_all_processes_without_those_not_finite(datasets):
    dataset = datasets["msm_ner"]
    first, second = Predictions(dataset, "test"), Predictions(dataset, "test")
    assert first.loss() is None
    first.add(*drawn(dataset, 9, 2, 7), torch.tensor([1.0, 2.0, float("nan")]))
    second.add(*drawn(dataset, 4), torch.tensor([6.0]))
    first.unpack(second.pack())
    assert first.loss() == 3


def test_a_loss_over_groups_is_that_of_each_querys_candidates(datasets):
    dataset = datasets["trec2019"]
    assert isinstance(dataset.task, PairwiseRelevance)
    split, predictions = dataset.split("test"), Predictions(dataset, "test")
    scores = torch.rand(len(split))
    for samples in torch.randperm(len(split)).split(300):
        predictions.add(samples, scores[samples])
    by_query = {}
    for sequence, (query_id, _) in enumerate(split.ids):
        by_query.setdefault(query_id, []).append((float(scores[sequence]), split.labels[sequence]))
    expected = []
    for docs in by_query.values():
        relevant = [s for s, grade in docs[:GROUP] if grade >= dataset.task.relevance_level]
        others = [s for s, grade in docs[:GROUP] if grade < dataset.task.relevance_level]
        pairs = [max(0, dataset.task.margin - a + b) for a in relevant for b in others]
        expected += [fmean(pairs)] if pairs else []
    assert predictions.loss() == pytest.approx(fmean(expected), rel=1e-5)


def test_the_first_stage_is_measured_once_for_all_validations(datasets, monkeypatch):
    dataset = datasets["trec2019"]
    split, reads = dataset.split("test"), []
    read = PreparedSplit.first_stage
    monkeypatch.setattr(PreparedSplit, "first_stage", lambda split: reads.append(split) or read(split))
    part = split.part(2)  # new, so that no earlier test has measured it
    monkeypatch.setattr(dataset, "split", lambda name: part)
    judgements = []
    for _ in range(2):
        predictions = Predictions(dataset, "test")
        predictions.add(torch.arange(len(part)), torch.rand(len(part)))
        judgements.append(predictions.judge())
    first, second = judgements
    assert reads == [part]
    assert first.baseline_per_query == second.baseline_per_query
    assert first.values != second.values
