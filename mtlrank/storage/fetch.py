"""Downloads of published folders. Each file is checked before it gets its name."""

from pathlib import Path
from typing import TYPE_CHECKING

from mtlrank.errors import DataError, StorageError
from mtlrank.storage.local import file_hash, home, locked, put_in_place, system_errors, write_whole
from mtlrank.storage.manifest import MANIFEST, listed_files, read_manifest
from mtlrank.storage.parallel import in_parallel
from mtlrank.storage.paths import Place, parse

if TYPE_CHECKING:
    from mtlrank.storage.gcs import Stored

TRIES = 3  # downloads of a file whose hash is wrong


def mirror(path: str | Path) -> Path:
    """The place of this machine's copy of a folder: the folder itself if it is local, else below `$MTLRANK_HOME`."""
    place = parse(path)
    return place if isinstance(place, Path) else home() / "mirror" / place.bucket / place.key


def fetch_folder(path: str | Path, target: str | Path) -> Path:
    """A local copy of a folder with a manifest: `target`, or the folder itself if it is local already.

    Only what is missing or differs is downloaded, so a fetch that was killed continues where it was. Other files in
    `target` stay.
    """
    source, target = parse(path), Path(target)
    if isinstance(source, Path):
        return source
    with system_errors(f"fetch {source} to {target}"):
        target.mkdir(parents=True, exist_ok=True)
        with locked(target):  # of several processes of one machine, one downloads and the others find the folder
            _fetch(source, target)
    return target


def check_folder(path: str | Path) -> None:
    """Raise an error if a published folder is damaged. What lies on Google Cloud Storage is fetched for that."""
    source = parse(path)
    if isinstance(source, Path):
        read_manifest(source)
        return
    from mtlrank.storage import gcs
    from mtlrank.storage.digest import digest

    copy = fetch_folder(path, mirror(path))
    there = gcs.list_objects(source)
    for name in read_manifest(copy)["files"]:  # those that were there already were not compared with the bucket's
        with (copy / name).open("rb") as file:
            if name not in there or not there[name].holds(digest(file)):
                raise DataError(f"{source.child(name)} is missing, changed or damaged. Publish the folder again.")


def _fetch(source: Place, target: Path) -> None:
    from mtlrank.storage import gcs

    manifest, _ = gcs.read(source.child(MANIFEST))
    if manifest is None:
        raise StorageError(f"{source} has no {MANIFEST}. Correct the path, or finish publishing the folder.")
    files = listed_files(manifest, source)
    paths = {name: _inside(target, name) for name in files}
    right = in_parallel(lambda name: paths[name].is_file() and file_hash(paths[name]) == files[name], files)
    wrong = [name for name in files if not right[name]]
    in_place = target / MANIFEST
    if not wrong and in_place.is_file() and in_place.read_bytes() == manifest:
        return
    in_place.unlink(missing_ok=True)
    there = gcs.list_objects(source) if wrong else {}
    if lost := [name for name in wrong if name not in there]:
        raise DataError(f"{source.child(lost[0])} is missing although its manifest lists it. Publish the folder again.")
    in_parallel(lambda name: _receive(source.child(name), there[name], paths[name], files[name]), wrong)
    write_whole(in_place, manifest)


def _inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`. Refused if a link leads elsewhere."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise StorageError(f"{path} is outside {folder}, through a link. Remove the link, or choose another folder.")
    return path


def _receive(place: Place, stored: "Stored", path: Path, sha256: str) -> None:
    """Download one file beside its place, and move it there if it has the manifest's hash."""
    from mtlrank.storage import gcs

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{sha256[:8]}.part")
    for _ in range(TRIES):
        with part.open("ab") as file:
            gcs.download_rest(place, stored, file)
        if file_hash(part) == sha256:
            return put_in_place(part, path)
        part.unlink()
    raise DataError(
        f"{place} is damaged: in {TRIES} downloads, its sha256 never matched the manifest. Publish the folder again."
    )
