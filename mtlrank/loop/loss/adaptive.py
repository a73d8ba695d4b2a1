"""Combiners whose weights change during training. Their state is in buffers, so that checkpoints hold it."""

import math
from collections.abc import Collection, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtlrank.checks import ABOVE_ZERO
from mtlrank.loop.loss.combiner import Combiner, Learner, TaskWeights
from mtlrank.processes import world_size


class Uncertainty(Combiner):
    """Weighs tasks by an uncertainty that is learnt with the model (Kendall et al. 2018, eq. 7 and 10).

    With s_t the logarithm of a task's variance, the mean over tasks of exp(-s_t) L_t / 2 + s_t / 2 for squared errors, and
    of exp(-s_t) L_t + s_t / 2 for all others, such as cross-entropies. `lr` is that of the s_t: an optimizer such as Adam
    moves them by about as much in a step. Unlike in the paper, exp(-s_t) is at most `max_weight`: while a loss is 0, as a
    hinge loss of satisfied groups is, its s_t would fall without end.
    """

    by_task = True

    def __init__(self, tasks: Mapping[str, Learner], lr: float = 1e-2, max_weight: float = 100.0) -> None:
        super().__init__(tasks)
        self.lr = ABOVE_ZERO.check("loop.loss.lr", lr)
        self.least = -math.log(ABOVE_ZERO.check("loop.loss.max_weight", max_weight))
        self.log_variances = nn.ParameterList(torch.zeros(()) for _ in tasks)  # in config order

    def forward(self, losses: Mapping[str, Tensor], drawn: Collection[str]) -> Tensor:
        with torch.no_grad():
            for s in self.log_variances:
                s.clamp_(min=self.least)
        parts = [0 * s for s in self.log_variances] if world_size() > 1 else []  # each process needs all gradients
        parts += [self.log_variances[self.number_of(name)] / 2 for name in drawn]
        for name, loss in losses.items():
            parts.append(self._weight(name) * loss.mean())
        return torch.stack(parts).sum() / len(drawn)

    def changing_weights(self) -> dict[str, Tensor]:
        return {name: self._weight(name).detach() for name in self.tasks}

    def _weight(self, name: str) -> Tensor:
        half = 0.5 if self.tasks[name].is_squared_error else 1.0
        return half * torch.exp(-self.log_variances[self.number_of(name)])

    def idle(self, drawn: Collection[str]) -> list[nn.Parameter]:
        return [s for name, s in zip(self.tasks, self.log_variances, strict=True) if name not in drawn]


class DynamicWeightAverage(TaskWeights):
    """Weighs tasks by how slowly their losses fall (DWA; Liu et al. 2019, section 4.1.3).

    In each epoch the weights are K softmax(r / temperature) with r_t the quotient of the mean losses of task t in the last
    two epochs and K the number of tasks; in the first two epochs all weigh 1. The loss is the weighted mean over tasks.
    """

    weights: Tensor  # (tasks,), of the current epoch
    epoch: Tensor  # the current one
    sums: Tensor  # (tasks,), of the losses of the steps so far in this epoch, without the current one
    counts: Tensor  # (tasks,), the number of steps in `sums`
    step_sums: Tensor  # (tasks,), of the losses of the batches so far in this step
    step_counts: Tensor  # (tasks,), the number of batches in `step_sums`
    before: Tensor  # (2, tasks), mean losses of the last epoch and the one before it; NaN for none

    def __init__(self, tasks: Mapping[str, Learner], temperature: float = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = ABOVE_ZERO.check("loop.loss.temperature", temperature)
        self.register_buffer("weights", torch.ones(len(tasks)))
        self.register_buffer("epoch", torch.tensor(0))
        self.register_buffer("sums", torch.zeros(len(tasks)))
        self.register_buffer("counts", torch.zeros(len(tasks)))
        self.register_buffer("step_sums", torch.zeros(len(tasks)))
        self.register_buffer("step_counts", torch.zeros(len(tasks)))
        self.register_buffer("before", torch.full((2, len(tasks)), float("nan")))

    def start_epoch(self, epoch: int) -> None:
        if epoch == int(self.epoch):
            return
        self.start_step()
        self.before = torch.stack([self.sums / self.counts, self.before[0]])
        ratios = self.before[0] / self.before[1]
        known = torch.isfinite(ratios)
        shares = torch.where(known, ratios / self.temperature, float("-inf")).softmax(0) * known.sum()
        self.weights = torch.where(known, shares, 1.0)
        self.sums, self.counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)
        self.epoch = torch.full_like(self.epoch, epoch)

    def start_step(self) -> None:
        """Add the mean losses of the step before, however many batches it had. A step that is skipped teaches nothing."""
        means = self.step_sums / self.step_counts
        finite = torch.isfinite(means)
        self.sums = self.sums + torch.where(finite, means, 0.0)
        self.counts = self.counts + finite
        self.step_sums, self.step_counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)

    def forward(self, losses: Mapping[str, Tensor], drawn: Collection[str]) -> Tensor:
        self._note({name: loss.detach().mean() for name, loss in losses.items()}, drawn)
        return super().forward(losses, drawn)

    def task_weights(self) -> dict[str, Tensor]:
        return dict(zip(self.tasks, self.weights, strict=True))

    def changing_weights(self) -> dict[str, Tensor]:
        return self.task_weights()

    def _note(self, means: Mapping[str, Tensor], drawn: Collection[str]) -> None:
        """Add the losses of a batch, averaged over all processes, so that all processes weigh tasks alike."""
        zero, one = self.sums.new_zeros(()), self.sums.new_ones(())  # numbers put into a tensor would wait for a GPU
        values = torch.stack([means[name].to(zero) if name in means else zero for name in self.tasks])
        if (number := world_size()) > 1:
            dist.all_reduce(values)
            values /= number
        here = torch.stack([one if name in drawn else zero for name in self.tasks])
        self.step_sums = self.step_sums + values
        self.step_counts = self.step_counts + here


class RandomWeights(TaskWeights):
    """Weights drawn again in each step, a softmax over normal numbers: a baseline that is hard to beat (Lin et al. 2022).

    The loss is the mean over the tasks of a step, weighted by K times the softmax over all K tasks. The weights are a
    function of `seed` and the number of the step.
    """

    def __init__(self, tasks: Mapping[str, Learner], seed: int = 0) -> None:
        super().__init__(tasks)
        self.seed = seed
        self.step = 0

    def get_extra_state(self) -> int:
        """The number of steps, for checkpoints."""
        return self.step

    def set_extra_state(self, state: int) -> None:
        """Go on after so many steps."""
        self.step = state

    def start_step(self) -> None:
        self.step += 1

    def task_weights(self) -> dict[str, float]:
        random = torch.Generator().manual_seed(self.seed + 1_000_003 * self.step)
        drawn = len(self.tasks) * torch.randn(len(self.tasks), generator=random).softmax(0)
        return dict(zip(self.tasks, drawn.tolist(), strict=True))
