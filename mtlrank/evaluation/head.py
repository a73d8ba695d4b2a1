"""Judging one head on one split: its measures, the baseline's, and the rows that a report is made of."""

from typing import NamedTuple

import torch
from ir_measures import ScoredDoc
from torch import Tensor

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import DivergedError
from mtlrank.evaluation import measures
from mtlrank.trec import read_qrels, read_run


class Judgement(NamedTuple):
    """How well a head did. For rankings the baseline is the first stage, for all else a constant prediction."""

    values: dict[str, float]
    baseline: dict[str, float]
    baseline_name: str
    per_query: measures.PerQuery  # rankings only
    baseline_per_query: measures.PerQuery
    run: list[ScoredDoc]
    constant: float = 0.0  # what the baseline predicts, a number or a class's; not of rankings


class Packed(NamedTuple):
    """Scores of some samples, as they travel between processes."""

    samples: list[int]
    counts: list[int]  # items of each
    scores: Tensor  # of all items, sample by sample


class Predictions:
    """Collects a head's scores over an epoch, in whatever order and however often samples come."""

    def __init__(self, dataset: PreparedDataset, split: str) -> None:
        self.dataset = dataset
        self.split_name = split
        self.split = dataset.split(split)
        self.by_sample: dict[int, Tensor] = {}  # scores of each sample's items

    def add(self, sample_ids: Tensor, item_sample: Tensor, scores: Tensor) -> None:
        """Take in the scores of a batch; `item_sample` says to which of `sample_ids` an item belongs."""
        counts = torch.bincount(item_sample.cpu(), minlength=len(sample_ids)).tolist()
        parts = torch.split(scores.detach().cpu(), counts)
        self.by_sample.update(zip(sample_ids.tolist(), parts, strict=True))

    def pack(self) -> Packed:
        """All that came, in few pieces."""
        parts = list(self.by_sample.values())
        return Packed(
            list(self.by_sample), [len(part) for part in parts], torch.cat(parts) if parts else torch.empty(0)
        )

    def unpack(self, packed: Packed) -> None:
        """Take in what another process has packed."""
        self.by_sample.update(zip(packed.samples, packed.scores.split(packed.counts), strict=True))

    def scores(self) -> tuple[Tensor, Tensor]:
        """Scores of the items of the scored samples, in the order of the split, and which items these are."""
        samples = sorted(self.by_sample)
        items = torch.tensor([item for sample in samples for item in self.split.items_of(sample)], dtype=torch.long)
        return torch.cat([self.by_sample[sample] for sample in samples]), items

    def judge(self) -> Judgement:
        """Compute the task's measures. Raises `DivergedError` for scores that are not finite."""
        if not all(bool(torch.isfinite(scores).all()) for scores in self.by_sample.values()):
            raise DivergedError(
                f"The head {self.dataset.name!r} predicts NaN or infinity: training diverged. Lower loop.optimizer.lr."
            )
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
        qrels, run = read_qrels(*self.split.files("qrels.txt")), self.run()
        first_stage = read_run(*self.split.files("candidates.run"))
        values = measures.ranking_values(names, qrels, run)
        baseline = measures.ranking_values(names, qrels, first_stage)
        return Judgement(measures.means(values), measures.means(baseline), "first stage", values, baseline, run)

    def _judge_labels(self) -> Judgement:
        task, known = self.dataset.task, self.dataset.manifest["labels"]
        scores, labels = self.labels()
        values = measures.label_values(task.kind, task.measures, scores, labels)
        constant = measures.baseline(task.kind, task.measures, known, labels)
        return Judgement(values, constant.values, constant.name, {}, {}, [], constant.prediction)
