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
    """What a listing tells about an object."""

    size: int
    crc32c: str
    md5: str | None  # None for objects that were composed of others
    version: Version
    written: datetime | None = None

    def holds(self, content: Digest) -> bool:
        """Whether the object has these bytes already."""
        return (self.size, self.crc32c) == (content.size, content.crc32c) and self.md5 in (None, content.md5)


def read(place: Place) -> tuple[bytes | None, Version]:
    """An object's bytes and their version, from one answer."""

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
    """The objects below a folder, by their names in it. Markers of empty folders, which end with a slash, are left out."""

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
    """Append to `file` what it lacks of the object: all of it, or the rest after a cut."""

    def attempt(timeout: float) -> None:
        if file.tell() < found.size:  # asking for bytes behind the end is an error
            blob_of(place).download_to_file(
                file,
                start=file.tell() or None,
                if_generation_match=int(found.version),
                raw_download=True,
                checksum=None,  # a continued download has none; the caller knows the file's sha256
                retry=None,
                timeout=timeout,
            )

    persist(attempt, "download", place, progress=file.tell)


def delete(place: Place) -> None:
    """Remove an object; one that is not there is fine."""

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
    """End the block without an error if there is no such object; a bucket that is missing is an error."""
    try:
        yield
    except NotFound as error:
        if bucket_is_missing(error):
            raise


def version(blob: Any) -> Version:
    """The version of an object whose answer has been read."""
    return Version(str(blob.generation))


def stored(blob: Any) -> Stored:
    """What an answer tells about an object."""
    return Stored(blob.size, blob.crc32c, blob.md5_hash, version(blob), blob.time_created)


def blob_of(place: Place) -> Any:
    """The client's handle on an object; asks nothing."""
    return _client().bucket(place.bucket).blob(place.key)


def _client() -> Any:
    """One client per process: a fork must not share its parent's connections."""
    return _new_client(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST", ""))


@lru_cache(maxsize=1)
def _new_client(process: int, emulator: str) -> Any:
    """A client with the credentials of this machine; without any if an emulator is named."""
    if emulator and not emulator.startswith(("http://", "https://")):
        raise StorageError(f"STORAGE_EMULATOR_HOST={emulator!r}: expected http://host:port.")
    # Else the client asks for the bucket's description in the background, for traces; that needs a right we do not.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    return storage.Client(project=None)  # objects need no project, and finding one can fail
