"""Removal of folders."""

import shutil
from pathlib import Path

from mtlrank.storage.local import system_errors
from mtlrank.storage.manifest import MANIFEST
from mtlrank.storage.parallel import in_parallel
from mtlrank.storage.paths import parse


def remove_folder(path: str | Path) -> None:
    """Remove a folder. Its manifest goes first, so that a removal that is killed leaves no folder that looks complete."""
    folder = parse(path)
    if isinstance(folder, Path):
        with system_errors(f"remove {folder}"):
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        return
    from mtlrank.storage import gcs

    gcs.delete(folder.child(MANIFEST))
    in_parallel(lambda name: gcs.delete(folder.child(name)), gcs.list_objects(folder))
