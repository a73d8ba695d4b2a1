"""Single files, on a local disk or on Google Cloud Storage. Its client is imported when it is needed."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from mtlrank.errors import StorageError
from mtlrank.storage import local
from mtlrank.storage.paths import check_relative, parse, parse_object
from mtlrank.storage.versions import Version


class Described(NamedTuple):
    """Size and time of a file, from a listing."""

    size: int  # bytes
    written: datetime


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file, which must exist."""
    data, _ = read_versioned(path)
    if data is None:
        raise StorageError(f"{path} is missing. Correct the path, or run the step that writes it.")
    return data


def read_versioned(path: str | Path) -> tuple[bytes | None, Version]:
    """The bytes of a file and their version, for `write_bytes(expected=...)`; None and ABSENT if there is no file."""
    place = parse_object(path)
    if isinstance(place, Path):
        return local.read(place)
    from mtlrank.storage import gcs

    return gcs.read(place)


def write_bytes(path: str | Path, data: bytes, *, expected: Version | None = None) -> Version:
    """Write a file whole and return its version; a ConflictError if the file no longer has the `expected` version.

    Without `expected` the file is overwritten. With ABSENT it must not exist yet; the same bytes count as success, as a
    job that runs twice finds its own (so a lock must hold something that identifies its owner). With another version,
    exactly one of several writers who read it succeeds, even if they write the same.
    """
    place = parse_object(path)
    if isinstance(place, Path):
        return local.write(place, data, expected)
    from mtlrank.storage import upload

    return upload.write(place, data, expected)


def exists(path: str | Path) -> bool:
    """Whether a file exists. To look for a folder, ask for its manifest."""
    place = parse_object(path)
    if isinstance(place, Path):
        return place.is_file()
    from mtlrank.storage import gcs

    return gcs.exists(place)


def list_files(path: str | Path) -> list[str]:
    """The sorted relative names of all files below a folder; none if there is no folder."""
    return sorted(sizes_and_times(path))


def sizes_and_times(path: str | Path) -> dict[str, Described]:
    """Size and time of the files below a folder, by relative name."""
    place = parse(path)
    if isinstance(place, Path):
        found = local.list_sizes(place)
    else:
        from mtlrank.storage import gcs

        found = {name: (stored.size, stored.written) for name, stored in gcs.list_objects(place).items()}
    return {check_relative(name, path): Described(size, written) for name, (size, written) in found.items()}
