"""The datamodule: loaders whose samplers make the batches, and whose position can be saved."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from mtlrank.batch import MTLBatch
from mtlrank.datamodule.dataset import MTLDataset
from mtlrank.datamodule.sampler import LongestFirst, MTLSampler, Sequential
from mtlrank.errors import ConfigError, UserError
from mtlrank.own_parts import instance_of
from mtlrank.processes import SHARED_MEMORY, has_shared_memory, rank, world_size
from mtlrank.progress import warn


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


class MTLDataModule(pl.LightningDataModule):
    """Train, validation and test loaders over one mixture of opened datasets.

    Samplers come as functions of the arguments of `MTLSampler`, of which `max_tokens`, `length_window` and `one_task` are
    for training.
    """

    def __init__(
        self,
        dataset: MTLDataset,
        train_sampler: Callable[..., MTLSampler],
        val_sampler: Callable[..., MTLSampler],
        test_sampler: Callable[..., MTLSampler],
        batch_size: int,
        eval_batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        max_tokens: int | None = None,
        length_window: int = 0,
        one_task: bool = False,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.samplers = {"train": train_sampler, "val": val_sampler, "test": test_sampler}
        self.batch_sizes = {"train": batch_size, "val": eval_batch_size, "test": eval_batch_size}
        self.seed = seed
        self.budget = {"max_tokens": max_tokens, "length_window": length_window, "one_task": one_task}
        if num_workers and not has_shared_memory():
            warn(
                f"/dev/shm has less than {SHARED_MEMORY >> 20} MiB free, too little for worker processes: "  # noqa: S108 - a message
                "datamodule.num_workers=0 is used. In a pod, mount an emptyDir with medium Memory there."
            )
            num_workers = 0
        self.num_workers = num_workers
        self.epochs = 1.0  # of the whole training: some samplers need to know
        self.accumulated = 1  # batches of each process in an optimizer step of training
        self.most_batches: int | None = None  # of each process in an epoch of training, if a limit ends it
        self._training: MTLLoader | None = None
        self._start = (0, 0)

    def loader(self, split: str) -> MTLLoader:
        """The loader of a split, for this process's share of the batches."""
        return MTLLoader(self.dataset.split(split), self._sampler(split, rank(), world_size()), self.num_workers)

    def num_batches(self, split: str, world_size: int = 1) -> int:
        """Batches of an epoch on each of `world_size` processes."""
        return len(self._sampler(split, 0, world_size))

    def _sampler(self, split: str, rank: int, world_size: int) -> MTLSampler:
        data = self.dataset.split(split)
        make = self.samplers[split]
        if split != "train":
            check_judges(split, make)
        more: dict[str, Any] = self.budget if split == "train" else {}
        try:
            sampler = make(
                data.sizes,
                self.batch_sizes[split],
                seed=self.seed,
                rank=rank,
                world_size=world_size,
                lengths=data.lengths,
                about=data.about,
                training_epochs=self.epochs,
                **more,
            )
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise ConfigError(
                f"datamodule.{split}_sampler: {_name(make)} does not take its settings: {error}."
            ) from error
        checked: MTLSampler = instance_of(f"datamodule.{split}_sampler", sampler, MTLSampler, "sizes")
        if split == "train":
            checked.accumulated, checked.most_batches = self.accumulated, self.most_batches
        if checked.num_samples() == 0:
            raise ConfigError(f"No dataset has samples in split {split!r}.")
        return checked

    def start_at(self, epoch: int, batches: int = 0) -> None:
        """Start training here. The training loader may exist already or be made later."""
        self._start = epoch, batches
        if self._training is not None:
            self._training.start_at(epoch, batches)

    def train_dataloader(self) -> MTLLoader:
        self._training = self.loader("train")
        if rank() == 0:
            for remark in self._training.mtl_sampler.remarks():
                warn(remark)
        self._training.start_at(*self._start)
        return self._training


def check_judges(split: str, make: Callable[..., MTLSampler]) -> None:
    """Raise `ConfigError` for a sampler that does not take every sample once."""
    if getattr(make, "func", make) not in (Sequential, LongestFirst):
        raise ConfigError(
            f"datamodule.{split}_sampler is {_name(make)}, but judging takes every sample once. Expected longest_first "
            "or sequential."
        )


def _name(make: Callable[..., MTLSampler]) -> str:
    """The name of a sampler's class, or of the function that makes it."""
    return str(getattr(getattr(make, "func", make), "__name__", make))


def _leave_signals(number: int) -> None:
    """Leave to the main process, which ends its workers, what a terminal or a scheduler sends to all processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    """Batches come assembled from the dataset."""
    return batch
