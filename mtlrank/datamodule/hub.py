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

from mtlrank.errors import ConfigError, DataError, StorageError, UserError, all_lines
from mtlrank.progress import say, warn
from mtlrank.storage import fingerprint, home, read_json, write_json
from mtlrank.storage.patterns import matching, some_of

_SCHEME = "hf://"
_EXAMPLE = "hf://datasets/sentence-transformers/all-nli@main/pair-class/dev-00000-of-00001.parquet"
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Revisions with a slash are written with %2F, but for those that the hub makes itself.
_URI = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@(refs/(?:convert|pr)/[\w.-]+|[^/@]+))?/([^@]+)", re.ASCII)


class HubFile(NamedTuple):
    """The parts of a URI."""

    repository: str  # owner/name
    revision: str | None  # a branch, a tag or a commit; None: the main branch
    path: str  # in the repository


def is_uri(name: str) -> bool:
    """Whether a config's name of a file is a URI of the hub."""
    return name.startswith(_SCHEME)


class Folder(NamedTuple):
    """The files of a folder in one commit of a repository."""

    commit: str
    files: list[str]  # names of those directly in it


def parse(uri: str, *, may_match: bool = False) -> HubFile:
    """Parse the URI of a file of a dataset, whose name may have a `*` with `may_match`. Raises `ConfigError` for others."""
    found = _URI.fullmatch(uri)
    repository, revision, path = found.groups() if found else ("", None, "")
    revision = None if revision is None else unquote(revision)
    steps = [*path.split("/"), *(revision or "main").split("/")]
    plain = uri.rpartition("/")[0] if may_match else uri  # where no * may be
    if not found or {"", ".", ".."}.intersection(steps) or "*" in plain or re.search(r"[\\\0]", uri):
        hint = " A * may stand in the name of the file, not of a folder." if "*" in uri.rpartition("/")[0] else ""
        raise ConfigError(
            f"Expected one file on the Hugging Face hub as hf://datasets/OWNER/NAME[@REVISION]/PATH, such as {_EXAMPLE}, "
            f"found {uri!r}.{hint}"
        )
    return HubFile(repository, revision, path)


@cache
def fetch(uri: str) -> Path:
    """The local copy of a URI's file, downloaded if the hub's cache lacks it or it has changed.

    The hub is asked once in a process, so that the whole process reads the same content.
    """
    return _fetch(uri, parse(uri))


@cache
def fetch_all(uri: str) -> tuple[Path, ...]:
    """Local copies of the files that match a URI with `*` in its last part, sorted by name, all of one commit.

    The hub lists the names once in a process, those of a commit once on this machine. If it cannot be reached, the names
    of its last answer are used, and the files come from its cache, which may lack some.
    """
    pattern = parse(uri, may_match=True)
    folder, _, name = pattern.path.rpartition("/")
    commit, names = _folder(uri, pattern, folder)
    found = matching(name, names)
    if not found:
        where = f"The folder {folder!r}" if folder else "The root"
        raise DataError(f"{uri!r} matches no file. {where} of {pattern.repository!r} holds {some_of(names)}.")
    files = [HubFile(pattern.repository, commit, f"{folder}/{each}".lstrip("/")) for each in found]
    return tuple(_fetch(f"hf://datasets/{file.repository}@{commit}/{file.path}", file) for file in files)


def _folder(uri: str, pattern: HubFile, path: str) -> Folder:
    """The files of a folder: the hub's answer or, if it cannot be reached, its last one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    repository, revision, _ = pattern
    saved = home() / "hub" / f"{repository.replace('/', '--')}-{fingerprint([repository, revision, path])}.json"
    if saved.exists() and _COMMIT.fullmatch(revision or ""):
        return Folder(**read_json(saved))
    try:
        api = HfApi()
        commit = api.dataset_info(repository, revision=revision).sha or ""
        tree = api.list_repo_tree(repository, path or None, revision=commit, repo_type="dataset")
        found = Folder(commit, [entry.path.rpartition("/")[2] for entry in tree if isinstance(entry, RepoFile)])
    except Exception as error:  # as in `_fetch`
        if saved.exists() and not isinstance(error, RevisionNotFoundError | EntryNotFoundError):
            found = Folder(**read_json(saved))
            warn(f"{uri}: the hub cannot be reached, so the files are those of {found.commit}, its last known commit")
            return found
        raise _user_error(uri, pattern, error) from error
    with suppress(OSError):  # if the answer cannot be saved, the hub is asked again next time
        write_json(saved, found._asdict())
    return found


def _fetch(uri: str, file: HubFile) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # here, as most data lie elsewhere

    try:
        cached = try_to_load_from_cache(file.repository, file.path, repo_type="dataset", revision=file.revision)
        if not isinstance(cached, str):
            say(f"fetch {uri}")
        return Path(hf_hub_download(file.repository, file.path, repo_type="dataset", revision=file.revision))
    except Exception as error:  # of the hub, its HTTP client (which has changed its name before) or the disk
        raise _user_error(uri, file, error) from error


def _user_error(uri: str, file: HubFile, error: Exception) -> UserError:
    """The error as one that says what a user can do."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/datasets/{file.repository}"
    name, revision = f"The dataset {file.repository!r}", file.revision or "main"
    match error:
        case errors.HFValidationError():
            return ConfigError(f"{uri!r} names no dataset of the hub: {_line(error)}")
        case errors.GatedRepoError():  # before the next one, its base class
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
                f"Which files match {uri} is not known on this machine ({home()}), and HF_HUB_OFFLINE is set. Unset it "
                "once to ask the hub and download them."
            )
        case errors.LocalEntryNotFoundError():
            reason = _line(error.__cause__ or error)
            return StorageError(
                f"{uri} is not in the hub's cache ({constants.HF_HUB_CACHE}) and {constants.ENDPOINT} cannot be reached: "
                f"{reason}"
            )
    return StorageError(f"Cannot fetch {uri}: {_line(error)}")


def _line(error: BaseException) -> str:
    """An error as one line that is not too long."""
    return f"{type(error).__name__}: {all_lines(error)}".rstrip(".") + "."
