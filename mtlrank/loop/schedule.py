"""Learning-rate schedules, as factors of the peak rate: a linear rise over the first `warmup` share of the steps, then a
course of their own.
"""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Course = Callable[[float], float]  # from the part (0 to 1) of the steps after the rise that is done to the factor


def linear_warmup(optimizer: Optimizer, total_steps: int, warmup: float = 0.1) -> LambdaLR:
    """Rise, then fall to 0 in a straight line (Devlin et al. 2019, appendix A.2)."""
    return LambdaLR(optimizer, factor(total_steps, warmup, lambda part: 1 - part))


def cosine_warmup(optimizer: Optimizer, total_steps: int, warmup: float = 0.1, floor: float = 0.0) -> LambdaLR:
    """Rise, then fall to `floor`, a share of the peak, along half a cosine (Loshchilov and Hutter 2017, eq. 5)."""
    course: Course = lambda part: floor + (1 - floor) * (1 + math.cos(math.pi * part)) / 2  # noqa: E731
    return LambdaLR(optimizer, factor(total_steps, warmup, course))


def constant_warmup(optimizer: Optimizer, total_steps: int, warmup: float = 0.1) -> LambdaLR:
    """Rise, then stay."""
    return LambdaLR(optimizer, factor(total_steps, warmup, lambda part: 1.0))


def factor(total_steps: int, warmup: float, course: Course) -> Callable[[int], float]:
    """The factor at a step, which counts from 0."""
    rising = max(1, round(warmup * total_steps))

    def at(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return course(min(1.0, (step - rising) / max(1, total_steps - rising)))

    return at
