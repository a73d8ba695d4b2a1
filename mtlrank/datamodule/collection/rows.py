"""The rows of a collection, and reading them from files: text, JSON Lines and Parquet."""

import ctypes
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mtlrank.checks import parse_number
from mtlrank.datamodule.lines import is_header, read_cells, read_lines, wrong_id
from mtlrank.datamodule.parquet import has_named_fields, is_parquet, read_objects, read_parquet
from mtlrank.datamodule.reading import Reading

_IDS = ("_id", "id", "doc_id", "query_id")
_TEXTS = ("text", "contents")
_QRELS = ("query-id", "corpus-id", "score")


class Text(NamedTuple):
    """A document or a query."""

    name: str  # its id
    text: str
    place: str


class PairValue(NamedTuple):
    """A document's grade (qrels) or score (a run) for a query. Scores are float32 as in trec_eval, for the same ties."""

    query_id: str
    doc_id: str
    value: float
    place: str


class Triple(NamedTuple):
    """A query with a document that suits it better and one that suits it less, perhaps with a teacher's scores of both."""

    query_id: str
    positive: str
    negative: str
    place: str
    scores: tuple[float, ...] = ()


def read_texts(path: Path, reading: Reading) -> Iterator[Text]:
    """The rows of a file of `docs` or `queries`."""
    return _named_texts(path, reading) if has_named_fields(path) else _tsv_texts(path, reading)


def read_grades(path: Path, reading: Reading) -> Iterator[PairValue]:
    """The rows of a file of `qrels`."""
    return _named_qrels(path, reading) if is_parquet(path) else _parsed(path, _qrel, reading)


def read_scores(path: Path, reading: Reading) -> Iterator[PairValue]:
    """The rows of a file that is a `run`."""
    return _parsed(path, _scored, reading)


def read_triples(path: Path, reading: Reading) -> Iterator[Triple]:
    """The rows of a file of `docpairs`, whose first line shows whether they have scores."""
    layout = "query id, better doc id, worse doc id"
    scored = next((text.count("\t") == 4 for _, text in read_lines(path, Reading.silent())), False)
    if scored:
        layout = f"score of the better, score of the worse, {layout}"
    for place, (*scores, query_id, better, worse) in read_cells(path, 5 if scored else 3, layout, reading):
        try:
            yield Triple(query_id, better, worse, place, tuple(_score(score) for score in scores))
        except ValueError:
            reading.reject(place, f"expected two finite scores, found {scores[0][:30]!r}, {scores[1][:30]!r}")


def float32(score: float) -> float:
    """The nearest number that trec_eval can hold."""
    return ctypes.c_float(score).value


def _tsv_texts(path: Path, reading: Reading) -> Iterator[Text]:
    for number, (place, (name, text)) in enumerate(read_cells(path, 2, "id, text; titles need JSON Lines", reading)):
        if number == 0 and is_header([name]):
            reading.reject(place, f"expected an id and a text, found a header ({name}, {text}): remove it", name)
        else:
            yield Text(name, text, place)


def _named_texts(path: Path, reading: Reading) -> Iterator[Text]:
    """BEIR's and Anserini's names of keys; a title goes before the text."""
    for place, row in read_objects(path, (*_IDS, *_TEXTS, "title"), reading):
        name = next((row[key] for key in _IDS if key in row), None)
        text = next((row[key] for key in _TEXTS if key in row), None)
        title = row.get("title")
        if type(name) not in (str, int) or not isinstance(text, str) or not isinstance(title, str | None):
            found = ", ".join(f"{key} ({type(value).__name__})" for key, value in row.items())
            reading.reject(place, f"expected text as _id and text (and title, if any), found {found}", str(row))
            continue
        yield Text(str(name), f"{title} {text}" if title else text, place)


def _named_qrels(path: Path, reading: Reading) -> Iterator[PairValue]:
    """BEIR's names of columns."""
    for place, row in read_parquet(path, _QRELS, reading):
        *ids, grade = (row[column] for column in _QRELS)
        query_id, doc_id = map(str, ids)
        if not all(isinstance(each, str | int) for each in ids) or not _is_grade(grade):
            reading.reject(place, f"expected ids as query-id and corpus-id and a whole grade as score, found {row}")
        elif wrong := wrong_id("query-id", query_id) or wrong_id("corpus-id", doc_id):
            reading.reject(place, wrong)
        else:
            yield PairValue(query_id, doc_id, int(grade), place)


def _parsed(path: Path, parse: Callable[[str, str], PairValue | None], reading: Reading) -> Iterator[PairValue]:
    """The parsed lines of a text file; `parse` raises a `ValueError` that says what it expects."""
    for place, text in read_lines(path, reading):
        try:
            row = parse(text, place)
        except ValueError as error:
            reading.reject(place, f"expected {error}, found {text[:60]!r}", text)
        else:
            if row:
                yield row


def _is_grade(value: Any) -> bool:
    """Whether a number is a grade, as `_qrel` takes them."""
    return type(value) in (int, float) and float(value).is_integer() and abs(value) < 1000


def _qrel(text: str, place: str) -> PairValue | None:
    """`query 0 document grade`; BEIR's has a header and three columns."""
    cells = text.split()
    if cells == [*_QRELS]:
        return None
    layout = "a TREC qrel (query, 0, document, grade) with a whole grade"
    columns = text.strip().split("\t")
    if len(cells) not in (3, 4) or (len(columns) == 3 and len(cells) == 4):  # an id of BEIR's that contains a blank
        raise ValueError(f"{layout}, without blanks in ids")
    grade = cells[-1].removeprefix("-")
    if not grade.isascii() or not grade.isdecimal() or len(grade) > 3:
        raise ValueError(layout)
    return PairValue(cells[0], cells[-2], int(cells[-1]), place)


def _scored(text: str, place: str) -> PairValue:
    """`query Q0 document rank score tag`, or MS MARCO's `query document rank`, whose scores are the negated ranks."""
    cells = text.split()
    layout = "a line of a TREC run (query, Q0, document, rank, score, tag) with a finite score"
    match cells:
        case [query_id, _, doc_id, _, score, _]:
            try:
                return PairValue(query_id, doc_id, _score(score), place)
            except ValueError as error:
                raise ValueError(layout) from error
        case [query_id, doc_id, rank] if rank.isascii() and rank.isdecimal() and len(rank) < 8:  # float32 holds these
            return PairValue(query_id, doc_id, -float(rank), place)
        case _:
            raise ValueError(f"{layout}, or of MS MARCO's (query, document, rank)")


def _score(text: str) -> float:
    """A finite score; a `ValueError` for anything else."""
    score = float32(parse_number(text))
    if not math.isfinite(score):
        raise ValueError(f"{text!r} is not finite")
    return score
