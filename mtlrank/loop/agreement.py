"""What several processes must do together, or not at all."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from mtlrank.errors import StorageError, UserError
from mtlrank.processes import rank, world_size


class Agreement:
    """Answers that are the same on all processes, which must ask at the same points.

    They meet on the CPU: a question to the GPUs would wait for all that these still have to do.
    """

    def __init__(self) -> None:
        self._group: Any = None

    def open(self) -> None:
        """Let processes meet, if there are several by now."""
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
        """Do something on the first process; if it fails, all fail."""
        error = None
        if rank() == 0:
            try:
                work()
            except UserError as found:
                error = found
        self.raise_on_all(error)

    def raise_on_all(self, error: Exception | None) -> None:
        """Raise what went wrong on the first process, on all of them."""
        (failed,) = self.largest([int(error is not None)])
        if error is not None:
            raise error
        if failed:
            raise StorageError("The first process could not write a checkpoint; its message says why.")
