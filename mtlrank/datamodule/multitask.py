"""The datamodule: loaders whose batches the samplers own, and whose position can be saved."""

from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from torch.utils.data import DataLoader

from mtlrank.batch import TaskBatch
from mtlrank.datamodule.dataset import MTLDataset
from mtlrank.datamodule.sampler import MTLSampler
from mtlrank.errors import ConfigError


class MTLLoader(DataLoader[dict[str, TaskBatch]]):
    """A DataLoader that knows how many batches it has delivered.

    Each iteration delivers an epoch: the next one after an epoch that was delivered whole, else the same one again, from
    its beginning or, once, from where a loaded state stood. The state holds the epoch and the position in it and nothing
    of the rank, as Lightning saves the state of rank 0 and gives it to all.
    """

    def __init__(self, dataset: Any, sampler: MTLSampler, **kwargs: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, collate_fn=_as_it_is, **kwargs)
        self.mtl_sampler = sampler
        self.epoch = 0
        self.position = 0
        self._loaded = 0

    def __iter__(self) -> Iterator[dict[str, TaskBatch]]:  # type: ignore[override]
        """The batches of the current epoch; after the last one the next epoch is current."""
        self.position, self._loaded = self._loaded, 0
        self.mtl_sampler.set_position(self.epoch, self.position)
        for batch in super().__iter__():
            self.position += 1
            if self.position == len(self.mtl_sampler):  # here, as a trainer that knows the length never asks for more
                self.epoch, self.position = self.epoch + 1, 0
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the stream of batches stands."""
        return {"seed": self.mtl_sampler.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where another loader stood."""
        if state["seed"] != self.mtl_sampler.seed:
            raise ConfigError(f"The run was sampled with seed {state['seed']}, now it is {self.mtl_sampler.seed}.")
        self.epoch, self._loaded = state["epoch"], state["position"]


class MTLDataModule(pl.LightningDataModule):
    """Train, validation and test loaders over one mixture of opened datasets.

    Samplers come as functions of (sizes, batch_size, seed, rank, world_size).
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
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.samplers = {"train": train_sampler, "val": val_sampler, "test": test_sampler}
        self.batch_sizes = {"train": batch_size, "val": eval_batch_size, "test": eval_batch_size}
        self.seed = seed
        self.num_workers = num_workers
        self._training: MTLLoader | None = None
        self._loaded: dict[str, int] | None = None

    def loader(self, split: str) -> MTLLoader:
        """The loader of a split, for this process's share of the batches."""
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        return MTLLoader(
            self.dataset.split(split), self._sampler(split, rank, world_size), num_workers=self.num_workers
        )

    def num_batches(self, split: str, world_size: int = 1) -> int:
        """Batches of an epoch on each of `world_size` processes."""
        return len(self._sampler(split, 0, world_size))

    def _sampler(self, split: str, rank: int, world_size: int) -> MTLSampler:
        sizes, batch_size = self.dataset.split(split).sizes, self.batch_sizes[split]
        sampler = self.samplers[split](sizes, batch_size, seed=self.seed, rank=rank, world_size=world_size)
        if sampler.num_samples() == 0:
            raise ConfigError(f"No dataset has samples in split {split!r}.")
        return sampler

    def train_dataloader(self) -> MTLLoader:  # noqa: D102
        self._training = self.loader("train")
        if self._loaded is not None:
            self._training.load_state_dict(self._loaded)
        return self._training

    def state_dict(self) -> dict[str, Any]:
        """Where training stands. Kept here, as Lightning gives a loader its own state back only at some of its starts."""
        return {"train": self._training.state_dict()} if self._training else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another datamodule stood, whether the loader is there already or comes later."""
        self._loaded = state.get("train")
        if self._training and self._loaded:
            self._training.load_state_dict(self._loaded)

    def val_dataloader(self) -> MTLLoader:  # noqa: D102
        return self.loader("val")

    def test_dataloader(self) -> MTLLoader:  # noqa: D102
        return self.loader("test")


def _as_it_is(batch: Any) -> Any:
    """Batches come assembled from the dataset."""
    return batch
