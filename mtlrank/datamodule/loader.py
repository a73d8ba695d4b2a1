"""Loaders whose samplers make the batches, and whose position can be saved."""

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from mtlrank.batch import MTLBatch
from mtlrank.datamodule.sampler import MTLSampler


class MTLLoader(DataLoader[MTLBatch]):
    """A DataLoader that can start in any epoch, after any number of that epoch's batches."""

    def __init__(self, dataset: Any, sampler: MTLSampler, num_workers: int = 0) -> None:
        draws: Any = sampler  # the dataset takes a whole `Draw`, not indices
        super().__init__(
            dataset,
            batch_sampler=draws,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),  # so that copies to the GPU need not wait
            worker_init_fn=_leave_signals,
        )
        self.mtl_sampler = sampler
        self.epoch = 0
        self.start = 0

    def start_at(self, epoch: int, batches: int = 0) -> None:
        """Continue with `epoch`, after `batches` of its batches (counted over all processes)."""
        self.epoch, self.start = epoch, batches

    def __iter__(self) -> Iterator[MTLBatch]:  # type: ignore[override]
        """The batches of the epoch. The next iteration repeats the epoch, unless `start_at` is called."""
        self.mtl_sampler.set_position(self.epoch, self.start)
        self.start = 0
        yield from super().__iter__()


def _leave_signals(number: int) -> None:
    """Leave to the main process, which ends its workers, what a terminal or a scheduler sends to all processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    """Batches come assembled from the dataset."""
    return batch
