"""Publishes a local folder. Its manifest arrives last, so that half a folder is never taken for a whole one."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mtlrank.errors import ConflictError, DataError, StorageError
from mtlrank.storage.local import locked, sync, system_errors
from mtlrank.storage.manifest import MANIFEST, are_same, listed_files, new_folder, read_manifest
from mtlrank.storage.parallel import in_parallel
from mtlrank.storage.paths import Place, parse
from mtlrank.storage.versions import ABSENT, Version

if TYPE_CHECKING:
    from mtlrank.storage.digest import Digest


def publish_folder(folder: str | Path, path: str | Path, *, repair: bool = False) -> None:
    """Make a local folder with a manifest appear at `path`. A publish that was killed continues where it was.

    If `path` has the same manifest already, that is success; another manifest is a ConflictError, because somebody may be
    reading that folder. With `repair`, whatever else lies at `path` is a damaged copy of this folder: it is replaced.
    """
    source, target = Path(folder), parse(path)
    if source == target:
        return
    manifest = _manifest(source)
    if isinstance(target, Path):
        with system_errors(f"publish {source} to {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.parent):
                _copy(source, target, manifest, repair)
    else:
        _upload(source, target, manifest, repair)


def _manifest(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise DataError(f"{folder / MANIFEST} is missing: expected a finished folder. Make {folder} again.") from error


def _refuse_another(target: Path | Place, found: bytes | None, manifest: bytes) -> None:
    if found not in (None, manifest):
        raise ConflictError(
            f"{target} contains another folder already. Choose another path, or remove that folder first."
        )


def _copy(source: Path, target: Path, manifest: bytes, repair: bool) -> None:
    if repair:
        if are_same(target, source):
            return
    elif (target / MANIFEST).is_file():
        _refuse_another(target, (target / MANIFEST).read_bytes(), manifest)
        read_manifest(target)
        return
    elif target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise StorageError(f"{target} contains other files. Choose another path, or remove them first.")
    with new_folder(target) as part:
        for name in [*listed_files(manifest, source), MANIFEST]:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, part / name)
            sync(part / name)
        read_manifest(part)


def _upload(source: Path, target: Place, manifest: bytes, repair: bool) -> None:
    from mtlrank.storage import gcs, upload
    from mtlrank.storage.digest import Digest, digest

    files = listed_files(manifest, source)
    found, version = gcs.read(target.child(MANIFEST))
    if not repair:
        _refuse_another(target, found, manifest)
    there = gcs.list_objects(target)

    def send(name: str) -> Digest:
        path, stored = source / name, there.get(name)
        with system_errors(f"read {path}"):
            with path.open("rb") as file:
                content = digest(file)
            if content.sha256 != files[name]:
                raise DataError(
                    f"{path} was changed or damaged: its sha256 does not match the manifest. Make {source} again."
                )
            if stored is None or not stored.holds(content):
                if stored and not repair:  # left by a publish that was killed, or that has finished meanwhile
                    _refuse_another(target, gcs.read(target.child(MANIFEST))[0], manifest)
                upload.write_file(target.child(name), path, content, stored.version if stored else ABSENT)
        return content

    sent = in_parallel(send, files)
    _check_sent(target, sent)
    _write_manifest(target, manifest, ABSENT if found == manifest else version)
    try:
        _check_sent(target, sent)  # again: another publish may have overwritten a file before it saw the manifest
    except ConflictError:
        gcs.delete(target.child(MANIFEST))
        raise


def _check_sent(target: Place, sent: Mapping[str, "Digest"]) -> None:
    """Refuse a folder in which another process has replaced our files."""
    from mtlrank.storage import gcs

    there = gcs.list_objects(target)
    for name, content in sent.items():
        if name not in there or not there[name].holds(content):
            raise ConflictError(f"{target.child(name)} was changed by another process meanwhile. Publish again.")


def _write_manifest(target: Place, manifest: bytes, expected: Version) -> None:
    from mtlrank.storage import gcs, upload

    try:
        upload.write(target.child(MANIFEST), manifest, expected)
    except ConflictError:
        _refuse_another(target, gcs.read(target.child(MANIFEST))[0], manifest)
        raise
