"""Writes to Google Cloud Storage so that exactly one writer wins, even if the answer to a write gets lost."""

import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from google.api_core.exceptions import NotFound, PreconditionFailed, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.retry import DEFAULT_RETRY

from mtlrank.errors import ConflictError
from mtlrank.storage import patience
from mtlrank.storage.digest import Digest, digest
from mtlrank.storage.faults import bucket_is_missing
from mtlrank.storage.gcs import blob_of, reload, stored, version
from mtlrank.storage.paths import Place
from mtlrank.storage.patience import persist
from mtlrank.storage.versions import ABSENT, Version

PIECE = 32 << 20  # a large upload is sent in pieces of this size; a cut costs one of them
_MARK = "mtlrank-write"  # metadata by which a writer recognises its own object


def write(place: Place, data: bytes, expected: Version | None) -> Version:
    """Store bytes as an object, if it still has the expected version."""
    return _upload(place, lambda: io.BytesIO(data), digest(io.BytesIO(data)), expected)


def write_file(place: Place, path: Path, content: Digest, expected: Version | None) -> Version:
    """Store a file with a known digest; the server refuses other bytes."""
    return _upload(place, lambda: path.open("rb"), content, expected)


def _upload(place: Place, opened: Callable[[], BinaryIO], content: Digest, expected: Version | None) -> Version:
    mark = uuid.uuid4().hex

    def attempt(timeout: float) -> Version:
        blob = blob_of(place)
        blob.chunk_size = PIECE
        blob.crc32c = content.crc32c  # the server compares
        blob.metadata = {_MARK: mark}
        try:
            with opened() as file:
                _send(blob, file, content.size, expected, timeout)
        except PreconditionFailed:
            return _resolve(place, content, expected, mark, timeout)
        return version(blob)

    return persist(attempt, "write", place)


def _send(blob: Any, file: BinaryIO, size: int, expected: Version | None, timeout: float) -> None:
    """One try of an upload. Of several pieces, the client repeats only the lost one."""
    again = DEFAULT_RETRY.with_timeout(patience.deadline()).with_delay(patience.FIRST_WAIT, patience.LONGEST_WAIT)
    condition = None if expected is None else int(expected)
    try:
        blob.upload_from_file(
            file,
            size=size,
            if_generation_match=condition,
            checksum=None,  # the blob has the caller's; with a check of its own the client deletes an object that it doubts
            retry=again if size > PIECE else None,
            timeout=timeout,
        )
    except RetryError as error:
        raise error.cause from error
    except NotFound as error:
        if bucket_is_missing(error):
            raise
        raise ConnectionResetError("the server forgot the upload") from error
    except GoogleAuthError:
        raise  # some of these are ValueErrors too
    except ValueError as error:
        raise ConnectionResetError(
            "the server kept part of a piece, and the client cannot continue from there"
        ) from error


def _resolve(place: Place, content: Digest, expected: Version | None, mark: str, timeout: float) -> Version:
    """The version if we won although the server reports another version: perhaps only the answer was lost."""
    found = reload(place, timeout)
    if found is not None:
        ours = (found.metadata or {}).get(_MARK) == mark
        made_already = expected == ABSENT and stored(found).holds(content)
        if ours or made_already:
            return version(found)
    raise ConflictError(f"{place} was changed by another process meanwhile. Run the same command again.")
