"""How a folder shows that it is complete: its manifest names each file with its hash, and is written last."""

import errno
import glob
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mtlrank.errors import DataError
from mtlrank.storage.local import file_hash, read_json, sync, writable_folder, write_json
from mtlrank.storage.paths import check_relative, local_path

MANIFEST = "manifest.json"
_ASIDE = ".old"  # ends the name of what a new folder replaces, until that is in place
_SHA256 = re.compile(r"[0-9a-f]{64}")


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `path`, or of what that links to, only when the block ends well."""
    target = local_path(path).resolve()
    writable_folder(target.parent)
    sweep(target)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.{_process(os.getpid())}.", dir=target.parent))
    part.chmod(0o755)
    try:
        yield part
        for inside in (*part.rglob("*"), part):
            sync(inside)
        _replace(target, part)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _process(number: int) -> str:
    """A process of this machine, in the name of the folder that it fills."""
    return f"{socket.gethostname()}-{number}"


def sweep(target: Path) -> None:
    """Undo what killed processes of this machine have begun with the same folder."""
    start = f".{target.name}.{socket.gethostname()}-"
    for found in target.parent.glob(f"{glob.escape(start)}*.*"):
        number = found.name.removeprefix(start).partition(".")[0]
        if number.isdigit() and not Path(f"/proc/{number}").exists() and Path("/proc/self").exists():
            _undo(target, found.with_name(found.name.removesuffix(_ASIDE)))


def _undo(target: Path, part: Path) -> None:
    """Remove what has not taken the place of `target`, and put back what it had moved aside already."""
    aside = part.with_name(part.name + _ASIDE)
    if part.exists() and not target.exists():
        with suppress(OSError):  # there was nothing, or another process is faster
            aside.rename(target)
    for leftover in (part, aside):
        shutil.rmtree(leftover, ignore_errors=True)


def _replace(target: Path, part: Path) -> None:
    """Put `part` in the place of `target`. If another process was faster with the same, its folder stays."""
    aside = part.with_name(part.name + _ASIDE)
    while True:
        try:
            part.rename(target)  # fails if there is a folder, unless it is empty
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _are_same(target, part):
            break
        shutil.rmtree(aside, ignore_errors=True)  # of the round before: another process has put its folder there since
        with suppress(FileNotFoundError):  # another process has just moved it
            target.rename(aside)
    for leftover in (part, aside):
        shutil.rmtree(leftover, ignore_errors=True)


def _are_same(target: Path, part: Path) -> bool:
    """Whether both hold the same, by their manifests, and nothing of `target` was damaged since."""
    try:
        return (target / MANIFEST).read_bytes() == (part / MANIFEST).read_bytes() and bool(read_manifest(target))
    except (OSError, DataError):  # also if another process moves it now
        return False


def write_manifest(folder: Path, description: dict[str, Any]) -> None:
    """Describe a folder and hash its files. Written last: a folder without a manifest is not finished."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    hashes = {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
    write_json(folder / MANIFEST, {**description, "files": hashes})


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The description of a folder, after checking that each file still has the bytes that were written."""
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
    """The names and sha256 hashes that the bytes of a manifest list, whoever wrote it."""
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
