"""The processes of distributed training, and the memory that worker processes need."""

import shutil

import torch.distributed as dist

SHARED_MEMORY = 1 << 28  # bytes that worker processes need to pass batches on


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def has_shared_memory(folder: str = "/dev/shm") -> bool:  # noqa: S108 - where torch puts what processes share
    """Whether worker processes can pass batches on; with too little, they die of a bus error (containers have 64 MiB)."""
    try:
        return shutil.disk_usage(folder).free >= SHARED_MEMORY
    except OSError:
        return True  # not Linux: memory is shared in another way
