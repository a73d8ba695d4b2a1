"""Judging one head on one split: its measures, the baseline's, and the rows that a report is made of."""

from typing import NamedTuple

import torch
from ir_measures import ScoredDoc
from torch import Tensor

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.evaluation import measures, runs


class Judgement(NamedTuple):
    """How well a head did. For rankings the baseline is the first stage, for all else a constant prediction."""

    values: dict[str, float]
    baseline: dict[str, float]
    baseline_name: str
    per_query: measures.PerQuery  # rankings only
    baseline_per_query: measures.PerQuery
    run: list[ScoredDoc]


class Predictions:
    """Collects a head's scores over an epoch, in whatever order and however often samples come."""

    def __init__(self, dataset: PreparedDataset, split: str) -> None:
        self.dataset = dataset
        self.split_name = split
        self.split = dataset.split(split)
        self._scores: dict[int, Tensor] = {}

    def add(self, sample_ids: Tensor, item_sample: Tensor, scores: Tensor) -> None:
        """Take in the scores of a batch; `item_sample` says to which of `sample_ids` an item belongs."""
        counts = torch.bincount(item_sample.cpu(), minlength=len(sample_ids)).tolist()
        parts = torch.split(scores.detach().cpu(), counts)
        self._scores.update(zip(sample_ids.tolist(), parts, strict=True))

    def merge(self, scores: dict[int, Tensor]) -> None:
        """Take in what another process has scored."""
        self._scores.update(scores)

    @property
    def by_sample(self) -> dict[int, Tensor]:
        """Scores by sample."""
        return self._scores

    def scores(self) -> tuple[Tensor, Tensor]:
        """Scores of the items of the scored samples, in the order of the split, and which items these are."""
        samples = sorted(self._scores)
        items = torch.tensor([item for sample in samples for item in self.split.items_of(sample)], dtype=torch.long)
        return torch.cat([self._scores[sample] for sample in samples]), items

    def judge(self) -> Judgement:
        """Compute the task's measures."""
        return self._judge_ranking() if self.dataset.has_judgements else self._judge_labels()

    def labels(self) -> tuple[Tensor, Tensor]:
        """Scores and labels, item by item."""
        scores, items = self.scores()
        return scores, torch.from_numpy(self.split.labels[items.numpy()])

    def run(self) -> list[ScoredDoc]:
        """The ranking that the scores stand for."""
        scores, items = self.scores()
        ids = [self.split.ids[sequence] for sequence in self.split.sequence_of_item[items.numpy()]]
        return [ScoredDoc(q, d, float(score)) for (q, d), score in zip(ids, scores, strict=True)]

    def _judge_ranking(self) -> Judgement:
        names = self.dataset.task.measures
        qrels, run = runs.read_qrels(self.split.folder / "qrels.txt"), self.run()
        first_stage = runs.read_run(self.split.folder / "candidates.run")
        values = measures.ranking_values(names, qrels, run)
        baseline = measures.ranking_values(names, qrels, first_stage)
        return Judgement(measures.means(values), measures.means(baseline), "first stage", values, baseline, run)

    def _judge_labels(self) -> Judgement:
        task, manifest = self.dataset.task, self.dataset.manifest
        scores, labels = self.labels()
        counts = None
        if task.kind == "classification":
            train = torch.from_numpy(self.dataset.split("train").labels[:].astype("int64"))
            counts = torch.bincount(train, minlength=task.output_dim)
        constant = measures.baseline_scores(task.kind, manifest["labels"], counts, len(labels))
        values = measures.label_values(task.kind, task.measures, scores, labels)
        baseline = measures.label_values(task.kind, task.measures, constant, labels)
        name = "majority class" if task.kind == "classification" else "training mean"
        return Judgement(values, baseline, name, {}, {}, [])
