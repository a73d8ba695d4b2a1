"""Files of labelled records: where they are, and errors that name the line."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mtlrank import embedded
from mtlrank.errors import DataError


def lines(files: Mapping[str, str | None], split: str) -> Iterator[tuple[str, str]]:
    """(place, line) of the split's file, without line ends; nothing if the split has no file."""
    name = files.get(split)
    if name is None:
        return
    path = Path(embedded.locate(name))
    if not path.is_file():
        raise DataError(f"The file {name!r} of split {split!r} does not exist.")
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            for number, line in enumerate(file, 1):
                yield f"{path.name}:{number}", line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not valid UTF-8 ({error.reason}). Convert it first.") from error
