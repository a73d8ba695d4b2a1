"""Lines that say how far a long job is."""

import sys
import time

_SECONDS = 10.0  # between two lines


class Progress:
    """Counts pieces of work that take about as long as each other, and says now and then how long the rest will take."""

    def __init__(self, what: str, total: float) -> None:
        self.what = what
        self.total = total
        self.done = 0.0
        self.started = self.said = time.monotonic()

    def advance(self, amount: float) -> None:
        """Some more is done."""
        self.done += amount
        now = time.monotonic()
        if now - self.said >= _SECONDS:
            self.said = now
            left = (now - self.started) / self.done * (self.total - self.done)
            print(f"{self.what}: {self.done / self.total:.0%}, {left:,.0f} s left", file=sys.stderr, flush=True)
