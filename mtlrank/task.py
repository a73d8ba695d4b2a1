"""What a head is trained and judged on: output size, loss per sample, scores, measures.

A task is told about its labels once the data is there (`learn_labels`), so that no config repeats what data can say.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mtlrank.batch import TaskBatch
from mtlrank.errors import ConfigError, DataError

Floats = NDArray[np.float32]


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

    def parse_label(self, label: float | str) -> float | str:
        """A label as it is stored: a number, or the name of a class. Raises `DataError` for what cannot be a label."""
        try:
            number = float("_" if "_" in str(label) else label)  # Python reads 1_0 as 10
        except (OverflowError, TypeError, ValueError) as error:
            raise DataError(f"label {str(label)[:40]!r} is not a number") from error
        if not abs(number) <= float(np.finfo(np.float32).max):
            raise DataError(f"label {label!r} is not finite")
        return number

    def learn_labels(self, labels: dict[str, Any]) -> None:  # noqa: B027 - most tasks need nothing
        """Take in what preparation found out about the training labels."""

    def targets(self, labels: Floats) -> Floats:
        """What is learnt from stored numbers, (items,)."""
        return labels

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
        if type(relevance_level) is not int or relevance_level < 1:
            raise ConfigError(f"relevance_level is {relevance_level!r}, expected a whole number, at least 1.")
        self.relevance_level = relevance_level

    def parse_label(self, label: float | str) -> float:
        """A grade; TREC's negative grades (spam) count as not relevant."""
        grade = float(super().parse_label(label))
        if grade != round(grade) or grade > 1000:
            raise DataError(f"label {label!r} is not a whole grade of relevance, at most 1000")
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
        scores, relevant = (
            by_sample(self.scores(logits), batch),
            by_sample(self.relevant(batch), batch, fill=float("nan")),
        )
        better = relevant[:, :, None] > relevant[:, None, :]  # (samples, items, items); never with a nan
        hinge = F.relu(self.margin - scores[:, :, None] + scores[:, None, :]) * better
        return hinge.sum((1, 2)) / better.sum((1, 2)).clamp(min=1)


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
        for name, bound in (("minimum", minimum), ("maximum", maximum)):
            if bound is not None and type(bound) not in (int, float):
                raise ConfigError(f"{name} is {bound!r}, expected null or a number.")
        self.minimum, self.maximum = minimum, maximum
        self.mean, self.std = 0.0, 1.0

    def parse_label(self, label: float | str) -> float:  # noqa: D102
        number = float(super().parse_label(label))
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

    def parse_label(self, label: float | str) -> str:
        """The name of a class."""
        if not str(label).strip() or (isinstance(label, float) and not math.isfinite(label)):
            raise DataError(f"label {label!r} is no name of a class")
        return str(label)

    def learn_labels(self, labels: dict[str, Any]) -> None:  # noqa: D102
        self.classes = list(labels["classes"])

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:  # noqa: D102
        return F.cross_entropy(logits, batch.labels.long(), reduction="none")

    def scores(self, logits: Tensor) -> Tensor:
        """Class probabilities, (items, classes)."""
        return logits.float().softmax(-1)


class Buckets(Classification):
    """Regression as classification: a label's class is its bucket among `num_buckets`.

    Their edges are quantiles of the training labels (`edges="quantiles"`: buckets of equal size), or divide their range
    (`edges="width"`: buckets of equal width). Quantiles that many equal labels share make fewer buckets.
    """

    def __init__(self, measures: Sequence[str], num_buckets: int = 10, edges: str = "quantiles") -> None:
        super().__init__(measures)
        if num_buckets < 2 or edges not in ("quantiles", "width"):
            raise ConfigError(
                f"Expected num_buckets of at least 2 and edges quantiles or width, found {num_buckets} and {edges!r}."
            )
        self.num_buckets = num_buckets
        self.edges_by = edges
        self.edges: list[float] = []

    def parse_label(self, label: float | str) -> float:  # type: ignore[override]  # noqa: D102
        return float(Task.parse_label(self, label))

    def find_edges(self, labels: Floats) -> list[float]:
        """The inner edges for training labels; a label that equals an edge lies above it."""
        if self.edges_by == "width":
            edges = np.linspace(labels.min(), labels.max(), self.num_buckets + 1)[1:-1]
        else:
            edges = np.quantile(labels, np.arange(1, self.num_buckets) / self.num_buckets)
        return sorted({float(edge) for edge in edges if edge > labels.min()})

    def learn_labels(self, labels: dict[str, Any]) -> None:  # noqa: D102
        self.edges = list(labels["edges"])
        self.classes = [str(i) for i in range(len(self.edges) + 1)]

    def targets(self, labels: Floats) -> Floats:  # noqa: D102
        return np.searchsorted(self.edges, labels, side="right").astype(np.float32)


class SpanClassification(Classification):
    """Choose the class of a span of text, such as the type of a named entity."""

    num_spans = 1


class SpanRegression(Regression):
    """Predict a number for a span of text, such as the importance of a query's term."""

    num_spans = 1


class SpanPairClassification(Classification):
    """Choose how two spans of a text relate, such as whether two mentions corefer."""

    num_spans = 2


def by_sample(values: Tensor, batch: TaskBatch, fill: float = 0.0) -> Tensor:
    """What each item has, as a row a sample, (samples, max_items); cells without an item hold `fill`."""
    counts = torch.zeros(batch.num_samples, dtype=torch.long, device=values.device)
    counts = counts.index_add(0, batch.item_sample, torch.ones_like(batch.item_sample))
    first = counts.cumsum(0) - counts
    place = torch.arange(len(values), device=values.device) - first[batch.item_sample]
    grid = values.new_full((batch.num_samples * batch.max_items,), fill)
    cells = batch.item_sample * batch.max_items + place
    return grid.index_copy(0, cells, values).view(batch.num_samples, batch.max_items)


def _mean_by(group: Tensor, values: Tensor, num_groups: int) -> Tensor:
    """The mean of `values` in each group; 0 for an empty one."""
    totals = values.new_zeros(num_groups).index_add(0, group, values)
    counts = values.new_zeros(num_groups).index_add(0, group, torch.ones_like(values))
    return totals / counts.clamp(min=1)
