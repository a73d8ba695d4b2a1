"""How the losses of a mixed batch become one number."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Combiner(nn.Module, ABC):
    """Base of all combiners. Losses arrive per sample and unreduced, (samples,) for each task."""

    by_task = False  # whether tasks weigh alike instead of samples: then each task's mean is over all processes

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor], output_dims: Mapping[str, int]) -> Tensor:
        """The number to minimise. `output_dims` are the tasks' numbers of logits."""


class ExampleMean(Combiner):
    """Every sample counts the same, whatever task it is of and however the batch is mixed."""

    def forward(self, losses: Mapping[str, Tensor], output_dims: Mapping[str, int]) -> Tensor:  # noqa: D102
        return torch.cat(list(losses.values())).mean()


class Sum(Combiner):
    """The sum of the tasks' means: in a mixed batch, samples of a rare task weigh more than those of a frequent one."""

    by_task = True

    def forward(self, losses: Mapping[str, Tensor], output_dims: Mapping[str, int]) -> Tensor:  # noqa: D102
        return torch.stack([loss.mean() for loss in losses.values()]).sum()


class Muppet(Combiner):
    """The example mean with each loss divided by log n, n being what its task chooses among.

    Makes losses of tasks with many and few classes alike at the start of training (Aghajanyan et al. 2021, section 3.2).
    Binary choices and regressions, whose one logit stands for two outcomes, have n = 2.
    """

    def forward(self, losses: Mapping[str, Tensor], output_dims: Mapping[str, int]) -> Tensor:  # noqa: D102
        return torch.cat([loss / math.log(max(output_dims[name], 2)) for name, loss in losses.items()]).mean()
