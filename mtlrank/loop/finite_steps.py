"""Steps whose gradients are not finite are skipped, and reported with the samples that they came from."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from mtlrank.errors import DivergedError
from mtlrank.processes import of_all_processes, rank
from mtlrank.progress import write_line
from mtlrank.words import listed

_SHOWN = 5  # samples of a bad step that are named


class Learnt(NamedTuple):
    """The losses that one step learns from."""

    step: int
    losses: list[tuple[str, Tensor, Tensor]]  # task, loss of each sample, sample ids


class FiniteSteps:
    """Skips a step if the norm of its gradients is NaN or infinite, and stops after more than `most` such steps.

    The processes have averaged their gradients, so the norm is the same on all of them and they skip together; they
    communicate only to name the samples. On a GPU a fused optimizer skips the step itself (as it does for a gradient
    scaler), and the norm is checked one step later, when it has arrived: no step waits for the device.
    """

    def __init__(self, most: int, name_of: Callable[[str, int], str]) -> None:
        self.most = most
        self.name_of = name_of
        self.skipped = 0  # steps, in this attempt
        self.skipped_before = 0  # in attempts that this one continues
        self.known = set[str]()  # tasks that were learnt before this attempt
        self.learnt = Counter[str]()  # losses of each task, in this attempt and this process
        self._wrong = Counter[str]()  # those that were not finite
        self._waiting: list[tuple[torch.cuda.Event, Tensor, Learnt]] = []

    def check(self, norm: Tensor, optimizer: Optimizer, learnt: Learnt) -> None:
        """Check the norm of the gradients that the optimizer is about to use."""
        for name, losses, _ in learnt.losses:
            self.learnt[name] += len(losses)
        wrong = ~torch.isfinite(norm)
        if norm.is_cuda and optimizer.defaults.get("fused"):
            optimizer.found_inf = wrong.float()  # type: ignore[attr-defined]
            self.check_pending()
            arriving = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(wrong, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._waiting.append((event, arriving, learnt))
            return
        if bool(wrong):
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    weight.grad = None
            self._report(learnt)

    def require_some(self, steps: int) -> None:
        """Raise `DivergedError` if all `steps` so far were skipped."""
        self.check_pending()
        if 0 < steps <= self.skipped_before + self.skipped:
            raise DivergedError(
                f"Nothing was learnt: all {steps} steps so far were skipped, as their gradients are not finite (see "
                "above). Look for NaN in classes of your own (pooler, head, task, combiner) and in labels, or lower "
                "loop.optimizer.lr."
            )

    def never_finite(self, name: str) -> str:
        """A sentence that says so if no loss of a task was finite so far; else empty."""
        if name in self.known or not 0 < self.learnt[name] <= self._wrong[name]:
            return ""
        return (
            f"The losses of {name!r} were never finite: look for NaN in its head, its loss and its labels, not at the "
            "learning rate."
        )

    def check_pending(self) -> None:
        """Check the steps whose norms were still on their way from the device."""
        for event, wrong, learnt in self._waiting:
            event.synchronize()
            if bool(wrong):
                self._report(learnt)
        self._waiting.clear()

    def _report(self, learnt: Learnt) -> None:
        self.skipped += 1
        mine = [line for line in (self._bad_losses(*part) for part in learnt.losses) if line]
        wrong = [line for lines in of_all_processes(mine) for line in lines]
        where = "; ".join(wrong) or f"the gradients of {', '.join(name for name, *_ in learnt.losses)}, not the losses"
        message = f"step {learnt.step} is not finite: {where}"
        if self.skipped > self.most:
            names = dict.fromkeys(name for name, *_ in learnt.losses)
            never = " ".join(said for name in names if (said := self.never_finite(name)))
            way_out = never or "Lower loop.optimizer.lr, use trainer.precision=32-true, or check these samples."
            raise DivergedError(
                f"{message}. This is bad step {self.skipped}, but training.max_bad_steps is {self.most}. Checkpoints are "
                f"from before it. {way_out}"
            )
        if rank() == 0:
            write_line(f"mtlrank: {message}; the step is skipped ({self.skipped} of {self.most})")

    def _bad_losses(self, name: str, losses: Tensor, samples: Tensor) -> str:
        wrong = samples[~torch.isfinite(losses)].tolist()
        if not wrong:
            return ""
        self._wrong[name] += len(wrong)
        names = [self.name_of(name, sample) for sample in wrong]
        return f"{len(wrong)} of {len(losses)} losses of {name!r} ({listed(names, _SHOWN)})"


def gradient_norm(weights: Iterable[Tensor], clip: float | None) -> Tensor:
    """The norm of all gradients together, which are scaled down to `clip` if they are larger."""
    learning = [weight for weight in weights if weight.grad is not None]
    if clip:
        return torch.nn.utils.clip_grad_norm_(learning, clip)
    return torch.nn.utils.get_total_norm([weight.grad for weight in learning if weight.grad is not None])
