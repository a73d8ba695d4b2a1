"""The content of `current.json`: the model in use, its history, and the removed models."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from mtlrank.errors import DataError
from mtlrank.registry.history import Change, Source
from mtlrank.storage import ABSENT, Version, safe_name

_KEYS = {"current", "changes", "removed", "removing"}


class Pointer(NamedTuple):
    """One state of the pointer. Every change of a registry writes it, so of two at the same time, one is refused."""

    version: Version  # of the file that this was read from
    changes: list[Change]  # of the model in use, oldest first
    removed: Mapping[str, str]  # time of removal by model
    removing: list[str]  # of these models, those whose files are being removed now
    unknown: Sequence[str] = ()  # keys of the file that a later version wrote


def parse(data: bytes | None, version: Version, where: str) -> Pointer:
    """The pointer in the bytes of a file, or that of an empty registry. Raises `DataError` if it is damaged."""
    if data is None:
        return Pointer(ABSENT, [], {}, [])
    try:
        kept = json.loads(data)
        if not isinstance(kept["changes"], list):
            raise TypeError("changes is no list")
        changes = [_change(row) for row in kept["changes"]]
        removed, removing = dict(kept.get("removed", {})), list(kept.get("removing", []))
        unknown = [*kept.keys() - _KEYS, *(key for row in kept["changes"] for key in _unknown(row))]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{where} is damaged: {error}. Restore an older version of it.") from error
    fields = [field for change in changes for field in change._asdict().items() if field[0] != "source"]
    fields += [field for change in changes if change.source for field in change.source._asdict().items()]
    fields += [*removed.items(), *(("removing", model) for model in removing)]
    if not all(isinstance(value, str) or (name, value) == ("replaced", None) for name, value in fields):
        raise DataError(f"{where} is damaged: changes contain a value that is not text. Restore an older one.")
    for model in [*(change.model for change in changes), *removed, *removing]:
        safe_name(model, f"A model in {where}")
    last = changes[-1].model if changes else None
    if kept.get("current") != last:
        raise DataError(
            f"{where} is damaged: current is {kept.get('current')!r}, but by the last change {last!r} is in use. "
            "Restore an older one."
        )
    return Pointer(version, changes, removed, removing, sorted(set(unknown)))


def dump(pointer: Pointer) -> bytes:
    """The bytes of the file."""
    rows = [_row(change) for change in pointer.changes]
    kept: dict[str, Any] = {"current": rows[-1]["model"] if rows else None, "changes": rows}
    if pointer.removed:
        kept |= {"removed": dict(pointer.removed), "removing": pointer.removing}
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def without(pointer: Pointer, models: Sequence[str]) -> Pointer:
    """The pointer as if these models had never been removed."""
    removed = {model: when for model, when in pointer.removed.items() if model not in models}
    return pointer._replace(removed=removed, removing=[model for model in pointer.removing if model not in models])


def written(time: datetime) -> str:
    """A time in UTC as text. Texts sort as their times do."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _change(row: dict[str, Any]) -> Change:
    known = {field: row[field] for field in Change._fields if field in row}
    source = known.get("source")
    return Change(**{**known, "source": None if source is None else Source(*(source[f] for f in Source._fields))})


def _unknown(row: dict[str, Any]) -> list[str]:
    return [*row.keys() - {*Change._fields}, *(row.get("source") or {}).keys() - {*Source._fields}]


def _row(change: Change) -> dict[str, Any]:
    row = change._asdict()
    return {**row, "source": change.source._asdict()} if change.source else {k: row[k] for k in row if k != "source"}
