"""Names of several files at once: `*` in the last part stands for any characters."""

import fnmatch
import re
from collections.abc import Iterable, Sequence

from mtlrank.words import listed

_SHOWN = 5  # names of files in a message


def is_pattern(name: str) -> bool:
    """Whether a config's name of a file stands for all that match; `*` in the name of a folder means nothing."""
    return "*" in name.rpartition("/")[2]


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that match, in order; those that begin with a dot, as a shell does, only if the pattern does too."""
    wanted = re.compile(fnmatch.translate(re.sub(r"([?[])", r"[\1]", pattern)))  # only * means anything
    hidden = pattern.startswith(".")
    return sorted(name for name in names if wanted.fullmatch(name) and name.startswith(".") <= hidden)


def some_of(names: Sequence[str]) -> str:
    """The first names, and how many more there are, for a message."""
    return listed(sorted(names), _SHOWN) or "no file"
