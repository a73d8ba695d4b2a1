"""Learning-rate schedules, as factors of the peak rate."""

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def linear_warmup(optimizer: Optimizer, total_steps: int, warmup: float = 0.1) -> LambdaLR:
    """Rise from 0 over the first `warmup` share of the steps, then fall to 0 (Devlin et al. 2019, appendix A.2)."""
    return LambdaLR(optimizer, warmup_factor(total_steps, warmup))


def warmup_factor(total_steps: int, warmup: float) -> Callable[[int], float]:
    """The factor at a step, which counts from 0."""
    rising = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return max(0.0, (total_steps - step) / max(1, total_steps - rising))

    return factor
