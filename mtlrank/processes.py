"""The processes of distributed training, and the memory that worker processes need."""

import os
import shutil
from multiprocessing import parent_process
from threading import Thread

import torch.distributed as dist

SHARED_MEMORY = 1 << 28  # bytes that worker processes need to pass batches on


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def end_with_parent() -> None:
    """End this worker process as soon as the process that started it has ended in any way, also by SIGKILL.

    The workers of a `ProcessPoolExecutor` would wait for more work for ever: they hold both ends of its queue.
    """
    if (parent := parent_process()) is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


def has_shared_memory() -> bool:
    """Whether worker processes can pass batches on; with too little, they die of a bus error (containers have 64 MiB)."""
    try:
        return shutil.disk_usage("/dev/shm").free >= SHARED_MEMORY  # noqa: S108 - where torch puts what processes share
    except OSError:
        return True  # not Linux: memory is shared in another way
