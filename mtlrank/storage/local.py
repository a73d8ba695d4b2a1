"""Files on a local disk. They appear whole or not at all, also when the machine stops in the middle."""

import glob
import hashlib
import json
import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtlrank.errors import ConflictError, DataError, StorageError
from mtlrank.progress import write_line
from mtlrank.storage.paths import local_path
from mtlrank.storage.versions import ABSENT, Version

_LONG = 86_400  # seconds; nothing is written so slowly


def home() -> Path:
    """The folder for what mtlrank can rebuild: `$MTLRANK_HOME`, else `~/.cache/mtlrank`."""
    try:
        return Path(os.environ.get("MTLRANK_HOME") or Path.home() / ".cache" / "mtlrank")
    except RuntimeError as error:
        raise StorageError(
            "This user has no home folder to keep files in: set MTLRANK_HOME to a folder that can be written."
        ) from error


@contextmanager
def system_errors(task: str) -> Iterator[None]:
    """Turn an OSError into a StorageError: a full disk or a read-only folder is not a bug."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"Cannot {task}: {reason}. Choose another place, or fix this one.") from error


def writable_folder(path: str | Path) -> Path:
    """Make the folder `path` and prove that it can be written to, before any work is done."""
    folder = local_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except FileExistsError as error:
        found = "a link to what does not exist" if folder.is_symlink() and not folder.exists() else "a file"
        raise StorageError(f"{str(folder)!r} is {found}: expected a folder. Choose another name.") from error
    except OSError as error:
        raise StorageError(
            f"Cannot write to the folder {str(folder)!r}: {error.strerror}. Choose another one{_how(folder)}, or fix its "
            "permissions."
        ) from error


def _how(folder: Path) -> str:
    """How another place of mtlrank's own folders is chosen, for a message."""
    with suppress(StorageError):
        return " by MTLRANK_HOME" if folder.is_relative_to(home()) else ""
    return ""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, then rename it, so that no reader ever sees half of it."""
    with new_file(path) as part:
        part.write_bytes(data)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Note in an error what was written: a system does not say which disk is full, nor SQLite which file."""
    try:
        yield
    except Exception as error:
        if not getattr(error, "__notes__", ()):
            error.add_note(f"while writing {path}")
        raise


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A new file that takes the place of `path` (or of the target, if that is a link) if the block ends well."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in leftovers(path):
        if left.is_file():
            left.unlink(missing_ok=True)
    part = unfinished(path)
    try:
        with writing(path):
            yield part
            put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """A new name beside `path`, for what will take its place, that says which process fills it."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}.{secrets.token_hex(8)}")


def leftovers(path: Path) -> Iterator[Path]:
    """What killed processes have left beside `path`: the unfinished, and the old that was moved aside for it.

    Of another machine, which may still write there, what nothing has changed for a day.
    """
    of_process = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]{{8}})-(\d+)\.[0-9a-f]{{16}}(\.\w+)?")
    for found in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if match := of_process.fullmatch(found.name):
            is_left = _has_ended(int(match[2])) if match[1] == _host() else _age(found) > _LONG
            if is_left:
                yield found


def _host() -> str:
    """A short name of this machine or container: within it, processes have numbers of their own."""
    numbers = ""
    with suppress(OSError):  # of another system than Linux
        numbers = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


def _has_ended(process: int) -> bool:
    return not Path(f"/proc/{process}").exists() and Path("/proc/self").exists()


def _age(path: Path) -> float:
    """Seconds since a file, or anything in a folder, was changed; 0 if it is being moved or removed now."""
    try:
        return time.time() - max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:
        return 0.0


def put_in_place(part: Path, path: Path) -> None:
    """Rename a finished file, durably: its bytes are on the disk before its name is."""
    sync(part)
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8."""
    write_whole(path, text.encode())


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file whole, as UTF-8, from an iterator of lines."""
    with new_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    """Write JSON. Equal values give equal bytes, unless `sort_keys` is false because the order has a meaning."""
    write_text(path, json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; a missing or broken one is a DataError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: expected a file that an earlier step writes.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}. Run the step that writes it again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged: expected a JSON object. Run the step that writes it again.")
    return found


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """A hash of a JSON-like value, twelve hexadecimal digits long."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def locked(folder: Path, waiting: str = "") -> Iterator[None]:
    """Let only one process of this machine into the block. The lock is on the folder itself and ends with its holder.

    Makes the folder if need be: its holder may remove it. Prints `waiting` if another process holds the lock. Without
    effect on a file system without locks.
    """
    handle = _lock(folder, waiting)
    while not _is_at(folder, handle):  # its holder has removed it meanwhile
        os.close(handle)
        handle = _lock(folder, waiting)
    try:
        yield
    finally:
        os.close(handle)


def _lock(folder: Path, waiting: str) -> int:
    """The handle of a folder that is locked, also if it is not in its place any more."""
    import fcntl  # here, so that the package imports on systems without it

    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # removed meanwhile
            handle = os.open(folder, os.O_RDONLY)
            break
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting:
            write_line(waiting)  # each process that waits
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        pass
    return handle


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextmanager
def sole_user(folder: Path, patience: float = 15.0) -> Iterator[None]:
    """Refuse the block if another process of this machine is in it with the same folder.

    `patience` (seconds) is for one that was killed, whose child processes hold the lock until they end, too.
    """
    import fcntl

    handle, waited_until = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644), time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > waited_until:
                    raise ConflictError(
                        f"Another process is working in {folder}. Wait for it, or choose another output_dir."
                    ) from error
                time.sleep(0.2)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)


def read(path: Path) -> tuple[bytes | None, Version]:
    """A file's bytes and their version."""
    with system_errors(f"read {path}"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None, ABSENT
    return data, _version(data)


def write(path: Path, data: bytes, expected: Version | None) -> Version:
    """Write a file whole, if it still has the expected version."""
    with system_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            if expected is not None:
                _check_unchanged(path, data, expected)
            write_whole(path, data)
    return _version(data)


def _check_unchanged(path: Path, data: bytes, expected: Version) -> None:
    """Refuse to overwrite a version that the writer has not read. Creating what exists already is no conflict."""
    found = read(path)[1]
    made_already = expected == ABSENT and found == _version(data)
    if found != expected and not made_already:
        raise ConflictError(f"{path} was changed by another process meanwhile. Run the same command again.")


def stamp(file: Path) -> tuple[int, int, int]:
    """Size and times of a file. ctime changes with every write; mtime can be set back."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def list_sizes(folder: Path) -> dict[str, tuple[int, datetime]]:
    """Size and time of the files below a folder, by relative name, without files that are removed meanwhile."""
    found = dict[str, tuple[int, datetime]]()
    with system_errors(f"list {folder}"):
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file():
                    status = path.stat()
                    written = datetime.fromtimestamp(status.st_mtime, UTC)
                    found[path.relative_to(folder).as_posix()] = (status.st_size, written)
    return found


def _version(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())
