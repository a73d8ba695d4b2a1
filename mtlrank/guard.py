"""A user's mistake, or a system that refuses, ends a command with one line and an exit code; a bug keeps its traceback."""

import errno
import logging
import os
import re
import select
import signal
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TextIO

from safetensors import SafetensorError

from mtlrank.errors import ResourceError, SigTerm, StorageError, TerminatedError, UserError, all_lines, one_line
from mtlrank.own_errors import of_own_code
from mtlrank.progress import write_line

_REFUSALS = (  # errors of the system that are no bug
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY),
)
_FULL = ("No space left", "Disk quota exceeded", "database or disk is full")
_ELSEWHERE = "Choose another place, or fix this one."
_NOT_READ = 128 + signal.SIGPIPE  # the exit code of a program whose output nobody reads any more
_REFUSALS_OF_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the process with one line and an exit code for an error that a user can fix; a bug keeps its traceback."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # None if closed, as by `>&-`
    try:
        yield
        sys.stdout.flush()  # here, so that a closed pipe is noticed inside this block
    except BrokenPipeError:
        if _is_read():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again to flush what is left
        sys.exit(_NOT_READ)
    except UserError as error:
        _stop(error)
    except Exception as error:
        if (explained := _of_system(error) or of_own_code(error)) is None:
            raise
        _stop(explained)
    except SigTerm:
        _stop(TerminatedError("stopped by SIGTERM: the same command continues."))
    except KeyboardInterrupt:
        write_line("mtlrank: interrupted")
        sys.exit(130)


@contextmanager
def guarded() -> Iterator[None]:
    """Around a step: errors in one line, quiet libraries, and a SIGTERM that leaves nothing half-written."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a fork after Rust threads hangs
    quiet()
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with errors_in_one_line():
            yield
    finally:  # after that, nothing would turn it into a line
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def quiet() -> None:
    """Silence library messages that users cannot act on."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # also read by transformers
    if "huggingface_hub" in sys.modules:  # it has read that already
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    # The second one too, as Lightning sets the level of the first one if it is imported later.
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|torch|lightning_fabric|lightning_utilities")


def _is_read() -> bool:
    """Whether stdout is still read; `head` closes it after some lines."""
    stdout = select.poll()
    stdout.register(sys.stdout, 0)  # errors are always reported
    return not stdout.poll(0)


def _of_system(error: Exception) -> UserError | None:
    """The error to report if the system refused something (disk, memory); None for other errors."""
    is_plain = type(error) is Exception  # as tokenizers raises
    if (is_plain or isinstance(error, OSError | sqlite3.OperationalError | SafetensorError)) and (
        reason := _refusal(error)
    ):
        notes = [note for note in getattr(error, "__notes__", ()) if note.removeprefix("while writing ") not in reason]
        noted = "".join(f" ({note})" for note in notes)
        way_out = "Free some space, or choose another place." if reason.startswith(_FULL) else _ELSEWHERE
        return StorageError(f"Cannot read or write: {reason}{noted}. {way_out}")
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):  # of Path.home
        return StorageError(
            "This user has no home folder, where libraries keep files: set HOME to one that can be written."
        )
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):  # of Path.resolve
        return StorageError(f"Cannot read or write: {one_line(error)}. {_ELSEWHERE}")
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):  # torch raises it anywhere
        return ResourceError(
            f"A process that assembles batches died: {all_lines(error).rstrip('.')}. Set datamodule.num_workers=0 (batches "
            "come from memory-mapped tokens, so it costs little), or give the machine more memory."
        )
    if type(error).__name__ == "OutOfMemoryError":  # by name, as not every command loads torch
        way_out = "Use smaller batches: training.eval_batch_size in training, batch_size in other commands."
        return ResourceError(f"The GPU ran out of memory: {one_line(error)} {way_out}")
    return None


def _refusal(error: Exception) -> str:
    """Why the system refuses to read or write; empty for other errors."""
    if isinstance(error, sqlite3.OperationalError):
        primary = error.sqlite_errorcode & 0xFF  # the rest says which call of the system failed
        return str(error) if primary in _REFUSALS_OF_SQLITE else ""
    if isinstance(error, OSError) and error.errno is not None:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        return reason if error.errno in _REFUSALS else ""
    # Safetensors has its own words, and shutil.copytree quotes an error for each file.
    found = re.search(r"(?:os error|Errno) (\d+)", str(error))
    return os.strerror(int(found[1])) if found and int(found[1]) in _REFUSALS else ""


def _terminate(number: int, frame: FrameType | None) -> None:
    """End as after an error, so that nothing half-written stays. Training has its own handler, to end between two steps."""
    raise SigTerm


def _stop(error: UserError) -> NoReturn:
    """Print an error in one line and exit."""
    if os.environ.get("MTLRANK_TRACEBACK"):
        raise error
    write_line(f"mtlrank: {' '.join(str(error).split())}")
    sys.exit(error.exit_code)
