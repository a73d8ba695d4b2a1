"""Reading files line by line. Each line comes with its place (file and number), for error messages."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from mtlrank.datamodule.named_files import name_of
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError

BLANK = "a blank line: remove it"
_BOM = b"\xef\xbb\xbf"
_OBJECT = re.compile(r"""\s*\{\s*(["'}]|$)""")  # also invalid JSON, but no id in braces

CONTROL = re.compile(r"[\x01-\x08\x0b-\x1f\x7f-\x9f]")  # tab and line feed are blanks; the rest means nothing in text
IMPOSSIBLE = re.compile("[\\0\ud800-\udfff]")  # NUL and halves of surrogate pairs are no characters of a text
_NAMES_OF_IDS = re.compile(
    r"_?(id|(d|doc|document|p|passage|corpus|q|query|question|topic)[_ -]?(id|no))", re.IGNORECASE
)
_NAMES_OF_LABELS = re.compile(
    r"(gold[_ -]?)?(labels?|class|category|intent|tag|score|grade|similarity|relevance)([_ -]?(id|text|name|score))?",
    re.IGNORECASE,
)
_NAMES_OF_SENTENCES = re.compile(
    r"(sentence|text|premise|hypothesis|question|query|answer|passage|document|title|utterance|request|s)[_ -]?[0-9ab]?",
    re.IGNORECASE,
)


class Line(NamedTuple):
    """A line without its line break, and its place."""

    place: str  # as in `folder/train.tsv:17`
    text: str


def clean_text(text: str, what: str) -> tuple[str, int]:
    """The text with blanks in place of control characters, and how many there were.

    Raises `DataError` if it is blank or contains an invalid character.
    """
    if not text or text.isspace():
        raise DataError(f"the {what} is empty")
    if text.isprintable():
        return text, 0
    if wrong := IMPOSSIBLE.search(text):
        raise DataError(f"the {what} contains the invalid character {wrong[0]!r}")
    cleaned, times = CONTROL.subn(" ", text)
    if cleaned.isspace():
        raise DataError(f"the {what} contains only control characters")
    return cleaned, times


def wrong_id(what: str, name: str) -> str:
    """Why an id cannot be used in a TREC file; empty if it can."""
    if wrong := IMPOSSIBLE.search(name):
        return f"{what} {name!r} contains the invalid character {wrong[0]!r}"
    if name.split() != [name]:
        return f"{what} {name!r} is empty or contains a blank, which TREC files do not allow"
    return ""


def is_json(path: Path, *, by_name: bool = False) -> bool:
    """Whether a file is JSON Lines: by its name, which may end in .gz, or by its first line that is not blank.

    With `by_name` only the ending counts: other formats may also start with a brace.
    """
    ending = Path(path.name.removesuffix(".gz")).suffix
    if by_name or ending in (".jsonl", ".json", ".ndjson", ".tsv", ".parquet"):
        return ending in (".jsonl", ".json", ".ndjson")
    first = next((text for _, text in read_lines(path, Reading.silent()) if text.strip()), "")
    return bool(_OBJECT.match(first))


def is_header(ids: Sequence[str]) -> bool:
    """Whether a file's first line is a header: in place of ids it has usual names of such columns."""
    return all(_NAMES_OF_IDS.fullmatch(name.strip()) for name in ids)


def is_header_of_labels(label: str, texts: Sequence[str]) -> bool:
    """Whether a file's first line is a header: in place of label and texts it has usual names of such columns."""
    is_label = _NAMES_OF_LABELS.fullmatch(label.strip()) is not None
    return is_label and all(_NAMES_OF_SENTENCES.fullmatch(text.strip()) for text in texts)


def read_lines(path: Path, reading: Reading, *, strict: bool = False) -> Iterator[Line]:
    """The lines of a UTF-8 file, perhaps gzipped, in `reading.part`, without byte order mark and line breaks.

    With `strict`, a line that is no text is an error even if `reading` sets bad rows aside: for files whose rows may have
    several lines.
    """
    if path.suffix == ".parquet":
        raise DataError(
            f"{path} is Parquet, expected lines of text. Where a dataset has a format, set format=parquet; docs, queries "
            "and qrels are read as Parquet too, runs and other files as text only."
        )
    of_lines = Reading(hint=False) if strict else reading
    with _opened(path) as (raw, file):
        name, size = name_of(path), path.stat().st_size
        for number, line in islice(enumerate(file, 1), reading.part.start, reading.part.stop):
            if number % 1000 == 0:
                reading.at(raw.tell(), size)
            text = _decode(line.removeprefix(_BOM) if number == 1 else line, f"{name}:{number}", of_lines)
            if text is not None:
                yield Line(f"{name}:{number}", text)


def count_lines(path: Path) -> int:
    """How many lines a file has, which may be gzipped."""
    with _opened(path) as (_, file):
        return sum(1 for _ in file)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The file on the disk, for its position, and its content: unzipped if it is gzipped."""
    try:
        opened = path.open("rb")
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Fix its permissions.") from error
    with opened as raw:
        if path.suffix == ".gz" and not path.stat().st_size:  # gzip would read nothing, without an error
            raise DataError(f"{path} is not a complete gzip file: it is empty. Copy it again.")
        try:
            yield raw, gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw  # type: ignore[misc]
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is not a complete gzip file: {error}. Copy it again.") from error


def read_cells(
    path: Path, columns: int, layout: str, reading: Reading, *, more: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """(place, cells) of each line of a tab-separated file with `columns` columns, or `more`; quotes mean nothing."""
    for place, text in read_lines(path, reading):
        cells = text.split("\t")
        if len(cells) == columns or (more and len(cells) > columns):
            yield place, cells
        else:
            expected = f"expected {'at least ' if more else ''}{columns} tab-separated columns ({layout})"
            found = f"{len(cells)}: {text[:60]!r}" if text.strip() else BLANK
            reading.reject(place, f"{expected}, found {found}", text)


def read_json(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line of a JSON Lines file."""
    for place, text in read_lines(path, reading):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            found = f"{text[:60]!r}: {error}" if text.strip() else BLANK
            reading.reject(place, f"expected a JSON object, found {found}", text)
            continue
        if isinstance(row, dict):
            yield place, row
        else:
            reading.reject(place, f"expected a JSON object, found {text[:60]!r}", text)


def _decode(raw: bytes, place: str, reading: Reading) -> str | None:
    raw = raw.rstrip(b"\r\n")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"expected UTF-8, found byte 0x{raw[error.start]:02x} at position {error.start + 1}"
        reading.reject(place, found, raw.decode("utf-8", "backslashreplace"))
        return None
    if "\0" in text:
        reading.reject(place, "expected text, found a NUL character", text)
        return None
    return text
