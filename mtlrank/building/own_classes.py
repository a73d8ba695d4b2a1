"""The code that a run is made with: mtlrank's version, and the files of the user's own classes that a config names."""

from collections.abc import Mapping
from inspect import getsourcefile
from pathlib import Path
from typing import Any

from mtlrank import about
from mtlrank.composing.objects import locate
from mtlrank.composing.tree import leaves
from mtlrank.config import Config
from mtlrank.storage import file_hash, fingerprint


def code_of(config: Config) -> str:
    """The code of a run as text: mtlrank's version, and a fingerprint of the user's own classes in the config."""
    own = own_code(config)
    return ", own classes ".join([about.code(), *([fingerprint(own)] if own else [])])


def own_code(config: Mapping[str, Any]) -> list[str]:
    """The hashes of the files that hold the user's own classes."""
    return sorted(set(own_classes(config).values()))


def own_classes(config: Mapping[str, Any]) -> dict[str, str]:
    """The hash of the file that holds each of the user's own classes, by the class's name."""
    targets = {str(value) for path, value in leaves(config) if path[-1] == "_target_"}
    return {target: sha256 for target in sorted(targets) if (sha256 := _hash_of(target))}


def _hash_of(target: str) -> str:
    """The hash of the file that holds a class; empty for classes of mtlrank and of the libraries that it builds on."""
    if target.startswith(("mtlrank.", "torch.", "pytorch_lightning.", "transformers.")):
        return ""
    try:
        return file_hash(Path(getsourcefile(locate(target)) or ""))
    except (ImportError, AttributeError, TypeError, ValueError, OSError):
        return ""  # the error is raised when it is built
