"""Parsing and checks of paths: local, or `gs://bucket/name`, of which only a strict spelling is accepted."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from mtlrank.errors import StorageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # also parts of a file name that are not valid text


def safe_name(name: str, what: str) -> str:
    """`name`, if it can be a file name, a metric key and a module name at once."""
    if not _NAME.fullmatch(name):
        raise StorageError(
            f"{what} {name!r} cannot be used as a name: expected letters, digits, '-' or '_' (1 to 63, no dot or slash)."
        )
    return name


def local_path(path: str | Path) -> Path:
    """`path` as a local path; a URL is refused."""
    if "://" in str(path):
        raise StorageError(f"{str(path)!r} is a URL: expected a local path. Download it first.")
    return Path(path)


def check_relative(name: str, where: object) -> str:
    """`name`, if it stays below its folder: it may come from anyone, who must not choose where we write."""
    leaves = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\\" in name
    if leaves or _CONTROL.search(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise StorageError(
            f"{where} names the file {name!r}: expected a relative name like 'a/b.txt' that stays in the folder "
            "(no '..', no empty part, no backslash). Make the folder again."
        )
    return name


class Place(NamedTuple):
    """An object, or a folder of objects, on Google Cloud Storage."""

    bucket: str
    key: str  # empty for the bucket itself, as a folder

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.key}".rstrip("/")

    @property
    def prefix(self) -> str:
        """The prefix of the names of all objects below this folder."""
        return f"{self.key}/" if self.key else ""

    def child(self, name: str) -> "Place":
        """The object `name` in this folder."""
        return Place(self.bucket, self.prefix + name)


def parse(path: str | Path) -> Path | Place:
    """A local path or a place on Google Cloud Storage; other schemes are refused."""
    text = str(path)
    if not text.strip():
        raise StorageError("A path is empty: expected a local path or gs://bucket/name. Is a variable not set?")
    if re.match(r"[a-z0-9]{2,}:/[^/]", text):  # pathlib's form of a URL
        raise StorageError(f"{text!r} has lost a slash: expected gs://bucket/name. Pass URLs as text, not as Path.")
    if "://" not in text:
        return Path(path)
    if not text.startswith("gs://"):
        raise StorageError(f"{text!r} cannot be used: expected a local path or gs://bucket/name.")
    bucket, _, key = text.removeprefix("gs://").partition("/")
    return Place(_bucket(bucket, text), _key(key.removesuffix("/"), text))


def parse_object(path: str | Path) -> Path | Place:
    """Like `parse`, for one file: a bucket alone is refused."""
    place = parse(path)
    if isinstance(place, Place) and not place.key:
        raise StorageError(f"{str(path)!r} is a bucket: expected gs://{place.bucket}/name, with the name of a file.")
    return place


def join(path: str | Path, *parts: str) -> str:
    """The path of `parts` below `path`, local or on Google Cloud Storage."""
    folder = parse(path)
    for part in parts:
        check_relative(part, path)
    if isinstance(folder, Path):
        return str(folder.joinpath(*parts))
    for part in parts:
        folder = folder.child(part)
    return str(parse(str(folder)))


def _bucket(bucket: str, text: str) -> str:
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise StorageError(
            f"{text!r} has no valid bucket: expected gs://bucket/name, the bucket with 3 to 63 small letters, digits, "
            f"'-', '_' or '.'. Found {bucket!r}."
        )
    return bucket


def _key(key: str, text: str) -> str:
    wrong = any(part in ("", ".", "..") for part in key.split("/")) if key else False
    if wrong or _CONTROL.search(key) or any(sign in key for sign in "?#\\"):
        raise StorageError(
            f"{text!r} is not a safe path: expected gs://bucket/name without '..', '//', '?', '#' or '\\'."
        )
    return key
