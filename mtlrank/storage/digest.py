"""Size and hashes of a file's bytes, by which two machines check that they have the same."""

import base64
import hashlib
from typing import BinaryIO, NamedTuple

import google_crc32c

_PIECE = 1 << 20


class Digest(NamedTuple):
    """Size and hashes; crc32c and md5 in the spelling of Google Cloud Storage."""

    size: int
    crc32c: str
    md5: str
    sha256: str


def digest(file: BinaryIO) -> Digest:
    """Read a file once for all of its hashes."""
    size, crc32c = 0, google_crc32c.Checksum()
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    while piece := file.read(_PIECE):
        size += len(piece)
        for checksum in (crc32c, md5, sha256):
            checksum.update(piece)
    return Digest(size, _base64(crc32c.digest()), _base64(md5.digest()), sha256.hexdigest())


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
