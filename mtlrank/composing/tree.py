"""Walks over a config: groups (dicts), lists, and the plain values in them."""

from collections.abc import Iterator
from typing import Any


def nodes(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every key of a config, a group before its members. Lists are not entered."""
    for key, value in config.items() if isinstance(config, dict) else ():
        yield f"{prefix}{key}", value
        yield from nodes(value, f"{prefix}{key}.")


def by_key(config: Any) -> dict[str, Any]:
    """The values of a config by their dotted keys: plain ones, lists, and groups that are empty."""
    return {key: value for key, value in nodes(config) if not (isinstance(value, dict) and value)}


def leaves(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path of keys, value) of every plain value, also in lists, whose items have the path of the list.

    An empty group or list counts as a value, so that no key is missed.
    """
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(config, list) and config:
        for value in config:
            yield from leaves(value, path)
    else:
        yield path, config
