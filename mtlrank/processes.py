"""The processes that learn together, and those that hand batches over."""

import shutil

import torch.distributed as dist

SHARED_MEMORY = 1 << 28  # that worker processes need to hand batches over, in bytes


def world_size() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def has_shared_memory(folder: str = "/dev/shm") -> bool:  # noqa: S108 - where torch puts what processes share
    """Whether worker processes can hand batches over; without room they die of a bus error (containers have 64 MiB)."""
    try:
        return shutil.disk_usage(folder).free >= SHARED_MEMORY
    except OSError:
        return True  # another system, which shares memory in its own way
