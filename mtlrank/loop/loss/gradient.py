"""Combining the tasks' gradients at the shared body.

Each task has forward and backward passes of its own, which cost as much as the common ones do, as tasks share no sequences.
The extra cost is memory (one gradient of the body per task) and the combining itself.
"""

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlrank.checks import NOT_NEGATIVE, choice
from mtlrank.errors import ConfigError
from mtlrank.loop.loss.combiner import Combiner, Learner


class ByGradient(Combiner):
    """Base of combiners of gradients. The heads learn from their own tasks' losses."""

    by_task = True

    def forward(self, losses: Mapping[str, Tensor], drawn: Collection[str]) -> Tensor:
        """The part of a batch in the mean of the tasks' means, for the log."""
        return torch.stack([loss.mean() for loss in losses.values()]).sum() / len(drawn)

    @abstractmethod
    def combine(self, gradients: Tensor, losses: Tensor, names: Sequence[str]) -> Tensor:
        """The body's gradient, (weights,), from (tasks, weights) and the tasks' mean losses, (tasks,)."""


_COLUMNS = 2**22  # of gradients, in float64 at a time
_AGGREGATORS = (  # those that keep no state: what a step learns is a function of its gradients, so a run can continue
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "FairGrad",
    "IMTLG",
    "MGDA",
    "Mean",
    "PCGrad",
    "Random",
    "Sum",
    "UPGrad",
)


