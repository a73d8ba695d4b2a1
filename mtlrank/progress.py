"""Messages on stderr: what happens, what may be wrong, and the progress of a long job with the time left.

Stdout is for results that programs read: tables, `results: <folder>`.
"""

import os
import sys
import time


def write_line(text: str) -> None:
    """Print a line of this process in one piece: unbuffered, another process could print before its line end."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say(text: str) -> None:
    """Print what happens. Of several processes that train together only the first one does."""
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":  # set by torchrun, and by Lightning
        write_line(text)


def warn(text: str) -> None:
    """Print what may be wrong: something is ignored, missing or unusual. The line is marked as those of errors are."""
    say(f"mtlrank: {text}")


class Progress:
    """Counts what a job has done and prints its progress now and then; without a `what` it prints nothing.

    The time left is computed from a `total`, or from the `share` of the job that is done. What was `done` before the start
    does not count for the pace.
    """

    SECONDS = 10.0  # between two lines in the first ten minutes; grows to a minute within an hour

    def __init__(self, what: str, unit: str, total: int | None = None, done: int = 0) -> None:
        self.what = what
        self.unit = unit
        self.total = total
        self.done = self._before = done
        self.share: float | None = None
        self._start = self._printed = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more units as done."""
        self.done += amount
        if self.is_due():
            self.tell()

    def is_due(self) -> bool:
        """Whether it is time for a line."""
        now = time.monotonic()
        growth = min(max((now - self._start) / 600, 1), 6)
        return bool(self.what) and now - self._printed >= self.SECONDS * growth

    def tell(self) -> None:
        """Print a line now."""
        self._printed = time.monotonic()
        say(self.line(self._printed - self._start))

    def line(self, seconds: float) -> str:
        """`prepare trec2019/train: 12,800 rows, 3,200 rows/s, about 1 min left`, after so many seconds."""
        done = self.done - self._before
        share = self.share if self.total is None else min(1.0, done / max(1, self.total - self._before))
        rate = done / max(seconds, 1e-9)
        of = "" if self.total is None else f"/{self.total:,}"
        pace = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        left = f", {time_left(seconds * (1 - share) / share)}" if share else ""
        return f"{self.what}: {self.done:,}{of} {self.unit}, {pace} {self.unit}/s{left}"


def time_left(seconds: float) -> str:
    """`about 12 min left`: rounded, as it is an estimate."""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"
