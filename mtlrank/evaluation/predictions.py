"""Judging one head on one split: its scores, its measures and those of its baseline."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from ir_measures import ScoredDoc
from torch import Tensor

from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.split import PreparedSplit
from mtlrank.errors import DivergedError
from mtlrank.evaluation import measures
from mtlrank.task.groupwise import Groupwise

GROUP = 100  # candidates of a query that a loss over groups compares
_QUERIES = 100  # that are compared at a time
_first_stages = WeakKeyDictionary[PreparedSplit, dict[tuple[str, ...], measures.PerQuery]]()  # by the measures' names


class HeadMeasures(NamedTuple):
    """The measures of a head and of its baseline: for rankings the first stage, else a constant prediction."""

    values: dict[str, float]
    baseline: dict[str, float]
    baseline_name: str
    per_query: measures.PerQuery  # rankings only
    baseline_per_query: measures.PerQuery
    run: list[ScoredDoc]
    constant: float = 0.0  # the baseline's prediction, a value or the index of a class; not for rankings


class PackedScores(NamedTuple):
    """Scores of some samples, as they travel between processes."""

    samples: Tensor
    scores: Tensor  # of all their items, sample by sample
    losses: Tensor  # of the samples; NaN where there is none


class Predictions:
    """Collects a head's scores over an epoch, in whatever order and however often samples come."""

    def __init__(self, dataset: PreparedDataset, split: str) -> None:
        self.dataset = dataset
        self.split_name = split
        self.split = dataset.split(split)
        self._seen = torch.zeros(len(self.split), dtype=torch.bool)  # by sample
        self._scores = torch.empty(0)  # by item of the split; allocated with the first scores, which have their shape
        self._losses = torch.full((len(self.split),), float("nan"))  # by sample

    @property
    def num_samples(self) -> int:
        """How many samples have scores."""
        return int(self._seen.sum())

    def add(self, sample_ids: Tensor, scores: Tensor, losses: Tensor | None = None) -> None:
        """Take in the scores of a batch's items, sample by sample, and the losses of its samples if there are any."""
        if not len(self._scores):
            self._scores = torch.zeros(len(self.split.labels), *scores.shape[1:], dtype=scores.dtype)
        self._scores[self._items(sample_ids)] = scores.detach().cpu()
        self._seen[sample_ids] = True
        if losses is not None:
            self._losses[sample_ids] = losses.detach().float().cpu()

    def pack(self) -> PackedScores:
        """All scores so far, as few tensors."""
        samples = self._seen.nonzero().squeeze(1)
        return PackedScores(samples, self._scores[self._items(samples)], self._losses[samples])

    def unpack(self, packed: PackedScores) -> None:
        """Take in the scores that another process has packed."""
        if len(packed.samples):
            self.add(*packed)

    def scores(self) -> tuple[Tensor, Tensor]:
        """Scores of the items of the scored samples, in the order of the split, and which items these are."""
        items = self._items(self._seen.nonzero().squeeze(1))
        return self._scores[items], items

    def _items(self, samples: Tensor) -> Tensor:
        return torch.from_numpy(self.split.items_of_samples(samples.numpy()))

    def judge(self) -> HeadMeasures:
        """Compute the task's measures. Raises `DivergedError` for scores that are not finite."""
        if not bool(torch.isfinite(self._scores).all()):
            raise DivergedError(
                f"The head {self.dataset.name!r} predicts NaN or infinity: training diverged. Lower loop.optimizer.lr."
            )
        return self._judge_ranking() if self.dataset.is_ranking else self._judge_labels()

    def loss(self) -> float | None:
        """The mean of the samples' finite losses; None if there are none.

        Judged splits have no groups: a loss over groups is computed on the first `GROUP` candidates of each query, if they
        can be compared. A loss with a teacher is left out, as the teacher's scores exist in training only.
        """
        task = self.dataset.task
        losses = self._group_losses(task) if isinstance(task, Groupwise) and not task.distils else self._losses
        finite = losses[losses.isfinite()]
        return float(finite.mean()) if len(finite) else None

    def _group_losses(self, task: Groupwise) -> Tensor:
        """The loss of each query, (queries,)."""
        scores, items = self.scores()
        labels = self._labels(items)
        groups: dict[str, list[int]] = {}
        for place, sequence in enumerate(self.split.sequence_of_item[items.numpy()]):
            groups.setdefault(self.split.ids[sequence][0], []).append(place)
        rows = [torch.tensor(group[:GROUP]) for group in groups.values()]
        rows = [row for row in rows if task.compares(labels[row])]
        found = [torch.empty(0)]
        for part in (rows[start : start + _QUERIES] for start in range(0, len(rows), _QUERIES)):
            places = torch.nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=-1)
            present = places >= 0
            found.append(task.group_loss(scores[places] * present, labels[places] * present, present))
        return torch.cat(found)

    def _labels(self, items: Tensor) -> Tensor:
        return torch.from_numpy(self.split.labels[items.numpy()])

    def run(self) -> list[ScoredDoc]:
        """The scores as a ranking."""
        scores, items = self.scores()
        ids = [self.split.ids[sequence] for sequence in self.split.sequence_of_item[items.numpy()]]
        return [ScoredDoc(q, d, score) for (q, d), score in zip(ids, scores.tolist(), strict=True)]

    def _judge_ranking(self) -> HeadMeasures:
        names = self.dataset.task.measures
        qrels, run = self.split.qrels, self.run()
        values = measures.ranking_values(names, qrels, run)
        first_stage = _first_stages.setdefault(self.split, {})  # as each validation asks for the same
        if (baseline := first_stage.get(tuple(names))) is None:
            baseline = first_stage[tuple(names)] = measures.ranking_values(names, qrels, self.split.first_stage())
        name = self.split.baseline_name
        return HeadMeasures(measures.means(values), measures.means(baseline), name, values, baseline, run)

    def _judge_labels(self) -> HeadMeasures:
        task, known = self.dataset.task, self.dataset.manifest["labels"]
        scores, items = self.scores()
        labels, sequences = self._labels(items), self.split.sequence_of_item[items.numpy()]
        values = measures.label_values(task, scores, labels, sequences)
        constant = measures.baseline(task, known, labels, sequences)
        return HeadMeasures(values, constant.values, constant.name, {}, {}, [], constant.prediction)