class Aggregated(ByGradient):
    """An aggregator of torchjd that keeps no state, such as UPGrad, PCGrad, CAGrad or MGDA, by its name there.

    `settings` are its arguments. Needs torchjd: `pip install 'mtlrank[balance]'`. It gets gradients whose mean square norm
    is 1, as some compare norms with a constant, and its result is scaled back: gradients half as long are combined in the
    same way. Most aggregators know gradients by their products only; these are computed in float64, as gradients of tasks
    may differ in length by orders of magnitude. UPGrad and DualProj, which add a constant to the squared lengths, get
    gradients of length 1 with their lengths as preferences, which is the same.

    A task whose gradient is 0 does not take part, as if the step had no samples of it: with it, the shortest convex
    combination (MGDA) and others would be 0, and a satisfied hinge loss would stop all tasks.
    """

    def __init__(
        self, tasks: Mapping[str, Learner], aggregator: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(tasks)
        self.aggregator = _build(aggregator, dict(settings or {}), len(tasks))
        self.is_projection = aggregator in ("UPGrad", "DualProj") and self.aggregator.pref_vector is None

    def combine(self, gradients: Tensor, losses: Tensor, names: Sequence[str]) -> Tensor:
        if not bool(torch.isfinite(gradients).all()):
            return gradients.sum(0)  # which is not finite either: the step is skipped
        rows = gradients[gradients.any(dim=1)]
        if not len(rows):
            return gradients.sum(0)
        if weighting := getattr(self.aggregator, "gramian_weighting", None):
            return self._weights(_products(rows), weighting).to(rows.dtype) @ rows
        scale = rows.norm() / math.sqrt(len(rows))
        combined: Tensor = self.aggregator(rows / scale) * scale
        return combined

    def _weights(self, products: Tensor, weighting: Any) -> Tensor:
        """The weight of each gradient, (tasks,), by the products of all pairs of gradients, (tasks, tasks)."""
        norms, scale = products.diagonal().sqrt(), products.diagonal().mean().sqrt()
        if not self.is_projection:
            weights: Tensor = weighting(products / scale**2)
            return weights
        weighting.pref_vector = norms / scale / len(norms)
        of_units: Tensor = weighting(products / torch.outer(norms, norms))
        return of_units * scale / norms


def _products(rows: Tensor) -> Tensor:
    """The products of all pairs of rows, in float64: (rows, columns) to (rows, rows)."""
    parts = (part.double() for part in rows.split(_COLUMNS, dim=1))  # not all at once: that would take twice the memory
    return torch.stack([part @ part.T for part in parts]).sum(0)


class GradNorm(ByGradient):
    """Weighs tasks so that their gradients are of like size and they learn at a like pace (GradNorm; Chen et al. 2018).

    With G_t the norm of the weighted gradient of task t at the body, L~_t its loss over its first loss, and r_t = L~_t over
    the mean of all L~, weights follow the gradient of the sum of |G_t - mean(G) r_t^alpha| (eq. 2) at rate `lr` and are
    scaled to a mean of 1. The body's gradient is the weighted mean. Four things differ from the paper: norms are taken over
    the whole body, not its last shared layer, as heads here read different ones; that gradient is divided by the mean
    norm, so that one `lr` fits bodies of any size; weights are at least 1e-3 before they are scaled; and heads learn from
    unweighted losses.
    """

    weights: Tensor  # (tasks,)
    first: Tensor  # (tasks,), the first losses; NaN for none yet

    def __init__(self, tasks: Mapping[str, Learner], alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__(tasks)
        for name, value in (("alpha", alpha), ("lr", lr)):
            NOT_NEGATIVE.check(f"loop.loss.{name}", value)
        self.alpha = alpha
        self.rate = lr
        self.register_buffer("weights", torch.ones(len(tasks)))
        self.register_buffer("first", torch.full((len(tasks),), float("nan")))

    def combine(self, gradients: Tensor, losses: Tensor, names: Sequence[str]) -> Tensor:
        rows = torch.tensor([self.number_of(name) for name in names], device=gradients.device)
        weights = self.weights[rows]
        combined = (weights[:, None] * gradients).mean(0)
        norms = gradients.norm(dim=1)
        if bool(torch.isfinite(norms).all()):
            self._follow(rows, norms, losses)
        return combined

    def changing_weights(self) -> dict[str, Tensor]:
        return dict(zip(self.tasks, self.weights, strict=True))

    def _follow(self, rows: Tensor, norms: Tensor, losses: Tensor) -> None:
        """Move the weights of a step's tasks; one whose loss was never above 0 has no pace yet and keeps its weight."""
        first = self.first[rows]
        first = torch.where(torch.isnan(first) & (losses > 0), losses, first)
        self.first = self.first.index_copy(0, rows, first)
        known = torch.isfinite(first)
        rows, norms, left = rows[known], norms[known], (losses / first)[known]
        weighted = self.weights[rows] * norms
        if len(rows) < 2 or not float(weighted.mean()) or not float(left.mean()):
            return
        wanted = weighted.mean() * (left / left.mean()) ** self.alpha
        slope = torch.sign(weighted - wanted) * norms / norms.mean()
        moved = (self.weights[rows] - self.rate * slope).clamp(min=1e-3)
        weights = self.weights.index_copy(0, rows, moved)
        self.weights = weights * len(weights) / weights.sum()


def _build(name: str, settings: dict[str, Any], num_tasks: int) -> Any:
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise ConfigError("Aggregating gradients needs torchjd: pip install 'mtlrank[balance]'.") from error
    choice(_AGGREGATORS).check("loop.loss.aggregator", name)
    if name == "CAGrad":
        # With torchjd's 1e-4, a task whose gradient is much shorter than others stops all.
        settings.setdefault("norm_eps", 1e-12)
    if name == "MGDA":
        # With torchjd's 1e-3 and 100, it ends far from the shortest combination if lengths differ a hundredfold.
        settings.setdefault("epsilon", 1e-9)
        settings.setdefault("max_iters", 300)
    try:
        aggregator = getattr(aggregation, name)(**settings)
        aggregator(torch.eye(num_tasks))  # now, as some find only here that a package is missing
    except ImportError as error:
        raise ConfigError(f"{name} needs more packages: pip install 'mtlrank[balance]'. {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"torchjd's {name} does not take loop.loss.settings={settings}: {error}") from error
    return aggregator
