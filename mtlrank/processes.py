"""The processes of distributed training, and the memory that worker processes need."""

import os
import shutil
import time
from multiprocessing import parent_process
from threading import Thread
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")
_STARTER = "MTLRANK_STARTER"  # holds the number of the process that starts others
_GRACE = 20  # seconds
SHARED_MEMORY = 1 << 28  # bytes that worker processes need to pass batches on


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def of_all_processes(value: T) -> list[T]:
    """Each process's value, in their order. All of them must call this."""
    if world_size() == 1:
        return [value]
    gathered = [value] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


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


def end_with_starter() -> None:
    """End this process as soon as the process of mtlrank that started it for distributed training has ended in any way.

    Until both have met, torch would wait for the other one for half an hour, holding memory. Afterwards it finds out
    itself, and has the time to say so.
    """
    starter = os.getppid()

    def follow() -> None:
        while os.getppid() == starter:
            time.sleep(1)
        time.sleep(_GRACE)
        os._exit(1)

    is_first = os.environ.get("LOCAL_RANK", "0") == "0"  # as also a run that a program starts to outlive it
    if not is_first and os.environ.get(_STARTER) == str(starter):
        Thread(target=follow, daemon=True).start()
    os.environ[_STARTER] = str(os.getpid())  # for those that Lightning starts from here


def has_shared_memory() -> bool:
    """Whether worker processes can pass batches on; with too little, they die of a bus error (containers have 64 MiB)."""
    try:
        return shutil.disk_usage("/dev/shm").free >= SHARED_MEMORY  # noqa: S108 - where torch puts what processes share
    except OSError:
        return True  # not Linux: memory is shared in another way
