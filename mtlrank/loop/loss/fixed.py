"""Combiners whose weights stay as they are."""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from mtlrank.checks import all_known
from mtlrank.errors import ConfigError
from mtlrank.loop.loss.combiner import Combiner, Learner, TaskWeights


class ExampleMean(Combiner):
    """Every sample counts the same, whatever task it is of and however the batch is mixed."""

    def forward(self, losses: Mapping[str, Tensor], drawn: Collection[str]) -> Tensor:
        return torch.cat(list(losses.values())).mean()


class Muppet(Combiner):
    """The example mean with each loss divided by log n, n being the number of outcomes that its task chooses among.

    Makes losses of tasks with many and few classes alike at the start of training (Aghajanyan et al. 2021, section 3).
    Binary choices, numbers and rankings have n = 2: a ranking's loss that chooses among all documents of a group, such as
    ListNet, starts at the logarithm of their number over log 2 instead of 1.
    """

    def forward(self, losses: Mapping[str, Tensor], drawn: Collection[str]) -> Tensor:
        scaled = [loss / math.log(self.tasks[name].num_outcomes) for name, loss in losses.items()]
        return torch.cat(scaled).mean()


class TaskMean(TaskWeights):
    """The mean of the tasks' means: in a mixed batch, samples of a rare task weigh more than those of a frequent one."""

    def task_weights(self) -> dict[str, float]:
        return dict.fromkeys(self.tasks, 1.0)


class StaticWeights(TaskWeights):
    """The mean of the tasks' means, weighted by numbers that are chosen by hand; tasks that are not named weigh 1.

    What counts are their ratios: the weights of all tasks, also of those that a step lacks, are scaled to a mean of 1.
    """

    def __init__(self, tasks: Mapping[str, Learner], weights: Mapping[str, float]) -> None:
        super().__init__(tasks)
        all_known("loop.loss.weights", weights, tasks, "tasks")
        values = {name: weights.get(name, 1.0) for name in tasks}
        if not all(type(value) in (int, float) and 0 < value < math.inf for value in values.values()):
            raise ConfigError(
                f"loop.loss.weights is {dict(weights)}, expected numbers above 0. To leave out a task, use tasks=[...]."
            )
        self.weights = {name: value * len(values) / sum(values.values()) for name, value in values.items()}

    def task_weights(self) -> dict[str, float]:
        return self.weights
