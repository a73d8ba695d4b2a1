"""What a run on this machine prints: when a step starts and ends, and what the step says itself."""

import builtins
import io
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

_LOGGED = re.compile(r"(\d\d:\d\d:\d\d)\.\d+ - (?:INFO - )?")  # how kfp begins its own lines
_COLOUR = re.compile(r"\033\[\d*m")
_DUMP = "Got executor_input:"  # followed by the step's inputs, over dozens of lines


@contextmanager
def readable() -> Iterator[None]:
    """A context in which kfp's local runner prints only what its users need, not its developers.

    Kfp replaces the logging and `print` of the whole process for each step, and resets them, so that parallel steps lose
    lines: then it uses those that are set here. Afterwards all is as it was.
    """
    root, original_print = logging.getLogger(), builtins.print
    level, handlers = root.level, root.handlers
    try:
        with redirect_stdout(_Lines(sys.stdout)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"kfp\.local\.")  # of resources and images: none is used here
            logged = logging.StreamHandler(sys.stdout)
            logged.setFormatter(logging.Formatter("%(asctime)s.0 - %(levelname)s - %(message)s", "%H:%M:%S"))
            root.setLevel(logging.INFO)
            root.handlers = [logged]
            root.addFilter(_is_news)
            yield
    finally:
        root.removeFilter(_is_news)
        root.setLevel(level)
        root.handlers, builtins.print = handlers, original_print


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of kfp says more than where a step's outputs lie, or that all goes on as usual."""
    usual = ("Streamed logs:", " outputs:", " has no outputs", "Cleaned up workspace")
    return not any(words in record.getMessage() for words in usual)


class _Line(threading.local):
    """The unfinished line of a thread, and how deep in a dump of JSON it is: each step has a thread."""

    begun = ""
    is_dump = False
    depth = 0


class _Lines(io.TextIOBase):
    """Passes on whole lines, those of steps indented, without blank ones and without those of kfp's executor."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.line = _Line()

    def write(self, text: str) -> int:
        if self.line.begun or text.strip(" "):  # kfp prints an indentation by itself, another one for each loop
            *lines, self.line.begun = (self.line.begun + text).split("\n")
            for line in filter(self._is_shown, lines):
                self.out.write(f"{self._shown(line)}\n")
        return len(text)

    def flush(self) -> None:
        self.out.flush()

    def isatty(self) -> bool:
        return self.out.isatty()

    def _is_shown(self, line: str) -> bool:
        text, state = line.strip(), self.line
        if state.is_dump:
            state.depth += text.endswith(("{", "[")) - text.startswith(("}", "]"))
            state.is_dump = state.depth > 0
            return False
        state.is_dump = text.endswith(_DUMP)
        return bool(text.strip("-")) and not ("[KFP Executor " in text and " INFO]: " in text)

    def _shown(self, line: str) -> str:
        plain = line if self.isatty() else _COLOUR.sub("", line)
        return _LOGGED.sub(r"\1 ", plain) if _LOGGED.match(line) else f"    {plain}"
