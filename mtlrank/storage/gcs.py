"""Objects on Google Cloud Storage. Imported only for a `gs://` path: the client takes a second to import."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

from google.api_core.exceptions import NotFound
from google.cloud import storage

from mtlrank.errors import StorageError
from mtlrank.storage.digest import Digest
from mtlrank.storage.faults import bucket_is_missing
from mtlrank.storage.paths import Place
from mtlrank.storage.patience import persist
from mtlrank.storage.versions import ABSENT, Version


class Stored(NamedTuple):
    """An object in a listing."""

    size: int
    crc32c: str
    md5: str | None  # None for composite objects
    version: Version
    written: datetime

    def holds(self, content: Digest) -> bool:
        """Whether the object has these bytes already."""
        return (self.size, self.crc32c) == (content.size, content.crc32c) and self.md5 in (None, content.md5)


def read(place: Place) -> tuple[bytes | None, Version]:
    """An object's bytes and version, from one answer; None and ABSENT if it does not exist."""

    def attempt(timeout: float) -> tuple[bytes | None, Version]:
        blob = blob_of(place)
        with _perhaps_absent():
            data = blob.download_as_bytes(raw_download=True, checksum="crc32c", retry=None, timeout=timeout)
            return data, version(blob)
        return None, ABSENT

    return persist(attempt, "read", place)


def exists(place: Place) -> bool:
    """Whether there is such an object."""
    return persist(lambda timeout: reload(place, timeout) is not None, "look for", place)


def list_objects(folder: Place) -> dict[str, Stored]:
    """The objects below a folder, by relative name. Folder markers, whose names end with a slash, are left out."""

    def attempt(timeout: float) -> dict[str, Stored]:
        blobs = _client().list_blobs(
            folder.bucket,
            prefix=folder.prefix or None,
            fields="items(name,size,crc32c,md5Hash,generation,timeCreated),nextPageToken",
            retry=None,
            timeout=timeout,
        )
        return {blob.name.removeprefix(folder.prefix): stored(blob) for blob in blobs if not blob.name.endswith("/")}

    return persist(attempt, "list", folder)


def download_rest(place: Place, found: Stored, file: BinaryIO) -> None:
    """Append to `file` the part of the object that it lacks: all, or the rest after a cut."""

    def attempt(timeout: float) -> None:
        if file.tell() < found.size:  # a request for bytes behind the end is an error
            blob_of(place).download_to_file(
                file,
                start=file.tell() or None,
                if_generation_match=int(found.version),
                raw_download=True,
                checksum=None,  # impossible for a continued download; the caller checks the sha256
                retry=None,
                timeout=timeout,
            )

    persist(attempt, "download", place, progress=file.tell)


def delete(place: Place) -> None:
    """Remove an object if it exists."""

    def attempt(timeout: float) -> None:
        with _perhaps_absent():
            blob_of(place).delete(retry=None, timeout=timeout)

    persist(attempt, "remove", place)


def reload(place: Place, timeout: float) -> Any:
    """The object's metadata, or None if there is no such object."""
    blob = blob_of(place)
    with _perhaps_absent():
        blob.reload(retry=None, timeout=timeout)
        return blob
    return None


@contextmanager
def _perhaps_absent() -> Iterator[None]:
    """End the block quietly if the object does not exist; a missing bucket is an error."""
    try:
        yield
    except NotFound as error:
        if bucket_is_missing(error):
            raise


def version(blob: Any) -> Version:
    """The version of an object, from an answer's blob."""
    return Version(str(blob.generation))


def stored(blob: Any) -> Stored:
    """An object, from an answer's blob."""
    return Stored(blob.size, blob.crc32c, blob.md5_hash, version(blob), blob.time_created)


def blob_of(place: Place) -> Any:
    """The client's handle on an object; sends no request."""
    return _client().bucket(place.bucket).blob(place.key)


def _client() -> Any:
    """One client per process: a fork must not share its parent's connections."""
    return _new_client(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST", ""))


@lru_cache(maxsize=1)
def _new_client(process: int, emulator: str) -> Any:
    """A client with the credentials of this machine; without any if an emulator is named."""
    if emulator and not emulator.startswith(("http://", "https://")):
        raise StorageError(f"STORAGE_EMULATOR_HOST={emulator!r}: expected http://host:port.")
    # Else the client requests the bucket's metadata in the background, for traces, which needs another permission.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    return storage.Client(project=None)  # objects need no project, and finding one can fail
