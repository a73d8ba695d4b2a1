"""The measures of scores that a probe gives to some items of a split."""

from collections.abc import Mapping

import torch
from ir_measures import ScoredDoc
from torch import Tensor

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.dtypes import Ints
from mtlrank.evaluation import measures


class Judge:
    """Computes the task's measures on items of a split. Of a ranking, queries that were not drawn are not judged."""

    def __init__(self, dataset: PreparedDataset, split_name: str, items: Ints) -> None:
        self.dataset = dataset
        self.split = dataset.split(split_name)
        self.items = items
        self.labels = torch.from_numpy(self.split.labels[items])
        self.sequences = self.split.sequence_of_item[items]
        if dataset.is_ranking:
            self.pairs = [self.split.ids[sequence] for sequence in self.sequences]
            not_drawn = {query_id for query_id, _ in self.split.ids} - {query_id for query_id, _ in self.pairs}
            self.qrels = [qrel for qrel in self.split.qrels if qrel.query_id not in not_drawn]

    def values(self, scores: Tensor) -> Mapping[str, float | None]:
        """The measures of scores, (items,) or (items, classes).

        Scores that are equal but for rounding are no ranking, so measures are None then.
        """
        task = self.dataset.task
        if not self.dataset.is_ranking:
            return measures.label_values(task, scores, self.labels, self.sequences)
        run = [ScoredDoc(*pair, score) for pair, score in zip(self.pairs, scores.tolist(), strict=True)]
        return dict.fromkeys(task.measures) if measures.ties(run).decide else self._ranking_values(run)

    def baseline(self) -> tuple[str, dict[str, float]]:
        """The name and the measures of the baseline: a constant prediction, or for rankings the first stage."""
        task, labels = self.dataset.task, self.dataset.manifest["labels"]
        if self.dataset.is_ranking:
            return self.split.baseline_name, self._ranking_values(self.split.first_stage())
        constant = measures.baseline(task, labels, self.labels, self.sequences)
        return constant.name, constant.values

    def _ranking_values(self, run: list[ScoredDoc]) -> dict[str, float]:
        return measures.means(measures.ranking_values(self.dataset.task.measures, self.qrels, run))
