"""One step's samples, as a sampler hands them to the dataset: this process's share."""

from typing import NamedTuple


class Draw(NamedTuple):
    """One batch of an epoch; `pairs` are this process's, `totals` what all processes draw at the same time."""

    pairs: list[tuple[int, int]]  # (dataset_idx, sample_idx)
    totals: list[int]  # samples of each dataset over all processes
    weight: float  # of this batch in the mean over processes and accumulated batches
    seed: int  # of dropout
    step_totals: list[int]  # samples of each dataset in the optimizer step, over all processes and accumulated batches
    step_batches: int  # that each process accumulates in this step
    step_place: int  # of this batch among them, from 0
