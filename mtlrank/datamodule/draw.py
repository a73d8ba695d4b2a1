"""One step's samples, as a sampler hands them to the dataset: this process's share."""

from typing import NamedTuple


class Draw(NamedTuple):
    """One batch of an epoch; `pairs` are this process's, `totals` what all processes draw in the same step."""

    pairs: list[tuple[int, int]]  # (dataset_idx, sample_idx)
    totals: list[int]  # samples of each dataset over all processes
    weight: float  # of this batch in the mean over processes
    seed: int  # of dropout
