"""The base of all tasks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlrank.batch import TaskBatch, in_rows
from mtlrank.checks import parse_number
from mtlrank.dtypes import Floats32
from mtlrank.errors import ConfigError, DataError
from mtlrank.own_parts import name_of, shaped


class Task(ABC):
    """Base of all tasks. `measures` are judged on every evaluation; the first is the one that a summary shows."""

    kind: str  # "ranking", "regression" or "classification": which measures apply
    num_spans = 0  # spans that an item points at: 0 for whole sequences, 2 for pairs of mentions
    grouped = False  # whether a sample is a query with a group of documents
    tags = False  # whether items are the words of a text, whose classes are the tags of `mtlrank.tags`
    distils = False  # whether training labels are a teacher's scores, where the labels of other splits are grades
    is_squared_error = False  # whether the loss is a squared error, which `Uncertainty` weighs differently
    relevance_level: int | None = None  # rankings only: the lowest grade that is relevant
    prepared_by: tuple[str, ...] = ()  # the settings that prepared data depends on

    def __init__(self, measures: Sequence[str]) -> None:
        if not measures:
            raise ConfigError("A task needs at least one measure, as in measures=[Accuracy].")
        self.measures = tuple(measures)

    @property
    @abstractmethod
    def output_dim(self) -> int:
        """Logits per item."""

    @property
    def num_outcomes(self) -> int:
        """How many outcomes a prediction chooses among: the classes, or 2 for yes or no and for numbers."""
        return max(self.output_dim, 2)

    @property
    def level(self) -> int:
        """The lowest grade that is relevant, also for a task that does not say: then it is 1."""
        return self.relevance_level or 1

    def identity(self) -> dict[str, Any]:
        """The settings that prepared data depends on: tasks with equal ones learn from the same data.

        The name of the class that parses labels belongs to it: with another name, data would be prepared again.
        """
        settings = {name: getattr(self, name) for name in self.prepared_by}
        how = {"kind": self.kind, "num_spans": self.num_spans, "grouped": self.grouped, "distils": self.distils}
        return {"labels": type(self).parse_label.__qualname__, **how, **settings}

    def parse_label(self, label: float | str) -> float | str:
        """A label as it is stored: a number, or the name of a class. Raises `DataError` for anything else."""
        try:
            number = parse_number(label) if isinstance(label, str) else float(label)
        except (OverflowError, TypeError, ValueError) as error:
            raise DataError(f"label {str(label)[:40]!r} is not a number") from error
        if not abs(number) <= float(np.finfo(np.float32).max):
            raise DataError(f"label {label!r} is not finite")
        return number

    def learn_labels(self, labels: dict[str, Any]) -> None:  # noqa: B027 - most tasks need nothing
        """Take in the statistics of the training labels that preparation computed."""

    def targets(self, labels: Floats32) -> Floats32:
        """The targets of the loss for stored labels, (items,)."""
        return labels

    @abstractmethod
    def loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """The loss of each sample, (samples,), from logits (items, output_dim) of any precision."""

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """The input of measures: one score for each item, or one for each class of it."""


class ItemTask(Task):
    """Base of tasks whose items are learnt one by one; a sample's loss is the mean over its items."""

    @abstractmethod
    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """The loss of each item, (items,)."""

    def loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        what = f"{name_of(self)}.item_loss"
        losses = shaped(what, self.item_loss(logits.float(), batch), batch.labels.shape, "one number an item")
        totals = losses.new_zeros(batch.num_samples).index_add(0, batch.item_sample, losses)
        counts = losses.new_zeros(batch.num_samples).index_add(0, batch.item_sample, torch.ones_like(losses))
        return totals / counts.clamp(min=1)


def by_sample(values: Tensor, batch: TaskBatch) -> Tensor:
    """The values of items as a row for each sample, (samples, max_items); cells without an item hold 0."""
    return in_rows(values, batch.item_sample, (batch.num_samples, batch.max_items))
