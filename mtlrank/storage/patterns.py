"""Names of several files at once: `*` in the last part stands for any characters."""

import fnmatch
import re
from collections.abc import Iterable, Sequence

from mtlrank.words import listed

_SHOWN = 5  # names of files in a message


def is_pattern(name: str) -> bool:
    """Whether a file name in a config is a pattern; `*` in a folder's name has no meaning."""
    return "*" in name.rpartition("/")[2]


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that match, sorted. As in a shell, hidden ones match only a pattern that begins with a dot, too."""
    wanted = re.compile(fnmatch.translate(re.sub(r"([?[])", r"[\1]", pattern)))  # only * is special
    hidden = pattern.startswith(".")
    return sorted(name for name in names if wanted.fullmatch(name) and name.startswith(".") <= hidden)


def some_of(names: Sequence[str]) -> str:
    """The first names, and how many more there are, for a message."""
    return listed(sorted(names), _SHOWN) or "no file"
