"""Files that a config names: where they are, and how manifests and errors name them."""

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtlrank import embedded
from mtlrank.datamodule import hub
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import file_hash
from mtlrank.storage.local import system_errors
from mtlrank.storage.patterns import is_pattern, matching, some_of


def locate(name: str, what: str) -> Path:
    """The local file that a config names; `mtlrank-embedded/...` is in the embedded collection, `hf://...` on the hub."""
    if not isinstance(name, str):
        share = " This dataset takes no share of the training data (as in val: 0.2)." if isinstance(name, float) else ""
        raise ConfigError(f"The {what} is {name!r}, expected the path of a file.{share}")
    if hub.is_uri(name):
        return hub.fetch(name)
    path = Path(embedded.locate(name))
    if path.is_dir():
        raise DataError(f"The {what} {name!r} is a folder, expected a file.")
    if path.exists() and not path.is_file():
        way = " Pipe it in with input=- instead." if what == "input" else " Write it to a file."
        raise DataError(f"The {what} {name!r} is not a regular file.{way}")
    if not path.is_file():
        expected = " Expected the name of one file." if is_pattern(name) else ""
        raise DataError(f"The {what} {name!r} does not exist{_where(name, path)}{expected}")
    return path


def locate_all(name: str, what: str) -> list[Path]:
    """The files that a config names: one as `locate` does, or all that match a name with `*`, in the order of their names.

    Raises `DataError` if none matches.
    """
    if not isinstance(name, str) or not is_pattern(name):
        return [locate(name, what)]
    if hub.is_uri(name):
        return list(hub.fetch_all(name))
    path = Path(embedded.locate(name))
    try:
        names = [entry.name for entry in path.parent.iterdir() if not entry.is_dir()]
    except FileNotFoundError as error:
        raise DataError(f"The folder of the {what} {name!r} does not exist{_where(name, path)}") from error
    except OSError as error:
        raise DataError(f"Cannot read the folder of the {what} {name!r}: {error.strerror}.") from error
    found = matching(path.name, names)
    if not found:
        raise DataError(f"The {what} {name!r} matches no file. The folder {str(path.parent)!r} holds {some_of(names)}.")
    return [locate(str(path.with_name(each)), what) for each in found]


def _where(name: str, path: Path) -> str:
    """The end of an error about a missing file: the folder it was looked for in, and what may be wrong with its name."""
    if "://" in name:
        return ": expected the path of a local file, or hf://... of one on the Hugging Face hub. Download it first."
    hint = unset_variable(name)
    folder = "" if path.is_absolute() or hint else f" in the current folder {str(Path.cwd())!r}"
    if "*" in name.rpartition("/")[0]:
        hint += " A * may stand in the name of the file, not of a folder."
    return f"{folder}.{hint}"


def describe_file(name: str, path: Path) -> dict[str, str]:
    """For the manifest: the name of a file, or its URI on the hub, and its hash."""
    return {"file": name if hub.is_uri(name) else path.name, "sha256": file_hash(path)}


def describe_files(name: str, paths: Sequence[Path]) -> dict[str, Any]:
    """For the manifest: the file that a config names or, for a name with `*`, each file that matches."""
    if not is_pattern(name):
        return describe_file(name, paths[0])
    parts = [describe_file(path.name, path) for path in paths]
    return {"file": name if hub.is_uri(name) else Path(name).name, "parts": parts}


def locate_input(name: str, folder: Path, what: str) -> list[Path]:
    """The files that `input` names; for `-`, a copy of standard input in `folder`, so that errors can name its lines."""
    if name != "-":
        return locate_all(name, "input")
    if sys.stdin is None:
        raise DataError("input=- reads the standard input, which is closed. Pipe the data in, or name a file.")
    path = folder / "stdin" / what
    path.parent.mkdir()
    with system_errors(f"copy the standard input to {path}"), path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return [path]


def unset_variable(path: str) -> str:
    """A hint to set the environment variable that a path begins with; empty if it begins with none."""
    name = path.removeprefix("$").partition("/")[0]
    return f" Set the environment variable {name}." if path.startswith("$") else ""


def name_of(path: Path) -> str:
    """The name of a file in the places of its lines: with its folder, as files of several splits may have the same name.

    A file at the root of a repository of the hub lies in `datasets--OWNER--NAME/snapshots/COMMIT`.
    """
    folder = path.parent.name
    if re.search(r"/datasets--[^/]+/snapshots$", str(path.parent.parent)):
        folder = path.parents[2].name.rpartition("--")[2]
    return f"{folder}/{path.name}".lstrip("/")
