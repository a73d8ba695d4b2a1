"""What a sampler asks for: the samples of one step, as far as this process learns from them."""

from typing import NamedTuple


class Draw(NamedTuple):
    """One batch of an epoch; `pairs` are this process's, `totals` what all processes draw in the same step."""

    pairs: list[tuple[int, int]]  # (dataset_idx, sample_idx)
    totals: list[int]  # samples of each dataset over all processes
    weight: float  # of this batch in the mean over processes
    seed: int  # of dropout
