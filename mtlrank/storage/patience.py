"""Retries, with one deadline over all tries that starts again with each progress.

The client's own retries are off, except inside a large upload: their deadline is per request, they do not check a
continued download, and they do not repeat a damaged one.
"""

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mtlrank.errors import StorageError
from mtlrank.storage.faults import explain, is_worth_retry, reason
from mtlrank.storage.paths import Place

DEADLINE_VARIABLE = "MTLRANK_STORAGE_DEADLINE"
DEADLINE = 300.0  # seconds: longer than a rolling restart of a proxy
SILENCE = 60.0  # seconds without a byte until a connection counts as cut
FIRST_WAIT = 0.5  # seconds, doubled after each try
LONGEST_WAIT = 30.0

T = TypeVar("T")


def deadline() -> float:
    """The seconds without progress until we give up: `$MTLRANK_STORAGE_DEADLINE`, else five minutes."""
    text = os.environ.get(DEADLINE_VARIABLE) or str(DEADLINE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise StorageError(
            f"{DEADLINE_VARIABLE}={text!r}: expected a number of seconds above 0, such as {DEADLINE:.0f}."
        )
    return seconds


def persist(attempt: Callable[[float], T], verb: str, place: Place, progress: Callable[[], int] = lambda: 0) -> T:
    """The result of `attempt(timeout)`, which is repeated until it succeeds, cannot succeed, or the deadline has passed.

    `progress` gives the bytes so far. Whenever they grow the deadline starts again: a long transfer over a poor connection
    is slow, not stuck.
    """
    allowed = deadline()
    start, tries, reached = time.monotonic(), 0, progress()
    while True:
        try:
            return attempt(max(0.001, min(SILENCE, start + allowed - time.monotonic())))
        except Exception as error:
            if not is_worth_retry(error):
                explained = explain(error, verb, place)
                if explained is None:
                    raise
                raise explained from error
            if progress() > reached:
                start, tries, reached = time.monotonic(), 0, progress()
            tries += 1
            wait = random.uniform(0.5, 1) * min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(tries - 1, 30))
            if time.monotonic() + wait > start + allowed:
                raise _out_of_patience(error, verb, place, tries, allowed) from error
            time.sleep(wait)


def _out_of_patience(error: Exception, verb: str, place: Place, tries: int, allowed: float) -> StorageError:
    return StorageError(
        f"Cannot {verb} {place}: gave up after {tries} tries without progress in {allowed:g} s, the last one with "
        f"{reason(error)}. Check the network, or allow more seconds with {DEADLINE_VARIABLE}."
    )
