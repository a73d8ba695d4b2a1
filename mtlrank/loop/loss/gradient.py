"""Combining the tasks' gradients at the shared body.

Each task has forward and backward passes of its own, which cost as much as the common ones do, as tasks share no sequences;
what costs more is memory, a gradient of the body for each task, and what is made of them.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from inspect import isabstract
from typing import Any

import torch
from torch import Tensor

from mtlrank.errors import ConfigError
from mtlrank.loop.loss.combiner import Combiner, Learner


class ByGradient(Combiner):
    """Base of combiners of gradients. The heads learn from their own tasks' losses."""

    by_task = True
    by_gradient = True

    def forward(self, losses: Mapping[str, Tensor], drawn: Collection[str]) -> Tensor:
        """The mean of the tasks' means, to be looked at."""
        return torch.stack([loss.mean() for loss in losses.values()]).mean()

    @abstractmethod
    def combine(self, gradients: Tensor, losses: Tensor, names: Sequence[str]) -> Tensor:
        """The body's gradient, (weights,), from (tasks, weights) and the tasks' mean losses, (tasks,)."""


class Aggregated(ByGradient):
    """Any aggregator of torchjd, such as UPGrad, PCGrad, CAGrad or MGDA, by its name there.

    `settings` are its arguments. Needs torchjd: `pip install 'mtlrank[balance]'`.
    """

    def __init__(
        self, tasks: Mapping[str, Learner], aggregator: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(tasks)
        self.aggregator = _build(aggregator, dict(settings or {}))

    def combine(self, gradients: Tensor, losses: Tensor, names: Sequence[str]) -> Tensor:  # noqa: D102
        if not bool(torch.isfinite(gradients).all()):
            return gradients.sum(0)  # which is no number either: the step is skipped
        combined: Tensor = self.aggregator(gradients)
        return combined


class GradNorm(ByGradient):
    """Weighs tasks so that their gradients are of like size and they learn at a like pace (GradNorm; Chen et al. 2018).

    With G_t the norm of the weighed gradient of task t at the body, L~_t its loss over its first loss, and r_t = L~_t over
    the mean of all L~, weights follow the gradient of the sum of |G_t - mean(G) r_t^alpha| (eq. 2) at rate `lr` and are
    scaled to a mean of 1. The body's gradient is the weighed mean. The norm is taken over the whole body, where the paper
    takes the last shared layer: heads here read different ones.
    """

    weights: Tensor  # (tasks,)
    first: Tensor  # (tasks,), the first losses; NaN for none yet

    def __init__(self, tasks: Mapping[str, Learner], alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__(tasks)
        for name, value in (("alpha", alpha), ("lr", lr)):
            if type(value) not in (int, float) or not value >= 0:
                raise ConfigError(f"loop.loss.{name} is {value!r}, expected a number of at least 0.")
        self.alpha = alpha
        self.rate = lr
        self.register_buffer("weights", torch.ones(len(tasks)))
        self.register_buffer("first", torch.full((len(tasks),), float("nan")))

    def combine(self, gradients: Tensor, losses: Tensor, names: Sequence[str]) -> Tensor:  # noqa: D102
        rows = torch.tensor([self.number_of(name) for name in names], device=gradients.device)
        weights = self.weights[rows]
        combined = (weights[:, None] * gradients).mean(0)
        norms = gradients.norm(dim=1)
        if bool(torch.isfinite(norms).all()):
            self._follow(rows, norms, losses)
        return combined

    def _follow(self, rows: Tensor, norms: Tensor, losses: Tensor) -> None:
        """Move the weights of a step's tasks."""
        first = self.first[rows]
        first = torch.where(torch.isnan(first), losses, first)
        self.first = self.first.index_copy(0, rows, first)
        left = losses / first
        weighed = self.weights[rows] * norms
        wanted = weighed.mean() * (left / left.mean()) ** self.alpha
        moved = (self.weights[rows] - self.rate * torch.sign(weighed - wanted) * norms).clamp(min=1e-3)
        weights = self.weights.index_copy(0, rows, moved)
        self.weights = weights * len(weights) / weights.sum()


def _build(name: str, settings: dict[str, Any]) -> Any:
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise ConfigError("Aggregating gradients needs torchjd: pip install 'mtlrank[balance]'.") from error
    classes = {known: getattr(aggregation, known) for known in aggregation.__all__}
    known = [
        known
        for known, cls in classes.items()
        if isinstance(cls, type) and issubclass(cls, aggregation.Aggregator) and not isabstract(cls)
    ]
    if name not in known:
        raise ConfigError(f"loop.loss.aggregator is {name!r}, expected one of {', '.join(known)}.")
    try:
        aggregator = getattr(aggregation, name)(**settings)
        aggregator(torch.eye(2))  # now, as some find only here that a package is missing
    except ImportError as error:
        raise ConfigError(f"{name}: {error} pip install 'mtlrank[balance]' has them.") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"torchjd's {name} does not take loop.loss.settings={settings}: {error}") from error
    return aggregator
