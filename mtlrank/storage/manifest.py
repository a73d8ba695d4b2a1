"""A folder is complete if it has a manifest, which names each file with its hash and is written last."""

import errno
import json
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mtlrank.errors import DataError
from mtlrank.storage.files import exists
from mtlrank.storage.local import (
    file_hash,
    leftovers,
    read_json,
    sync,
    unfinished,
    writable_folder,
    write_json,
    writing,
)
from mtlrank.storage.paths import check_relative, join, local_path

MANIFEST = "manifest.json"
_ASIDE = ".old"  # suffix of a folder that is being replaced, until the new one is in place
_SHA256 = re.compile(r"[0-9a-f]{64}")


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A new folder that takes the place of `path` (or of the target, if that is a link) if the block ends well.

    Files that a library made private get the permissions of the umask.
    """
    target = local_path(path).resolve()
    writable_folder(target.parent)
    sweep(target)
    part = unfinished(target)
    part.mkdir()
    allowed = part.stat().st_mode & 0o666
    try:
        with writing(target):
            yield part
            for inside in (*part.rglob("*"), part):
                if stat.S_IMODE(inside.stat().st_mode) == 0o600:  # as safetensors makes them
                    inside.chmod(allowed)
                sync(inside)
            _replace(target, part)
            sync(target.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def sweep(target: Path) -> None:
    """Undo what killed processes have left of replacing this folder."""
    for found in leftovers(target):
        _undo(target, found.with_name(found.name.removesuffix(_ASIDE)))


def sweep_all(parent: Path, name: str) -> None:
    """Undo what any process has left of replacing folders in `parent` whose names match a pattern.

    For who owns them alone: in a container, a killed process and the next one have the same number.
    """
    for found in parent.glob(".*.*-*.*"):
        if match := re.match(rf"\.({name})\.", found.name):
            _undo(parent / match[1], found.with_name(found.name.removesuffix(_ASIDE)))


def _undo(target: Path, part: Path) -> None:
    """Remove an unfinished folder, and put back the old one if it had been moved aside already."""
    aside = part.with_name(part.name + _ASIDE)
    if part.exists() and not target.exists():
        with suppress(OSError):  # there is none, or another process was faster
            aside.rename(target)
    for leftover in (part, aside):
        shutil.rmtree(leftover, ignore_errors=True)


def _replace(target: Path, part: Path) -> None:
    """Move `part` to `target`. If another process has put an equal folder there, that one stays."""
    aside = part.with_name(part.name + _ASIDE)
    while True:
        try:
            part.rename(target)  # fails if there is a folder that is not empty
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if are_same(target, part):
            break
        shutil.rmtree(aside, ignore_errors=True)  # from the round before, which another process has won
        with suppress(FileNotFoundError):  # another process has just moved it
            target.rename(aside)
    for leftover in (part, aside):
        shutil.rmtree(leftover, ignore_errors=True)


def are_same(target: Path, other: Path) -> bool:
    """Whether both have the same manifest, and `target` is undamaged."""
    try:
        return (target / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes() and bool(read_manifest(target))
    except (OSError, DataError):  # such as when another process moves it now
        return False


def write_manifest(folder: Path, description: dict[str, Any]) -> dict[str, str]:
    """Write a folder's manifest, `description` and the hashes of all files, and return the hashes. Call it last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    hashes = {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
    write_json(folder / MANIFEST, {**description, "files": hashes})
    return hashes


def is_complete(folder: str | Path) -> bool:
    """Whether a folder, local or on Google Cloud Storage, has a manifest. Nothing is read."""
    return exists(join(folder, MANIFEST))


def state_of(folder: Path) -> str:
    """What a folder holds: the hash of its manifest, which is written last. Empty if it has none."""
    return file_hash(folder / MANIFEST) if (folder / MANIFEST).is_file() else ""


def check_state(folder: Path, state: str) -> None:
    """Raise `DataError` if a folder was replaced since `state_of` gave its `state`: parts of both may have been read."""
    if state_of(folder) != state:
        raise DataError(
            f"{folder} was replaced or removed while it was read. The same command starts again, with what is there now."
        )


@contextmanager
def unchanged(folder: Path) -> Iterator[str]:
    """Gives the state of a folder, and refuses the block if it is another afterwards, also where that made it fail."""
    state = state_of(folder)
    try:
        yield state
    except (OSError, KeyError, RuntimeError, ValueError):
        check_state(folder, state)
        raise
    check_state(folder, state)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder, after checking that each file still has its hash."""
    folder = local_path(folder)
    manifest: Any = read_json(folder / MANIFEST)
    for name, expected in _files(manifest, folder).items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing although its manifest lists it. Make {folder} again.")
        if file_hash(path) != expected:
            raise DataError(
                f"{path} was changed or damaged: its sha256 does not match the manifest. Make {folder} again."
            )
    return dict(manifest)


def listed_files(manifest: bytes, folder: object) -> dict[str, str]:
    """The file names and sha256 hashes in the bytes of a manifest, which may come from anyone."""
    try:
        description = json.loads(manifest)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{folder}/{MANIFEST} is not valid JSON: {error}. Make {folder} again.") from error
    return _files(description, folder)


def _files(manifest: Any, folder: object) -> dict[str, str]:
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(_SHA256.fullmatch(str(value)) for value in files.values()):
        raise DataError(f"{folder}/{MANIFEST} is not a manifest. Make {folder} again.")
    for name in files:
        if check_relative(name, f"{folder}/{MANIFEST}") == MANIFEST:
            raise DataError(f"{folder}/{MANIFEST} lists itself, which no manifest can. Make {folder} again.")
    return files
