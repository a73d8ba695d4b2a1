"""The datamodule: one mixture of datasets for Lightning's trainer."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from mtlrank.datamodule.dataset import MTLDataset
from mtlrank.datamodule.loader import MTLLoader
from mtlrank.datamodule.sampler import MTLSampler, check_once, sampler_name
from mtlrank.errors import ConfigError, UserError
from mtlrank.own_parts import instance_of
from mtlrank.processes import SHARED_MEMORY, has_shared_memory, rank, world_size
from mtlrank.progress import warn


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
            check_once(split, make)
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
                f"datamodule.{split}_sampler: {sampler_name(make)} does not take its settings: {error}."
            ) from error
        checked = instance_of(f"datamodule.{split}_sampler", sampler, MTLSampler, "sizes")
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
