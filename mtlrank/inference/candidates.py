"""What is scored, in chunks: pairs from files or a program, a run with its texts, or documents that BM25 retrieves."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mtlrank.batch import Span
from mtlrank.checks import parse_number
from mtlrank.chunks import chunks
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.collection.rows import PairValue
from mtlrank.datamodule.dataset.bm25_text import BM25Text
from mtlrank.datamodule.lines import clean_text, is_header, read_cells, wrong_id
from mtlrank.datamodule.parquet import has_named_fields, read_objects
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.inference.pair_store import PairStore, StoredPair
from mtlrank.inference.program_input import iterable, plain
from mtlrank.words import counted

_KEYS = ("query_id", "doc_id", "query", "text")


class Candidate(NamedTuple):
    """A query and a passage to score, or a text without a query. A head on spans scores each of its items."""

    number: int  # in the store of pairs
    place: str  # for errors
    query: str | None
    text: str
    items: tuple[tuple[Span, ...], ...] = ((),)  # the spans of each, in characters
    spans_in: Literal["text", "query"] = "text"
    note: str | None = None  # between query and text, as in `Record`

    @property
    def located(self) -> str:
        """The text that the spans are in."""
        return self.query if self.spans_in == "query" and self.query is not None else self.text


def pairs_of_files(
    paths: Sequence[Path],
    reading: Reading,
    store: PairStore,
    size: int,
    holds: Callable[[str], bool] = lambda _: True,
    bm25_text: BM25Text | None = None,
) -> Iterator[list[Candidate]]:
    """The pairs of TSV (query_id, doc_id, query, text), JSON Lines or Parquet files (the same keys), in the files' order.

    `holds` says of a query id whether its pairs are wanted. With `bm25_text`, there is one more key, bm25.
    """
    keys = _KEYS if bm25_text is None else (*_KEYS, "bm25")
    rows = chain.from_iterable(_rows(path, each, keys) for path, each in reading.each(paths))
    for chunk in chunks((row for row in rows if holds(row[1][0])), size):
        store.check_texts(_named_texts(chunk))
        asked = store.add([(query_id, doc_id, 0.0, place) for place, (query_id, doc_id, *_) in chunk])
        candidates = []
        for pair, (place, (_, _, query, text, *score)) in zip(asked, chunk, strict=True):
            note = bm25_text.of(_number(score[0], place)) if bm25_text else None
            candidates.append(_candidate(pair, query, text, reading, note))
        yield candidates


def pairs_of_texts(
    pairs: Iterable[tuple[Any, ...]], size: int, bm25_text: BM25Text | None = None
) -> Iterator[list[Candidate]]:
    """Pairs of a query and a passage from a program, in their order. With `bm25_text`, each has its BM25 score, too."""
    reading = Reading(hint=False)
    for chunk in chunks(enumerate(iterable(pairs, "pairs")), size):
        yield [_pair_of_program(number, plain(pair), reading, bm25_text) for number, pair in chunk]


def pairs_of_run(
    collection: Collection,
    store: PairStore,
    size: int,
    top_k: int | None,
    missing_texts: str,
    missing_queries: str = "stop",
    bm25_text: BM25Text | None = None,
) -> Iterator[list[Candidate]]:
    """The first `top_k` documents of each query of the collection's run, in the order of the collection's queries."""
    if top_k is not None:
        collection.require_order("top_k")
    store.order_queries(collection.queries)
    for chunk in chunks(_lines_of_run(collection, missing_queries), size):
        store.add(chunk)
    done = 0
    for asked in chunks(store.best(top_k), size):
        yield _with_texts(asked, collection, missing_texts, bm25_text, is_first=not done)
        done += len(asked)
        collection.reading.at(done, len(store))


def _lines_of_run(collection: Collection, missing_queries: str) -> Iterator[PairValue]:
    """The run's lines of wanted queries. Lines of queries without a text are counted if `missing_queries` is "skip".

    Raises `DataError` for such a query otherwise, and if all queries of the run are such, also those that are not wanted.
    """
    missing, first, is_known = 0, None, False
    for row in collection.source.pair_values("run", collection.reading):
        if row.query_id in collection.all_queries:
            is_known = True
            if collection.holds(row.query_id):
                yield row
        elif missing_queries == "stop":
            raise DataError(
                f"{row.place}: query {row.query_id!r} has no text in {collection.source.name}. Add it, or leave its "
                "documents out of the run."
            )
        else:
            first = first or row
            missing += collection.holds(row.query_id)
    if first and not is_known:
        raise DataError(
            f"{first.place}: query {first.query_id!r} has no text in {collection.source.name}, and neither has any other "
            "query of the run. Give the queries that it was made for."
        )
    collection.reading.count("run lines of queries without a text", missing)


def pairs_retrieved(
    collection: Collection,
    store: PairStore,
    size: int,
    depth: int,
    missing_texts: str,
    bm25_text: BM25Text | None = None,
) -> Iterator[list[Candidate]]:
    """The best `depth` documents of each query by BM25."""
    for number, chunk in enumerate(chunks(_retrieved(collection, depth), size)):
        yield _with_texts(store.add(chunk), collection, missing_texts, bm25_text, is_first=not number)


def _retrieved(collection: Collection, depth: int) -> Iterator[tuple[str, str, float, str]]:
    for number, query_id in enumerate(collection.queries):
        collection.reading.at(number, len(collection.queries))
        for doc in collection.candidates([query_id], depth)[query_id]:
            yield query_id, doc.doc_id, doc.score, f"{collection.source.name}, query {query_id!r}"


def _with_texts(
    asked: Sequence[StoredPair],
    collection: Collection,
    missing_texts: str,
    bm25_text: BM25Text | None,
    *,
    is_first: bool,
) -> list[Candidate]:
    """Candidates with their texts. Raises `DataError` for a document without a text, unless `missing_texts` is "skip".

    If none of the first chunk has one, these are documents of another collection.
    """
    texts = collection.docs.texts(pair.doc_id for pair in asked)
    missing = [pair for pair in asked if pair.doc_id not in texts]
    if missing_texts == "stop" and is_first and len(missing) == len(asked) > 1:
        number = len({pair.doc_id for pair in missing})
        raise DataError(
            f"{missing[0].place}: none of {counted(number, 'document')}, such as {missing[0].doc_id!r}, has a text in "
            f"{collection.source.name}. Give the documents that the run was made for."
        )
    if missing and missing_texts == "stop":
        first = missing[0]
        raise DataError(
            f"{first.place}: document {first.doc_id!r} of query {first.query_id!r} has no text, or a blank one, in "
            f"{collection.source.name}. missing_texts=skip leaves such documents out."
        )
    collection.reading.count("documents without a text", len(missing))
    complete = [pair for pair in asked if pair.doc_id in texts]
    pairs = [(pair.query_id, pair.doc_id) for pair in complete]
    notes = bm25_text.of_pairs(pairs, collection) if bm25_text else [None] * len(pairs)
    queries, reading = collection.queries, collection.reading
    return [
        _candidate(pair, queries[pair.query_id], texts[pair.doc_id], reading, note)
        for pair, note in zip(complete, notes, strict=True)
    ]


def _pair_of_program(number: int, pair: tuple[Any, ...], reading: Reading, bm25_text: BM25Text | None) -> Candidate:
    place, stored = f"pairs[{number}]", StoredPair(number, "", "", f"pairs[{number}]")
    match pair:
        case (str(query), str(text)) if bm25_text is None:
            return _candidate(stored, query, text, reading)
        case (str(query), str(text), int() | float() as score) if bm25_text and not isinstance(score, bool):
            return _candidate(stored, query, text, reading, bm25_text.of(_number(score, place)))
    more = ", and their BM25 score" if bm25_text else ""
    raise DataError(f"{place}: expected two texts, a query and a passage{more}, found {pair!r}.")


def _number(score: Any, place: str) -> float:
    """A BM25 score. Raises `DataError` for what is none."""
    try:
        number = parse_number(score) if isinstance(score, str) else float(score)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{place}: expected a BM25 score (bm25), found {score!r:.40}.")
    return number


def _candidate(pair: StoredPair, query: str, text: str, reading: Reading, note: str | None = None) -> Candidate:
    """A candidate with cleaned texts."""
    query, text = (cleaned(words, what, pair.place, reading) for what, words in (("query", query), ("text", text)))
    return Candidate(pair.number, pair.place, query, text, note=note)


def cleaned(text: str, what: str, place: str, reading: Reading) -> str:
    """A text with control characters read as blanks. Raises `DataError` if it is no text; `what` names it in errors."""
    try:
        words, times = clean_text(text, what)
    except DataError as error:
        raise DataError(f"{place}: expected text, but {error}.") from error
    reading.count("control characters read as blanks", times)
    return words


def _rows(path: Path, reading: Reading, keys: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(place, what the row has for the keys) of each row."""
    rows = _named_rows(path, reading, keys) if has_named_fields(path) else _tsv_rows(path, reading, keys)
    for place, row in rows:
        for what, name in zip(("query_id", "doc_id"), row, strict=False):
            if wrong := wrong_id(what, name):
                reading.reject(place, wrong)
        yield place, row


def _tsv_rows(path: Path, reading: Reading, keys: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for number, (place, row) in enumerate(read_cells(path, len(keys), ", ".join(keys), reading)):
        if number == 0 and is_header(row[:2]):
            raise DataError(
                f"{place}: found a header, but TSV files are expected to start with their first pair. Delete the line."
            )
        yield place, row


def _named_rows(path: Path, reading: Reading, keys: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for place, row in read_objects(path, keys, reading):
        missing = [key for key in _KEYS if not isinstance(row.get(key), str | int) or isinstance(row.get(key), bool)]
        if missing:
            reading.reject(place, f"expected text for {', '.join(_KEYS)}, found none for {', '.join(missing)}")
        yield place, [str(row.get(key)) for key in keys]


def _named_texts(rows: Iterable[tuple[str, list[str]]]) -> Iterator[tuple[str, str, str]]:
    """(name, text, place) of each text, with the place of its first occurrence."""
    places = dict[tuple[str, str], str]()
    for place, (query_id, doc_id, query, text, *_) in rows:
        places.setdefault((f"query {query_id!r}", query), place)
        places.setdefault((f"document {doc_id!r}", text), place)
    return ((name, text, place) for (name, text), place in places.items())
