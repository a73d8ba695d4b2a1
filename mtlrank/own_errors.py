"""Tells which of a user's own classes an error was raised in."""

import os
import sys
from pathlib import Path
from sysconfig import get_paths
from traceback import walk_tb
from types import FrameType
from typing import NamedTuple

from mtlrank.errors import OwnCodeError

_OURS = os.path.join(os.path.dirname(__file__), "")
_STARTERS = (f"{_OURS}entry.py", f"{_OURS}guard.py")  # which call every step
_STANDARD = tuple({path for name, path in get_paths().items() if name != "data"})
_LIGHTNING = ("pytorch_lightning.", "lightning_fabric.")


def of_own_code(error: Exception) -> OwnCodeError | None:
    """The error to report if it was raised in a user's own class that we called: the last line of that code. Else None.

    An optimizer that calls Lightning's closure is not what fails in it. If the last call of ours is of a method that a
    user's class inherits, the class is named.
    """
    calls = [_Call(frame, line) for frame, line in walk_tb(error.__traceback__)]
    ours = [number for number, call in enumerate(calls) if call.file.startswith(_OURS) and call.file not in _STARTERS]
    if not ours:
        return None
    closures = [number for number in range(ours[-1]) if calls[number].module.startswith(_LIGHTNING)]
    for call in reversed(calls[max([ours[0], *closures]) + 1 :]):
        if _is_own(call.file, call.module):
            return _own(f"{call.module}.{call.frame.f_code.co_qualname}", call, error)
    kind = type(calls[ours[-1]].frame.f_locals.get("self"))
    if _is_own(getattr(sys.modules.get(kind.__module__), "__file__", None) or "<", kind.__module__):
        return _own(f"{kind.__module__}.{kind.__qualname__}", calls[ours[-1]], error)
    return None


class _Call(NamedTuple):
    """A call of a traceback."""

    frame: FrameType
    line: int

    @property
    def file(self) -> str:
        return self.frame.f_code.co_filename

    @property
    def module(self) -> str:
        return str(self.frame.f_globals.get("__name__"))


def _is_own(file: str, module: str) -> bool:
    """Whether code is a user's own, neither ours nor a library's. torch compiles into files elsewhere."""
    is_installed = file.startswith((_OURS, *_STANDARD, "<")) or {"site-packages", "dist-packages"} & {*Path(file).parts}
    return not (is_installed or module.startswith("torch."))


def _own(what: str, call: _Call, error: Exception) -> OwnCodeError:
    where = f"{os.path.relpath(call.file)}:{call.line}"
    return OwnCodeError(f"{what}, {where}: {type(error).__name__}: {error} (MTLRANK_TRACEBACK=1 shows the calls.)")
