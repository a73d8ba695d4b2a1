"""Choosing a class."""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtlrank.batch import TaskBatch
from mtlrank.checks import NOT_NEGATIVE, all_known, choice, whole
from mtlrank.dtypes import Floats32
from mtlrank.errors import ConfigError, DataError
from mtlrank.tags import OUTSIDE, is_tag
from mtlrank.task.task import ItemTask, Task


class Classification(ItemTask):
    """Choose a class. Cross-entropy; the classes are the labels that the training split has.

    `class_weights` scale the losses of items by their class: a number for each class (others count 1), or `balanced`, which
    makes the items of all classes weigh alike in the training data, with a mean weight of 1. As the loss of a sample is the
    mean over its items, the classes of crowded samples weigh less.
    """

    kind = "classification"

    def __init__(self, measures: Sequence[str], class_weights: str | Mapping[str, float] | None = None) -> None:
        super().__init__(measures)
        if isinstance(class_weights, Mapping):
            class_weights = {  # YAML reads 0 as a number
                str(name): NOT_NEGATIVE.check(f"class_weights.{name}", weight) for name, weight in class_weights.items()
            }
        elif class_weights not in (None, "balanced"):
            raise ConfigError(f"class_weights is {class_weights!r}, expected null, balanced, or a number by class.")
        self.class_weights = class_weights
        self.classes: list[str] = []
        self.weights: list[float] | None = None  # of each class, once the labels are known

    @property
    def output_dim(self) -> int:
        assert self.classes, "learn_labels comes before output_dim"
        return len(self.classes)

    def parse_label(self, label: float | str) -> str:
        """The name of a class."""
        is_name = isinstance(label, str | Real | np.bool_) and bool(str(label).strip())
        if not is_name or (isinstance(label, float) and not math.isfinite(label)):
            raise DataError(f"label {label!r} is not a class name")
        if isinstance(label, float) and label.is_integer():
            return str(int(label))  # 1 becomes 1.0 where one of a column's numbers is missing
        return str(label)

    def classes_of(self, labels: Iterable[str]) -> list[str]:
        """The classes in their order, from the labels of the training split."""
        return sorted(labels)

    def learn_labels(self, labels: dict[str, Any]) -> None:
        self.classes = list(labels["classes"])
        self.weights = self._find_weights(labels)

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        weights = None if self.weights is None else torch.tensor(self.weights).to(logits.device, non_blocking=True)
        return F.cross_entropy(logits, batch.labels.long(), weight=weights, reduction="none")

    def scores(self, logits: Tensor) -> Tensor:
        """Class probabilities, (items, classes)."""
        return logits.float().softmax(-1)

    def _find_weights(self, labels: dict[str, Any]) -> list[float] | None:
        if self.class_weights is None:
            return None
        if isinstance(self.class_weights, str):
            total, number = sum(labels["counts"]), sum(count > 0 for count in labels["counts"])
            return [total / (number * count) if count else 0.0 for count in labels["counts"]]
        all_known("class_weights", sorted(self.class_weights), self.classes, "classes")
        return [float(self.class_weights.get(name, 1.0)) for name in self.classes]


class Buckets(Classification):
    """Regression as classification: a label's class is its bucket among `num_buckets`.

    Their edges are quantiles of the training labels (`edges="quantiles"`: buckets of equal size), or divide their range
    (`edges="width"`: buckets of equal width). Quantiles are labels that occur, so no bucket is empty; those that many
    equal labels share make fewer buckets.
    """

    prepared_by = ("num_buckets", "edges_by")

    def __init__(
        self,
        measures: Sequence[str],
        num_buckets: int = 10,
        edges: str = "quantiles",
        class_weights: str | Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(measures, class_weights)
        self.num_buckets = whole(2).check("num_buckets", num_buckets)
        self.edges_by = choice(("quantiles", "width")).check("edges", edges)
        self.edges: list[float] = []

    def parse_label(self, label: float | str) -> float:  # type: ignore[override]
        return float(Task.parse_label(self, label))

    def find_edges(self, labels: Floats32) -> list[float]:
        """The inner edges for training labels; a label that equals an edge lies above it."""
        if self.edges_by == "width":
            edges = np.linspace(labels.min(), labels.max(), self.num_buckets + 1)[1:-1]
        else:
            ordered = np.sort(labels)
            edges = ordered[len(ordered) * np.arange(1, self.num_buckets) // self.num_buckets]
            above = ordered[ordered > ordered[0]]  # labels that equal an edge lie above it, so the lowest label is none
            edges = np.where(edges > ordered[0], edges, above[0] if len(above) else ordered[0])
        return sorted({float(edge) for edge in edges if edge > labels.min()})

    def learn_labels(self, labels: dict[str, Any]) -> None:
        self.edges = list(labels["edges"])
        self.classes = [str(i) for i in range(len(self.edges) + 1)]
        self.weights = self._find_weights(labels)

    def targets(self, labels: Floats32) -> Floats32:
        return np.searchsorted(self.edges, labels, side="right").astype(np.float32)


class SpanClassification(Classification):
    """Choose the class of a span of text, such as the type of a named entity."""

    num_spans = 1


class Tagging(SpanClassification):
    """Find the named entities of a text: each word is a span, whose class is its BIO tag.

    Measures of entities count those whose words and type are both right (Tjong Kim Sang and De Meulder 2003). The classes
    are `O` and both tags of each type that the training split has.
    """

    tags = True

    def parse_label(self, label: float | str) -> str:
        tag = super().parse_label(label)
        if not is_tag(tag, parts="BI"):
            raise DataError(f"label {label!r} is no BIO tag: expected O, or B- or I- and a type, as in B-PER")
        return tag

    def classes_of(self, labels: Iterable[str]) -> list[str]:
        types = sorted({tag[2:] for tag in labels if tag != OUTSIDE})
        return [OUTSIDE, *(f"{part}-{kind}" for kind in types for part in "BI")]


class SpanPairClassification(Classification):
    """Choose how two spans of a text relate, such as whether two mentions corefer."""

    num_spans = 2
