"""Many transfers at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

THREADS = 8  # more would only share the bandwidth

T = TypeVar("T")


def in_parallel(work: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
    """`work(name)` for each name, in threads. The first failure is raised, and no further work begins."""
    pool = ThreadPoolExecutor(THREADS, "storage")
    try:
        futures = {pool.submit(work, name): name for name in names}
        return {futures[future]: future.result() for future in as_completed(futures)}
    finally:
        pool.shutdown(cancel_futures=True)
