"""Files of datasets on the Hugging Face hub, by the URI that pandas, polars and DuckDB take.

`hf://datasets/OWNER/NAME[@REVISION]/path/in/repository/file.jsonl`. They are kept in the hub's own cache (`HF_HOME`);
`HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean to `huggingface_hub`.
"""

import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from mtlrank.errors import ConfigError, DataError, StorageError, UserError
from mtlrank.progress import say
from mtlrank.storage import fingerprint, home, read_json, write_json
from mtlrank.storage.patterns import matching, some_of

_SCHEME = "hf://"
_EXAMPLE = "hf://datasets/sentence-transformers/all-nli@main/pair-class/dev-00000-of-00001.parquet"
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Revisions with a slash are written with %2F, but for those that the hub makes itself.
_URI = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@(refs/(?:convert|pr)/[\w.-]+|[^/@]+))?/([^@]+)", re.ASCII)


class HubFile(NamedTuple):
    """What a URI names."""

    repository: str  # owner/name
    revision: str | None  # a branch, a tag or a commit; None: the main branch
    path: str  # in the repository


def is_uri(name: str) -> bool:
    """Whether a config's name of a file is meant as one on the hub."""
    return name.startswith(_SCHEME)


class Folder(NamedTuple):
    """What a folder of a repository holds in a commit."""

    commit: str
    files: list[str]  # their names, without those of folders in it


def parse(uri: str, *, may_match: bool = False) -> HubFile:
    """What a URI names. Raises `ConfigError` for one that is no file of a dataset, or (`may_match`) no pattern of some."""
    found = _URI.fullmatch(uri)
    repository, revision, path = found.groups() if found else ("", None, "")
    revision = None if revision is None else unquote(revision)
    steps = [*path.split("/"), *(revision or "main").split("/")]
    plain = uri.rpartition("/")[0] if may_match else uri  # where * means nothing
    if not found or {"", ".", ".."}.intersection(steps) or "*" in plain or re.search(r"[\\\0]", uri):
        hint = " A * may stand in the name of the file, not of a folder." if "*" in uri.rpartition("/")[0] else ""
        raise ConfigError(
            f"Expected one file on the Hugging Face hub as hf://datasets/OWNER/NAME[@REVISION]/PATH, such as {_EXAMPLE}, "
            f"found {uri!r}.{hint}"
        )
    return HubFile(repository, revision, path)


@cache
def fetch(uri: str) -> Path:
    """The file behind a URI, which is downloaded if it is not in the hub's cache or has changed.

    It is asked for once in a process, so that all of a process reads the same content.
    """
    return _fetch(uri, parse(uri))


@cache
def fetch_all(uri: str) -> tuple[Path, ...]:
    """The files behind a URI with `*` in its last part, in the order of their names, all of one commit.

    The hub is asked for their names once in a process, of a commit once on this machine. If it cannot be asked, the names
    that it told last are taken, as files come from the cache: what the cache holds may be a part of them.
    """
    pattern = parse(uri, may_match=True)
    folder, _, name = pattern.path.rpartition("/")
    commit, there = _folder(uri, pattern, folder)
    found = matching(name, there)
    if not found:
        where = f"The folder {folder!r}" if folder else "The root"
        raise DataError(f"{uri!r} matches no file. {where} of {pattern.repository!r} holds {some_of(there)}.")
    files = [HubFile(pattern.repository, commit, f"{folder}/{each}".lstrip("/")) for each in found]
    return tuple(_fetch(f"hf://datasets/{file.repository}@{commit}/{file.path}", file) for file in files)


def _folder(uri: str, pattern: HubFile, path: str) -> Folder:
    """What a folder holds, as the hub tells it, or told it when it could be asked."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    repository, revision, _ = pattern
    known = home() / "hub" / f"{repository.replace('/', '--')}-{fingerprint([repository, revision, path])}.json"
    if known.exists() and _COMMIT.fullmatch(revision or ""):
        return Folder(**read_json(known))
    try:
        api = HfApi()
        commit = api.dataset_info(repository, revision=revision).sha or ""
        tree = api.list_repo_tree(repository, path or None, revision=commit, repo_type="dataset")
        there = Folder(commit, [each.path.rpartition("/")[2] for each in tree if isinstance(each, RepoFile)])
    except Exception as error:  # as in `_fetch`
        if known.exists() and not isinstance(error, RevisionNotFoundError | EntryNotFoundError):
            there = Folder(**read_json(known))
            say(f"{uri}: the hub cannot be asked, so the files are those of {there.commit}, the commit it named last")
            return there
        raise _told(uri, pattern, error) from error
    with suppress(OSError):  # where nothing can be kept, the hub is asked again
        write_json(known, there._asdict())
    return there


def _fetch(uri: str, file: HubFile) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # here, as most data lie elsewhere

    try:
        known = try_to_load_from_cache(file.repository, file.path, repo_type="dataset", revision=file.revision)
        if not isinstance(known, str):
            say(f"fetch {uri}")
        return Path(hf_hub_download(file.repository, file.path, repo_type="dataset", revision=file.revision))
    except Exception as error:  # of the hub, its HTTP client (which has changed its name before) or the disk
        raise _told(uri, file, error) from error


def _told(uri: str, file: HubFile, error: Exception) -> UserError:
    """What a user can do about it."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/datasets/{file.repository}"
    name, revision = f"The dataset {file.repository!r}", file.revision or "main"
    match error:
        case errors.HFValidationError():
            return ConfigError(f"{uri!r} names no dataset of the hub: {_line(error)}")
        case errors.GatedRepoError():  # before the next one, whose kind it is
            return DataError(f"{name} is gated. Ask for access on {page} and set HF_TOKEN to a token of yours.")
        case errors.RepositoryNotFoundError():
            return DataError(
                f"{name} is not on the hub, or it is private. Correct {uri!r}, or set HF_TOKEN to a token that may read it."
            )
        case errors.RevisionNotFoundError():
            return DataError(
                f"{name} has no revision {revision!r}. Correct {uri!r}: {page}/commits/main lists commits."
            )
        case errors.RemoteEntryNotFoundError():
            return DataError(
                f"{name} has no file {file.path!r} in revision {revision!r}. Correct {uri!r}: {page}/tree/{revision} "
                "lists the files."
            )
        case errors.LocalEntryNotFoundError() if isinstance(error.__cause__, errors.OfflineModeIsEnabled):
            return StorageError(
                f"{uri} is not in the hub's cache ({constants.HF_HUB_CACHE}) and HF_HUB_OFFLINE is set. Unset it to "
                "download the file, or set HF_HOME to a folder that has it."
            )
        case errors.OfflineModeIsEnabled():
            return StorageError(
                f"Which files match {uri} was never asked on this machine ({home()}), and HF_HUB_OFFLINE is set. Unset it "
                "once to ask the hub and download them."
            )
        case errors.LocalEntryNotFoundError():
            reason = _line(error.__cause__ or error)
            return StorageError(
                f"{uri} is not in the hub's cache ({constants.HF_HUB_CACHE}) and {constants.ENDPOINT} cannot be asked: "
                f"{reason}"
            )
    return StorageError(f"Cannot fetch {uri}: {_line(error)}")


def _line(error: BaseException) -> str:
    """An error as one line that is not too long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(".") + "."
