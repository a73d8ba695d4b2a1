"""The inputs of `mtlrank predict` and `LoadedHead.predict`, read in chunks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tokenizers.pre_tokenizers import BertPreTokenizer

from mtlrank.batch import Span
from mtlrank.chunks import chunks
from mtlrank.datamodule.dataset.shard_writer import check_spans
from mtlrank.datamodule.lines import BLANK, IMPOSSIBLE, is_header, read_lines
from mtlrank.datamodule.parquet import count_rows, has_named_fields, read_objects
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.inference.candidates import Candidate, cleaned
from mtlrank.inference.program_input import iterable, plain
from mtlrank.shard import Shard

SINGLE, PAIR = ("text",), ("query", "text")
Given = str | Sequence[str] | Mapping[str, Any]  # an input from a program: a text, a pair of texts, or a dict


class Form(NamedTuple):
    """The inputs that a head accepts."""

    text_keys: tuple[str, ...] | None  # the names of its texts in its own data; None: it reads texts and pairs
    num_spans: int  # of each item; 0: the text, or the pair, is the item
    spans_in: Literal["text", "query"]
    tags: bool = False  # whether the spans are the words of a text, which need not be given

    @property
    def layouts(self) -> list[tuple[str, ...]]:
        """The accepted inputs whose texts have no names: a text, a pair of texts, or both."""
        return [keys for keys in (SINGLE, PAIR) if self.text_keys is None or len(keys) == len(self.text_keys)]

    def layout(self, number: int) -> tuple[str, ...] | None:
        """The layout with `number` texts; None if the head accepts no such input."""
        return next((keys for keys in self.layouts if len(keys) == number), None)

    @property
    def is_single(self) -> bool:
        """Whether the head reads single texts only."""
        return self.text_keys is not None and len(self.text_keys) == 1

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys([*(self.text_keys or ()), *PAIR, "id", "spans"]))

    def keys(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The keys of a row's texts: those of the head's own data, or `query` and `text`."""
        own = self.text_keys or (SINGLE if row.get("query") is None else PAIR)
        usual = PAIR[-len(own) :]
        return usual if not row.keys() >= {*own} and row.keys() >= {*usual} else own


class Question(NamedTuple):
    """A line of the input; `given` is the part that is copied to the output."""

    given: dict[str, Any]
    candidate: Candidate


def questions_of_files(
    paths: Sequence[Path], reading: Reading, form: Form, size: int, shard: Shard | None = None
) -> Iterator[list[Question]]:
    """The lines of files in their order, or a shard's part: JSON Lines, Parquet (by its name) or TSV (`is_json`).

    Raises `DataError` with the place of a line that the head does not accept.
    """
    for path in paths:
        if form.num_spans and not form.tags and not has_named_fields(path):
            raise DataError(f"{path} is TSV, but the head judges spans of a text. Give JSON Lines, in a file *.jsonl.")
    files = reading.each(paths) if shard is None or shard.total == 1 else _parts(paths, reading, shard)
    return chunks(chain.from_iterable(_rows(path, each, form) for path, each in files), size)


def _parts(paths: Sequence[Path], reading: Reading, shard: Shard) -> Iterator[tuple[Path, Reading]]:
    """The files that hold lines of a shard, each with a reading of only these; shards divide the lines of all files."""
    sizes = [count_rows(path) for path in paths]
    wanted, first = shard.part(sum(sizes)), 0
    reading.progress.total = len(wanted)
    for (path, each), size in zip(reading.each(paths), sizes, strict=True):
        each.part = slice(max(wanted.start - first, 0), min(wanted.stop - first, size))
        if each.part.start < each.part.stop:
            yield path, each
        first += size


def _rows(path: Path, reading: Reading, form: Form) -> Iterator[Question]:
    return _named_rows(path, reading, form) if has_named_fields(path) else _tsv_rows(path, reading, form)


def questions_of_program(texts: Iterable[Given], reading: Reading, form: Form, size: int) -> Iterator[list[Question]]:
    """The inputs of a program, in their order: texts, pairs of texts, or dicts as lines of JSON Lines hold.

    Raises `DataError` with the position of an input that the head does not accept.
    """
    if isinstance(texts, str | Mapping):
        raise DataError(f"texts: expected a list, found a single one, {texts!r:.60}. Put it into brackets.")
    given = enumerate(map(plain, iterable(texts, "texts")))
    return chunks((_given(number, each, reading, form) for number, each in given), size)


def _given(number: int, given: Given, reading: Reading, form: Form) -> Question:
    place = f"texts[{number}]"
    match given:
        case Mapping():
            return _named(number, place, given, reading, form)
        case str():
            words = [given]
        case (str(), str()):
            words = [*given]
        case _:
            words = []
    if (keys := form.layout(len(words))) is None:
        expected = " or ".join("a text" if keys == SINGLE else "a pair of texts" for keys in form.layouts)
        raise DataError(f"{place}: expected {expected}, or a dict of such, found {given!r:.60}.")
    return Question({}, _with_items(_candidate(number, place, words, keys, reading), {}, form))


