"""Settings of datasets, checked when they are given, so that a slip of the pen is told by its name."""

from collections.abc import Sequence

from mtlrank.errors import ConfigError


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """`value`, if it is one of the choices."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(choices)}.")
    return value


def at_least(name: str, value: int, least: int) -> int:
    """`value`, if it is a whole number and not too small."""
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} is {value!r}, expected a whole number, at least {least}.")
    return value
