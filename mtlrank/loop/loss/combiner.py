"""The base of classes that combine the losses of several tasks into one number, or one gradient."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Learner(NamedTuple):
    """What a combiner knows of a task."""

    num_outcomes: int  # that the task chooses among; 2 for yes or no, and for numbers
    is_squared_error: bool  # whether its loss is a squared error, and not a cross-entropy or the like


class Combiner(nn.Module, ABC):
    """Base of all combiners. `tasks` says, by name and in config order, what a combiner may know of each task."""

    by_task = False  # whether tasks, not samples, weigh alike: then each task's mean is over all processes
    lr: float | None = None  # learning rate of the combiner's own weights

    def __init__(self, tasks: Mapping[str, Learner]) -> None:
        super().__init__()
        self.tasks = dict(tasks)

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor], drawn: Collection[str]) -> Tensor:
        """The number to minimise, from losses by sample, (samples,) of each task, unreduced.

        `drawn` are the tasks that any process learns from in this step; `losses` has those of this process's batch. If
        `by_task`, a task's mean, averaged over all processes and accumulated batches, is the mean over all its samples in
        this step. Gradients are averaged in the same way, so only a weighted sum of means is the same with any number of
        them.
        """

    def start_step(self) -> None:
        """Called before the first batch of an optimizer step; it may have several, as batches can be accumulated."""

    def start_epoch(self, epoch: int) -> None:
        """Called when an epoch begins; not when a run resumes within one, as buffers hold the state then."""

    def changing_weights(self) -> Mapping[str, float | Tensor]:
        """The factors that the tasks' losses, or gradients, have now, for the log; none if they stay as they are."""
        return {}

    def idle(self, drawn: Collection[str]) -> list[nn.Parameter]:
        """The combiner's own weights that a step of these tasks does not use."""
        return []

    def number_of(self, name: str) -> int:
        """A task's place in config order."""
        return list(self.tasks).index(name)


class TaskWeights(Combiner):
    """Base of combiners that take the mean of the tasks' weighted means."""

    by_task = True

    @abstractmethod
    def task_weights(self) -> Mapping[str, float | Tensor]:
        """The weight of each task in this step."""

    def forward(self, losses: Mapping[str, Tensor], drawn: Collection[str]) -> Tensor:
        weights = self.task_weights()
        return torch.stack([weights[name] * loss.mean() for name, loss in losses.items()]).sum() / len(drawn)
