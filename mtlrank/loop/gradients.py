"""Each task's own gradient of a batch, at the shared body and at its head."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtlrank.batch import MTLBatch, TaskBatch
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import ConfigError
from mtlrank.loop.loss import ByGradient
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.own_parts import name_of, shaped


class TaskGradients(NamedTuple):
    """Gradients of the tasks' mean losses, of a batch or a step."""

    losses: dict[str, Tensor]  # of a batch by sample, (samples,); of a step their mean
    body: dict[str, list[Tensor | None]]  # of each trained weight of the body; None where the task does not reach it
    heads: dict[str, list[Tensor | None]]  # of each trained weight of the task's head

    def of_step(self, shares: Mapping[str, float], before: "TaskGradients | None") -> "TaskGradients":
        """Those of a step so far: `before`, and these of a batch that holds a share of each task's samples in the step."""
        losses = {name: loss.mean() * shares[name] for name, loss in self.losses.items()}
        body, heads = (
            {name: [_times(gradient, shares[name]) for gradient in of] for name, of in part.items()}
            for part in (self.body, self.heads)
        )
        if before is None:
            return TaskGradients(losses, body, heads)
        sums = {name: before.losses[name] + loss if name in before.losses else loss for name, loss in losses.items()}
        return TaskGradients(before.losses | sums, _added(before.body, body), _added(before.heads, heads))

    def rows(self, weights: list[nn.Parameter], names: Sequence[str]) -> Tensor:
        """(tasks, weights): the body's gradients side by side, 0 where a task does not reach."""
        rows = [
            torch.cat(
                [
                    torch.zeros_like(w).flatten() if g is None else g.flatten()
                    for g, w in zip(self.body[name], weights, strict=True)
                ]
            )
            for name in names
        ]
        return torch.stack(rows)

    def reached(self) -> list[bool]:
        """Whether any task reaches a weight of the body."""
        return [any(gradient is not None for gradient in of) for of in zip(*self.body.values(), strict=True)]

    def norms(self) -> dict[str, Tensor]:
        """The norm of each task's gradient at the body."""
        return {name: _dot(of, of).sqrt() for name, of in self.body.items()}

    def cosines(self) -> dict[tuple[str, str], Tensor]:
        """The cosine between each two tasks' gradients, over the weights that both reach; NaN if one of them is zero."""
        names, cosines = list(self.body), {}
        for number, first in enumerate(names):
            for second in names[number + 1 :]:
                both = zip(self.body[first], self.body[second], strict=True)
                shared = [(a, b) for a, b in both if a is not None and b is not None]
                a, b = [pair[0] for pair in shared], [pair[1] for pair in shared]
                cosines[first, second] = _dot(a, b) / (_dot(a, a).sqrt() * _dot(b, b).sqrt())
        return cosines


def task_gradients(model: MultiTaskModel, datasets: Mapping[str, PreparedDataset], batch: MTLBatch) -> TaskGradients:
    """Forward and backward passes for each task by itself; the weights' own `grad` is not touched."""
    by_task = TaskGradients({}, {}, {})
    body = trained(model.body)
    for name, part in batch.tasks.items():
        head = trained(model.heads[name])
        losses = losses_of(model, datasets, {name: part})[name]
        with torch.autocast(losses.device.type, enabled=False):  # as `backward`, which Lightning calls outside of it
            gradients = torch.autograd.grad(losses.mean(), [*body, *head], allow_unused=True)
        by_task.losses[name] = losses.detach()
        by_task.body[name] = list(gradients[: len(body)])
        by_task.heads[name] = list(gradients[len(body) :])
    return by_task


def combined(
    loss: ByGradient, model: MultiTaskModel, gradients: TaskGradients, names: Sequence[str]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Each weight with its gradient, from those of a step's tasks, in the order of `names`. Heads may share weights."""
    body, names = trained(model.body), [name for name in names if name in gradients.losses]
    means = torch.stack([gradients.losses[name] for name in names])
    with torch.autocast(means.device.type, enabled=False):  # gradients are combined in their own precision
        whole = loss.combine(gradients.rows(body, names), means, names)
    parts = whole.split([weight.numel() for weight in body])
    reached = zip(body, parts, gradients.reached(), strict=True)
    found = [(weight, part.view_as(weight)) for weight, part, is_reached in reached if is_reached]
    for name in names:
        heads = zip(trained(model.heads[name]), gradients.heads[name], strict=True)
        found += [(weight, torch.zeros_like(weight) if g is None else g / len(names)) for weight, g in heads]
    return found


def losses_of(
    model: MultiTaskModel, datasets: Mapping[str, PreparedDataset], batches: Mapping[str, TaskBatch]
) -> dict[str, Tensor]:
    """The loss of each sample, (samples,), by task."""
    logits, losses = model(batches), dict[str, Tensor]()
    for name, part in batches.items():
        task = datasets[name].task
        what = f"The loss of {name!r} ({name_of(task)})"
        loss = losses[name] = shaped(what, task.loss(logits[name], part), (part.num_samples,), "one number a sample")
        if not loss.requires_grad and logits[name].requires_grad:
            raise ConfigError(f"{what} has no gradient, so nothing would be learnt: is it detached from the logits?")
    return losses


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The weights that learn."""
    return [weight for weight in module.parameters() if weight.requires_grad]


def _times(gradient: Tensor | None, factor: float) -> Tensor | None:
    return gradient if gradient is None or factor == 1 else gradient * factor


def _added(
    first: Mapping[str, list[Tensor | None]], second: Mapping[str, list[Tensor | None]]
) -> dict[str, list[Tensor | None]]:
    """The sums of the gradients of each task that both have, and those of the tasks that one has."""
    both = {
        name: [b if a is None else a if b is None else a + b for a, b in zip(first[name], second[name], strict=True)]
        for name in first.keys() & second.keys()
    }
    return {**first, **second, **both}


def _dot(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> Tensor:
    products = [(a * b).sum() for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return torch.stack(products).sum() if products else torch.zeros(())
