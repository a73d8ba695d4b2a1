"""Stopping on SIGTERM (as Kubernetes sends) or Ctrl-C: all processes stop together, between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from mtlrank.errors import InterruptedRunError, SigTerm, TerminatedError

_AGAIN = "stopped by {}: the same command{} continues from here."


class StopSignals:
    """A context manager that records signals, so that the process does not die in the middle of a step.

    Lightning's own handler talks to the other processes from inside the signal, which hangs when only one of several
    processes gets it. Here a signal only sets a flag, and the processes compare theirs at points that all of them pass.
    For one that comes after the last of these points there is `raise_noted`.
    """

    def __init__(self, *, forced: bool = False) -> None:
        self._without = " without force=true" if forced else ""
        self.noted = 0  # the signal that came; 0 for none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def listen(self) -> None:
        """Install our signal handlers, also in place of later ones. Only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                handler = signal.signal(number, self._note)
                self._before.setdefault(number, handler)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Around what follows the training, which a signal ends at once: the error says how to continue."""
        try:
            yield
        except SigTerm:
            raise self.error(signal.SIGTERM) from None
        except KeyboardInterrupt:
            raise self.error(signal.SIGINT) from None

    def raise_noted(self) -> None:
        """Raise the error of a signal that nothing has looked at, once the state is saved."""
        if self.noted:
            raise self.error(self.noted)

    def error(self, number: int) -> TerminatedError:
        """The error to raise for a signal, once the state is saved."""
        if number == signal.SIGINT:
            return InterruptedRunError(_AGAIN.format("Ctrl-C", self._without))
        return TerminatedError(_AGAIN.format("SIGTERM", self._without))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.noted:
            raise InterruptedRunError("stopped at once: the same command continues from the last checkpoint.")
        self.noted = number