def _named_rows(path: Path, reading: Reading, form: Form) -> Iterator[Question]:
    for number, (place, row) in enumerate(read_objects(path, form.columns, reading), reading.part.start):
        yield _named(number, place, row, reading, form)


def _named(number: int, place: str, row: Mapping[str, Any], reading: Reading, form: Form) -> Question:
    """The question of a row with named fields."""
    keys, name = form.keys(row), row.get("id")
    for key in keys:
        if not isinstance(row.get(key), str):
            raise DataError(f"{place}: expected text as {' and '.join(keys)}, found {_shown(row, key)}.")
    if len(keys) == 1 and "query" not in keys and row.get("query") is not None:
        raise DataError(f"{place}: found a query, but the head reads single texts. Leave it out.")
    if not (name is None or type(name) is int or (isinstance(name, str) and not IMPOSSIBLE.search(name))):
        raise DataError(f"{place}: expected text or a whole number as id, found {_shown(row, 'id')}.")
    candidate = _candidate(number, place, [row[key] for key in keys], keys, reading)
    return Question({} if name is None else {"id": name}, _with_items(candidate, row, form))


def _tsv_rows(path: Path, reading: Reading, form: Form) -> Iterator[Question]:
    for number, (place, line) in enumerate(read_lines(path, reading), reading.part.start):
        name, *texts = line.split("\t")
        keys = form.layout(len(texts))
        if keys is None:
            layouts = " or ".join(
                f"{1 + len(keys)} tab-separated columns (id, {', '.join(keys)})" for keys in form.layouts
            )
            found = f"{1 + len(texts)}: {line[:60]!r}" if line.strip() else BLANK
            way = " The name of JSON Lines ends in .jsonl." if line.startswith("{") else ""
            raise DataError(f"{place}: expected {layouts}, found {found}.{way}")
        if number == 0 and is_header([name]):
            raise DataError(f"{place}: found a header, but TSV files are expected to start with their first text.")
        yield Question({"id": name}, _with_items(_candidate(number, place, texts, keys, reading), {}, form))


def _candidate(number: int, place: str, texts: Sequence[str], keys: Sequence[str], reading: Reading) -> Candidate:
    *query, text = (cleaned(text, key, place, reading) for text, key in zip(texts, keys, strict=True))
    return Candidate(number, place, query[0] if query else None, text)


def _with_items(candidate: Candidate, row: Mapping[str, Any], form: Form) -> Candidate:
    """The candidate with the spans of its row, or with the words of its text."""
    spans, place = row.get("spans"), candidate.place
    if not form.num_spans:
        if spans:
            raise DataError(f"{place}: found spans, but the head judges whole texts. Leave them out.")
        return candidate
    candidate = candidate._replace(items=(), spans_in=form.spans_in)
    if form.tags and spans is None:
        return candidate._replace(items=tuple((span,) for span in _words(candidate.located)))
    try:
        items = _items(spans, form.num_spans)
    except (TypeError, ValueError):
        one = ", ".join(["[start, end]"] * form.num_spans)
        expected = f"[{one if form.num_spans == 1 else f'[{one}]'}, ...]"
        raise DataError(f"{place}: expected spans as {expected}, found {_shown(row, 'spans')}.") from None
    try:
        for item in items:
            check_spans(item, candidate.located)
    except DataError as error:
        raise DataError(f"{place}: {error}.") from error
    if form.tags and any(start < end for ((_, end),), ((start, _),) in pairwise(items)):
        raise DataError(f"{place}: expected spans of words in their order, none within another.")
    return candidate._replace(items=items)


def _words(text: str) -> list[Span]:
    """The words and the punctuation marks of a text, as BERT's tokenizer splits it before it looks for word pieces."""
    return [span for _, span in BertPreTokenizer().pre_tokenize_str(text)]


def _items(spans: Any, num_spans: int) -> tuple[tuple[Span, ...], ...]:
    """The spans of each item. A single pair of spans may come without a list around it, as in data of `SpanPairs`."""
    if not isinstance(spans, list | tuple):
        raise TypeError
    if num_spans == 1:
        return tuple((_span(span),) for span in spans)
    if len(spans) == num_spans and all(type(end) is int for span in spans for end in span):
        spans = [spans]
    items = tuple(tuple(map(_span, item)) for item in spans)
    if any(len(item) != num_spans for item in items):
        raise ValueError
    return items


def _span(value: Any) -> Span:
    start, end = value
    if type(start) is not int or type(end) is not int:  # true and false are instances of int
        raise TypeError
    return start, end


def _shown(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]!s:.60} as {key}" if row.get(key) is not None else f"none as {key}"
