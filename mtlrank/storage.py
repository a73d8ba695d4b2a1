"""One way to read and write a path. Files appear whole or not at all; a manifest with hashes is written last."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtlrank.errors import DataError, StorageError

MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def home() -> Path:
    """Where mtlrank keeps what it can make again: `$MTLRANK_HOME`, else `~/.cache/mtlrank`."""
    return Path(os.environ.get("MTLRANK_HOME") or Path.home() / ".cache" / "mtlrank")


def safe_name(name: str, what: str) -> str:
    """`name` if it can be a file name, a metric key and a module name at once; a clear error otherwise."""
    if not _NAME.fullmatch(name):
        raise StorageError(
            f"{what} {name!r} cannot be used as a name: expected letters, digits, '-' or '_' (1 to 63, no dot or slash)."
        )
    return name


def local_path(path: str | Path) -> Path:
    """The local path that `path` names."""
    if "://" in str(path):
        raise StorageError(f"{str(path)!r} is a URL: expected a local path. Download it first.")
    return Path(path)


def writable_folder(path: str | Path) -> Path:
    """Make the folder `path` and prove that a file can be written there, before any work is done."""
    folder = local_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise StorageError(
            f"Cannot write to the folder {str(folder)!r}: {error.strerror}. Choose another one, or fix its permissions."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole: beside its place first, then renamed, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    """Write JSON, with sorted keys unless their order says something, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or broken one is the user's to mend, so it is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: expected a file that an earlier step writes.") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}. Run the step that writes it again.") from error


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Twelve hexadecimal digits that stand for a JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `path` only when the block ends well."""
    target = local_path(path)
    writable_folder(target.parent)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    part.chmod(0o755)
    try:
        yield part
        _replace(target, part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _replace(target: Path, part: Path) -> None:
    """Put `part` in the place of `target`. If another process was faster with the same, its folder stays."""
    manifests = [folder / MANIFEST for folder in (target, part)]
    if all(path.exists() for path in manifests) and manifests[0].read_bytes() == manifests[1].read_bytes():
        shutil.rmtree(part)
        return
    aside = part.with_name(part.name + ".old")
    if target.exists():
        target.rename(aside)
    part.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def write_manifest(folder: Path, description: dict[str, Any]) -> None:
    """Describe a folder and hash its files. Written last: a folder without a manifest is not finished."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    hashes = {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
    write_json(folder / MANIFEST, {**description, "files": hashes})


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The description of a folder, after checking that each file still has the bytes that were written."""
    folder = local_path(folder)
    manifest: Any = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise DataError(f"{folder / MANIFEST} is not a manifest. Make {folder} again.")
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing although its manifest lists it. Make {folder} again.")
        if file_hash(path) != expected:
            raise DataError(f"{path} was changed or damaged: its sha256 is not the manifest's. Make {folder} again.")
    return manifest
