"""What training logs as it goes on: losses, norms of gradients, learning rates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.optim import Optimizer

from mtlrank.loop.gradients import TaskGradients
from mtlrank.processes import world_size

_RECENT = 50  # batches that the loss beside the progress averages over, about


class TrainingLog:
    """Sums losses and norms on their device, without waiting for it, until they are written. `names` are the tasks'."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self.names_of_rates: list[str] = []  # a name for each group of weights
        self._rates: dict[str, Any] = {}  # of the last step, by name
        # By key: the sum and the number of finite values since they were written; losses count by their shares.
        self._sums: dict[str, Tensor] = {}
        self._recent: Tensor | float = 0.0  # the same of the losses, of older ones exponentially less
        self._loggers: Sequence[Logger] = []
        self._device = torch.device("cpu")
        self._written = 0  # the optimizer step of the last `write`

    @property
    def recent_loss(self) -> float:
        """An exponential mean of the batches' losses, which waits for the device; NaN if none was finite."""
        total, number = torch.as_tensor(self._recent).expand(2).tolist()
        return total / number if number else math.nan

    def begin(self, loggers: Sequence[Logger], device: torch.device, step: int) -> None:
        """Set the loggers, the device that computes, and the steps that were taken before."""
        self._loggers, self._device, self._written = loggers, device, step

    def add_loss(self, total: Tensor, share: float) -> None:
        """The combined loss of a batch, which has this share in that of its step."""
        part = share * _finite(total)
        self._add("train/loss", part)
        self._recent = part + (1 - 1 / _RECENT) * self._recent

    def add_task_loss(self, name: str, losses: Tensor) -> None:
        """The losses of a task's samples."""
        self._add(f"train/{name}/loss", _finite(losses))

    def add_step(self, gradient_norm: Tensor, optimizer: Optimizer) -> None:
        """The gradient norm and the learning rates of an optimizer step."""
        self._add("train/grad_norm", _finite(gradient_norm))
        groups = zip(self.names_of_rates, optimizer.param_groups, strict=True)
        self._rates = {name: group["lr"] for name, group in groups}

    def write(self, step: int, weights: Mapping[str, float | Tensor]) -> None:
        """Log learning rates, the tasks' weights, and means of losses and gradient norms since the last time.

        The means are over all processes.
        """
        if step <= self._written:
            return
        none = torch.zeros(2, device=self._device)
        keys = ["train/loss", *(f"train/{name}/loss" for name in self.names), "train/grad_norm"]
        sums = torch.stack([self._sums.get(key, none) for key in keys])
        if world_size() > 1:
            dist.all_reduce(sums)
        values = {key: total / count for key, (total, count) in zip(keys, sums.tolist(), strict=True) if count}
        values |= {name: float(rate) for name, rate in self._rates.items()}
        values |= {f"train/{name}/weight": float(weight) for name, weight in weights.items()}
        self._log(values, step)
        self._sums, self._written = {}, step

    def write_gradients(self, gradients: TaskGradients, examples: Mapping[str, int], step: int) -> None:
        """Log the norm of each task's gradient at the body, and the cosine between each two."""
        values = {f"diagnostics/{name}/gradient_norm": norm for name, norm in gradients.norms().items()}
        values |= {f"diagnostics/{a}~{b}/gradient_cosine": cosine for (a, b), cosine in gradients.cosines().items()}
        numbers = {key: number for key, value in values.items() if not math.isnan(number := float(value))}
        numbers |= {f"diagnostics/{name}/examples": float(examples[name]) for name in self.names}
        self._log(numbers, step)

    def _add(self, key: str, part: Tensor) -> None:
        self._sums[key] = part + self._sums.get(key, 0.0)

    def _log(self, values: dict[str, float], step: int) -> None:
        for logger in self._loggers:
            logger.log_metrics(values, step=step)


def _finite(values: Tensor) -> Tensor:
    """The sum and the number of the values that are finite, (2,)."""
    values = values.detach().float()
    finite = values.isfinite()
    return torch.stack([values.where(finite, 0.0).sum(), finite.sum().float()])
