"""What a head is trained and judged on: output size, loss per sample, scores, measures.

A task is told about its labels once the data is there (`learn_labels`), so that no config repeats what data can say.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlrank.batch import TaskBatch
from mtlrank.errors import DataError


class Task(ABC):
    """Base of all tasks. `measures` are judged on every evaluation; the first is the one that a summary shows."""

    kind: str  # "ranking", "regression" or "classification": which measures apply
    num_spans = 0  # spans that an item points at: 0 for whole sequences, 2 for pairs of mentions
    grouped = False  # whether a sample is a query with a group of documents

    def __init__(self, measures: Sequence[str]) -> None:
        if not measures:
            raise ValueError("A task needs at least one measure, as in measures=[Accuracy].")
        self.measures = tuple(measures)

    @property
    @abstractmethod
    def output_dim(self) -> int:
        """Logits per item."""

    def encode_label(self, label: float | str) -> float:
        """The number that stands for a label. Raises `DataError` if the label cannot be one of this task's."""
        try:
            number = float(label)
        except ValueError as error:
            raise DataError(f"label {label!r} is not a number") from error
        if number != number or number in (float("inf"), float("-inf")):
            raise DataError(f"label {label!r} is not finite")
        return number

    def learn_labels(self, labels: dict[str, Any]) -> None:  # noqa: B027 - most tasks need nothing
        """Take in what preparation found out about the training labels."""

    @abstractmethod
    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """The loss of each item, (items,)."""

    def loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """The loss of each sample, (samples,): the mean over its items. `logits` is (items, output_dim)."""
        return _mean_by(batch.item_sample, self.item_loss(logits.float(), batch), batch.num_samples)

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """What measures read: one score an item, or one a class."""


class Relevance(Task):
    """Pointwise ranking: is this document relevant? Binary cross-entropy on labels of at least `relevance_level`."""

    kind = "ranking"
    output_dim = 1

    def __init__(self, measures: Sequence[str], relevance_level: int = 1) -> None:
        super().__init__(measures)
        self.relevance_level = relevance_level

    def encode_label(self, label: float | str) -> float:
        """A grade; TREC's negative grades (spam) count as not relevant."""
        grade = super().encode_label(label)
        if grade != round(grade):
            raise DataError(f"label {label!r} is not a whole grade of relevance")
        return max(grade, 0.0)

    def relevant(self, batch: TaskBatch) -> Tensor:
        """1 for relevant items, 0 for others, (items,)."""
        return (batch.labels >= self.relevance_level).float()

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:  # noqa: D102
        return F.binary_cross_entropy_with_logits(logits.squeeze(-1), self.relevant(batch), reduction="none")

    def scores(self, logits: Tensor) -> Tensor:  # noqa: D102
        return logits.squeeze(-1).float()


class PairwiseRelevance(Relevance):
    """Pairwise ranking: each relevant document of a sample should score `margin` above each other one.

    The loss of a sample is the mean of max(0, margin - s(d+) + s(d-)) over its pairs (RankSVM's hinge; Joachims 2002).
    """

    grouped = True

    def __init__(self, measures: Sequence[str], relevance_level: int = 1, margin: float = 1.0) -> None:
        super().__init__(measures, relevance_level)
        self.margin = margin

    def loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:  # noqa: D102
        scores, relevant = self.scores(logits), self.relevant(batch)
        same_sample = batch.item_sample[:, None] == batch.item_sample[None, :]
        positive, negative = torch.nonzero(same_sample & (relevant[:, None] > relevant[None, :]), as_tuple=True)
        hinge = F.relu(self.margin - scores[positive] + scores[negative])
        return _mean_by(batch.item_sample[positive], hinge, batch.num_samples)


class Regression(Task):
    """Predict a number. Mean squared error on labels scaled to zero mean and unit variance, so that tasks weigh alike."""

    kind = "regression"
    output_dim = 1

    def __init__(
        self,
        measures: Sequence[str],
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> None:
        super().__init__(measures)
        self.minimum, self.maximum = minimum, maximum
        self.mean, self.std = 0.0, 1.0

    def encode_label(self, label: float | str) -> float:  # noqa: D102
        number = super().encode_label(label)
        low = float("-inf") if self.minimum is None else self.minimum
        high = float("inf") if self.maximum is None else self.maximum
        if not low <= number <= high:
            raise DataError(f"label {label!r} is out of range: expected {self.minimum} to {self.maximum}")
        return number

    def learn_labels(self, labels: dict[str, Any]) -> None:  # noqa: D102
        self.mean, self.std = labels["mean"], labels["std"] or 1.0

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:  # noqa: D102
        return F.mse_loss(logits.squeeze(-1), (batch.labels - self.mean) / self.std, reduction="none")

    def scores(self, logits: Tensor) -> Tensor:
        """Predictions in the labels' own unit."""
        return logits.squeeze(-1).float() * self.std + self.mean


class Classification(Task):
    """Choose a class. Cross-entropy; the classes are the labels that the training split has."""

    kind = "classification"

    def __init__(self, measures: Sequence[str]) -> None:
        super().__init__(measures)
        self.classes: list[str] = []

    @property
    def output_dim(self) -> int:  # noqa: D102
        assert self.classes, "learn_labels comes before output_dim"
        return len(self.classes)

    def encode_label(self, label: float | str) -> float:
        """The class's position; unknown classes are an error, which names the known ones."""
        if str(label) not in self.classes:
            raise DataError(f"label {label!r} is not a class of the training split: {', '.join(self.classes)}")
        return float(self.classes.index(str(label)))

    def learn_labels(self, labels: dict[str, Any]) -> None:  # noqa: D102
        self.classes = list(labels["classes"])

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:  # noqa: D102
        return F.cross_entropy(logits, batch.labels.long(), reduction="none")

    def scores(self, logits: Tensor) -> Tensor:
        """Class probabilities, (items, classes)."""
        return logits.float().softmax(-1)


class Buckets(Classification):
    """Regression as classification: labels fall into `num_buckets` buckets of equal size in the training split.

    Buckets that many equal labels would leave empty are left out.
    """

    def __init__(self, measures: Sequence[str], num_buckets: int = 10) -> None:
        super().__init__(measures)
        self.num_buckets = num_buckets
        self.edges: list[float] = []

    def encode_label(self, label: float | str) -> float:  # noqa: D102
        number = Task.encode_label(self, label)
        return float(sum(number >= edge for edge in self.edges))

    def learn_labels(self, labels: dict[str, Any]) -> None:  # noqa: D102
        self.edges = list(labels["edges"])
        self.classes = [str(i) for i in range(len(self.edges) + 1)]


class SpanClassification(Classification):
    """Choose the class of a span of text, such as the type of a named entity."""

    num_spans = 1


class SpanPairClassification(Classification):
    """Choose how two spans of a text relate, such as whether two mentions corefer."""

    num_spans = 2


def _mean_by(group: Tensor, values: Tensor, num_groups: int) -> Tensor:
    """The mean of `values` in each group; 0 for an empty one."""
    totals = values.new_zeros(num_groups).index_add(0, group, values)
    counts = values.new_zeros(num_groups).index_add(0, group, torch.ones_like(values))
    return totals / counts.clamp(min=1)
