"""Decisions and failures that all processes share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from mtlrank.errors import StorageError, UserError
from mtlrank.processes import rank, world_size


class Agreement:
    """Collective operations with the same result on all processes, which must call them at the same points.

    They run on the CPU: asking through the GPUs would first wait for their queued work.
    """

    def __init__(self) -> None:
        self._group: Any = None

    def open(self) -> None:
        """Create the process group, if there are several processes."""
        if world_size() > 1:
            self._group = dist.new_group(backend="gloo")

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number over all processes."""
        if self._group is None:
            return list(numbers)
        compared = torch.tensor(numbers)
        dist.all_reduce(compared, op=dist.ReduceOp.MAX, group=self._group)
        largest: list[int] = compared.tolist()
        return largest

    def on_first(self, work: Callable[[], object]) -> None:
        """Run `work` on the first process; if it fails, all processes raise."""
        error = None
        if rank() == 0:
            try:
                work()
            except UserError as failure:
                error = failure
        self.raise_on_all(error)

    def raise_on_all(self, error: Exception | None) -> None:
        """If the first process has an `error`, raise it there, and a `StorageError` on the others."""
        (failed,) = self.largest([int(error is not None)])
        if error is not None:
            raise error
        if failed:
            raise StorageError("The first process could not write a checkpoint; its message says why.")
