"""Checks of settings; errors name the setting that is wrong."""

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from mtlrank.errors import ConfigError

T = TypeVar("T")


class Kind(NamedTuple):
    """The values that a setting may have: a condition, and the same in words."""

    fits: Callable[[Any], bool]
    words: str

    def check(self, name: str, value: T) -> T:
        """`value`, if it fits; else a `ConfigError` that names the setting."""
        if not self.fits(value):
            raise ConfigError(f"{name} is {value!r}, expected {self.words}.")
        return value


def choice(choices: Iterable[str]) -> Kind:
    """One of some words."""
    known = list(choices)
    return Kind(lambda v: v in known, f"one of {', '.join(known)}")


def whole(least: int) -> Kind:
    """A whole number that is not too small."""
    return Kind(lambda v: type(v) is int and v >= least, f"a whole number, at least {least}")


def number(fits: Callable[[float], bool], words: str) -> Kind:
    """A finite number with a condition."""
    return Kind(lambda v: is_number(v) and fits(v), words)


def or_null(kind: Kind) -> Kind:
    """The same, or None."""
    return Kind(lambda v: v is None or kind.fits(v), f"null or {kind.words}")


ABOVE_ZERO = number(lambda v: v > 0, "a finite number above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "a finite number, at least 0")


def parse_number(text: str) -> float:
    """Parse a number, or raise `ValueError`. `float` alone reads 1_0 as 10."""
    if "_" in text:
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The keys in which two descriptions differ, sorted. One that is missing is the same as one that is None."""
    return [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]


def all_known(setting: str, names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse a setting that has unknown names; `what` is their kind, in the plural."""
    known = list(dict.fromkeys(known))
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"{setting} names unknown {what}: {', '.join(unknown)}.{nearest(unknown[0], known)} "
            f"{what.capitalize()}: {', '.join(known)}."
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like `name`, if there is one."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
