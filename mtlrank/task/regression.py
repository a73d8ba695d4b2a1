"""Predicting numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlrank.batch import TaskBatch
from mtlrank.checks import is_number
from mtlrank.errors import ConfigError, DataError
from mtlrank.task.task import ItemTask


class Regression(ItemTask):
    """Predict a number; labels are scaled to zero mean and unit variance, so that tasks weigh the same.

    Squared error, or with `huber` the Huber loss (Huber 1964): half the squared error up to an error of `huber` standard
    deviations, linear beyond.
    """

    kind = "regression"
    output_dim = 1
    prepared_by = ("minimum", "maximum")

    def __init__(
        self,
        measures: Sequence[str],
        minimum: float | None = None,
        maximum: float | None = None,
        huber: float | None = None,
    ) -> None:
        super().__init__(measures)
        for name, bound in (("minimum", minimum), ("maximum", maximum), ("huber", huber)):
            if bound is not None and not is_number(bound):
                raise ConfigError(f"{name} is {bound!r}, expected null or a finite number.")
        if huber is not None and huber <= 0:
            raise ConfigError(f"huber is {huber!r}, expected null or a number above 0.")
        self.minimum, self.maximum = minimum, maximum
        self.huber = huber
        # The Huber loss is half of it already, and a subclass with a loss of its own says so itself.
        if huber is None and type(self).item_loss is Regression.item_loss:
            self.is_squared_error = True
        self.mean, self.std = 0.0, 1.0

    def parse_label(self, label: float | str) -> float:
        number = float(super().parse_label(label))
        low = float("-inf") if self.minimum is None else self.minimum
        high = float("inf") if self.maximum is None else self.maximum
        if not low <= number <= high:
            bounds = f"{self.minimum} to {self.maximum} (the task's minimum and maximum)"
            raise DataError(f"label {label!r} is out of range: expected {bounds}")
        return number

    def learn_labels(self, labels: dict[str, Any]) -> None:
        self.mean, self.std = labels["mean"], labels["std"] or 1.0

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        found, wanted = logits.squeeze(-1), (batch.labels - self.mean) / self.std
        if self.huber is None:
            return F.mse_loss(found, wanted, reduction="none")
        return F.huber_loss(found, wanted, reduction="none", delta=self.huber)

    def scores(self, logits: Tensor) -> Tensor:
        """Predictions in the labels' own unit."""
        return logits.squeeze(-1).float() * self.std + self.mean


class Ordinal(ItemTask):
    """Predict a grade on a scale of `levels` as a row of yes-or-no questions: is it above this level?

    One logit for each step between two levels, with binary cross-entropy (Niu et al. 2016, section 3.2); the
    loss is the mean over the steps. A label between two levels answers the question of that step in part.
    The prediction is the lowest level and the expected part of each step above it.
    """

    kind = "regression"
    prepared_by = ("levels",)
    num_outcomes = 2  # of each question

    def __init__(self, measures: Sequence[str], levels: Sequence[float] = (0, 1, 2, 3)) -> None:
        super().__init__(measures)
        numbers = all(is_number(level) for level in levels)
        if not numbers or len(levels) < 2 or list(levels) != sorted(set(levels)):
            raise ConfigError(
                f"levels is {list(levels)}, expected at least two finite numbers, ascending, as in [0,1,2,3]."
            )
        self.levels = tuple(float(level) for level in levels)

    @property
    def output_dim(self) -> int:
        return len(self.levels) - 1

    def parse_label(self, label: float | str) -> float:
        number = float(super().parse_label(label))
        if not self.levels[0] <= number <= self.levels[-1]:
            raise DataError(
                f"label {label!r} is out of range: expected {self.levels[0]:g} to {self.levels[-1]:g} (the task's levels)"
            )
        return number

    def item_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        levels = torch.tensor(self.levels).to(logits.device, non_blocking=True)
        above = ((batch.labels[:, None] - levels[:-1]) / levels.diff()).clamp(0, 1)
        return F.binary_cross_entropy_with_logits(logits, above, reduction="none").mean(1)

    def scores(self, logits: Tensor) -> Tensor:
        """Predictions in the labels' own unit."""
        levels = torch.tensor(self.levels).to(logits.device, non_blocking=True)
        return levels[0] + (logits.float().sigmoid() * levels.diff()).sum(1)


class SpanRegression(Regression):
    """Predict a number for a span of text, such as the importance of a query's term."""

    num_spans = 1
