"""Rows of Parquet files, in which most datasets lie on the Hugging Face hub."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtlrank.datamodule.lines import count_lines, is_json, read_json
from mtlrank.datamodule.named_files import name_of
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError, all_lines

_ROWS = 1000  # in memory at a time
_BUFFER = 1 << 20  # bytes of a column that are read at a time: its part of a row group may be gigabytes


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its name."""
    return path.suffix == ".parquet"


def has_named_fields(path: Path) -> bool:
    """Whether a file's rows have named fields: Parquet or JSON Lines."""
    return is_parquet(path) or is_json(path)


def read_objects(path: Path, keys: Sequence[str], reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each row of a Parquet or a JSON Lines file; of Parquet, only the columns `keys` are read."""
    return read_parquet(path, keys, reading, all_of=False) if is_parquet(path) else read_json(path, reading)


def read_parquet(
    path: Path, columns: Sequence[str], reading: Reading, *, all_of: bool = True, with_names: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, values by column) of the rows in `reading.part`. Places are `folder/file.parquet, row 12`, counted from 1.

    Raises `ConfigError` if the file lacks one of the columns, or (not `all_of`) has none of them. `with_names` gives the
    names of classes in place of their numbers, in lists too, if the file has these names, as the library `datasets` writes
    them (`ClassLabel`); other numbers become None. Text that is not UTF-8 stays bytes. Needs pyarrow:
    `pip install 'mtlrank[parquet]'`.
    """
    pyarrow = _pyarrow(path)
    name, number = name_of(path), 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            wanted = _present(path, columns, file.schema_arrow.names, all_of=all_of)
            classes = _classes(file.schema_arrow.metadata or {}) if with_names else {}
            rows = range(file.metadata.num_rows)[reading.part]
            for batch in file.iter_batches(_ROWS, columns=wanted):
                reading.at(number, file.metadata.num_rows)
                skipped = min(max(rows.start - number, 0), batch.num_rows)
                number += skipped
                piece = batch.slice(skipped, max(rows.stop - number, 0))
                cells = (_values(piece.column(column), classes.get(column)) for column in wanted)
                for values in zip(*cells, strict=True):
                    number += 1
                    yield f"{name}, row {number}", dict(zip(wanted, values, strict=True))
                if number >= rows.stop:
                    break
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, number, error) from error


def count_rows(path: Path) -> int:
    """How many rows a Parquet file has, or lines any other file."""
    if not is_parquet(path):
        return count_lines(path)
    pyarrow = _pyarrow(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, 0, error) from error


def _pyarrow(path: Path) -> Any:
    """The library that reads a Parquet file."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{path.name} is Parquet, which needs pyarrow: pip install 'mtlrank[parquet]'.") from error
    return pyarrow


def _unreadable(path: Path, number: int, error: Exception) -> DataError:
    return DataError(
        f"Cannot read {path} as Parquet after row {number}: {all_lines(error).rstrip('.')}. Copy it again."
    )


def _present(path: Path, columns: Sequence[str], there: Sequence[str], *, all_of: bool) -> list[str]:
    """The wanted columns, checked: as many as needed are in the file, each once."""
    wanted = [column for column in columns if column in there]
    missing = [column for column in columns if column not in there]
    if missing and (all_of or not wanted):
        lacks = f"column {missing[0]!r}" if all_of else f"of the columns {', '.join(columns)}"
        raise ConfigError(f"{path.name} has {'no' if all_of else 'none'} {lacks}. It has: {', '.join(there)}.")
    if twice := [column for column in wanted if there.count(column) > 1]:
        raise ConfigError(f"{path.name} has the column {twice[0]!r} twice. Rename one.")
    return wanted


def _classes(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes by column, as `datasets` writes them into a file's metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {column: names for column, kind in features.items() if (names := _names(kind))}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):  # written by another program
        return {}


def _names(kind: Any) -> list[str] | None:
    """The class names of a feature, or of the items of a feature that is a list; None if it has none."""
    if isinstance(kind, list):  # another way to write a list
        return _names(kind[0])
    if kind.get("_type") == "ClassLabel":
        return list(kind["names"])
    return _names(kind["feature"]) if kind.get("_type") in ("Sequence", "List", "LargeList") else None


def _values(cells: Any, names: Sequence[str] | None) -> list[Any]:
    """The values of a column's cells, an Arrow array."""
    try:
        values: list[Any] = cells.to_pylist()
    except UnicodeDecodeError:
        import pyarrow

        of_lists = pyarrow.types.is_nested(cells.type)
        values = _text(cells.cast(pyarrow.list_(pyarrow.binary()) if of_lists else "binary").to_pylist())
    return values if names is None else [_named(value, names) for value in values]


def _named(value: Any, names: Sequence[str]) -> Any:
    """The name of a class, or the names of a list of classes."""
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if type(value) is int and 0 <= value < len(names) else None


def _text(raw: Any) -> Any:
    """Bytes decoded as UTF-8, unless they are not UTF-8; of a list, each item."""
    if isinstance(raw, list):
        return [_text(each) for each in raw]
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return raw
