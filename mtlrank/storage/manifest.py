"""How a folder shows that it is complete: its manifest names each file with its hash, and is written last."""

import glob
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtlrank.errors import DataError
from mtlrank.storage.local import file_hash, read_json, sync, writable_folder, write_json
from mtlrank.storage.paths import check_relative, local_path

MANIFEST = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `path` only when the block ends well.

    It and its files may be used by whom the umask says, also those that a library wrote for their owner alone.
    """
    target = local_path(path)
    writable_folder(target.parent)
    _sweep(target)
    part = target.parent / f".{target.name}.{_process(os.getpid())}.{secrets.token_hex(8)}"
    part.mkdir()
    allowed = part.stat().st_mode & 0o666
    try:
        yield part
        for inside in (*part.rglob("*"), part):
            if stat.S_IMODE(inside.stat().st_mode) == 0o600:  # safetensors' choice
                inside.chmod(allowed)
            sync(inside)
        _replace(target, part)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _process(number: int) -> str:
    """A process of this machine, in the name of the folder that it fills."""
    return f"{socket.gethostname()}-{number}"


def _sweep(target: Path) -> None:
    """Remove what killed processes of this machine have left of the same folder."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.{glob.escape(socket.gethostname())}-*.*"):
        number = part.name.removeprefix(f".{target.name}.{socket.gethostname()}-").partition(".")[0]
        if number.isdigit() and not Path(f"/proc/{number}").exists() and Path("/proc/self").exists():
            shutil.rmtree(part, ignore_errors=True)


def _replace(target: Path, part: Path) -> None:
    """Put `part` in the place of `target`. If another process was faster with the same, its folder stays."""
    manifests = [folder / MANIFEST for folder in (target, part)]
    if all(path.is_file() for path in manifests) and manifests[0].read_bytes() == manifests[1].read_bytes():
        try:
            read_manifest(target)
        except DataError:
            pass  # it was damaged since
        else:
            shutil.rmtree(part)
            return
    aside = part.with_name(part.name + ".old")
    if target.exists():
        target.rename(aside)
    part.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


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
