"""What is scored, in chunks: pairs from files or a program, a run with its texts, or documents that BM25 retrieves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from mtlrank.batch import Span
from mtlrank.chunks import chunks
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.collection.rows import PairValue
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

    @property
    def located(self) -> str:
        """The text that the spans are in."""
        return self.query if self.spans_in == "query" and self.query is not None else self.text


def pairs_of_files(
    paths: Sequence[Path], reading: Reading, store: PairStore, size: int, holds: Callable[[str], bool] = lambda _: True
) -> Iterator[list[Candidate]]:
    """The pairs of TSV (query_id, doc_id, query, text), JSON Lines or Parquet files (the same keys), in the files' order.

    `holds` says of a query id whether its pairs are wanted.
    """
    rows = chain.from_iterable(_rows(path, each) for path, each in reading.each(paths))
    for chunk in chunks((row for row in rows if holds(row[1][0])), size):
        store.check_texts(_named_texts(chunk))
        asked = store.add([(query_id, doc_id, 0.0, place) for place, (query_id, doc_id, *_) in chunk])
        yield [
            _candidate(pair, query, text, reading) for pair, (_, (_, _, query, text)) in zip(asked, chunk, strict=True)
        ]


def pairs_of_texts(pairs: Iterable[tuple[str, str]], size: int) -> Iterator[list[Candidate]]:
    """Pairs of a query and a passage from a program, in their order."""
    reading = Reading(hint=False)
    for chunk in chunks(enumerate(iterable(pairs, "pairs")), size):
        yield [_pair_of_program(number, plain(pair), reading) for number, pair in chunk]


def pairs_of_run(
    collection: Collection,
    store: PairStore,
    size: int,
    top_k: int | None,
    missing_texts: str,
    missing_queries: str = "stop",
) -> Iterator[list[Candidate]]:
    """The first `top_k` documents of each query of the collection's run, in the order of the collection's queries."""
    if top_k is not None:
        collection.require_order("top_k")
    store.order_queries(collection.queries)
    for chunk in chunks(_lines_of_run(collection, missing_queries), size):
        store.add(chunk)
    done = 0
    for asked in chunks(store.best(top_k), size):
        yield _with_texts(asked, collection, missing_texts, is_first=not done)
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
    collection: Collection, store: PairStore, size: int, depth: int, missing_texts: str
) -> Iterator[list[Candidate]]:
    """The best `depth` documents of each query by BM25."""
    for number, chunk in enumerate(chunks(_retrieved(collection, depth), size)):
        yield _with_texts(store.add(chunk), collection, missing_texts, is_first=not number)


def _retrieved(collection: Collection, depth: int) -> Iterator[tuple[str, str, float, str]]:
    for number, query_id in enumerate(collection.queries):
        collection.reading.at(number, len(collection.queries))
        for doc in collection.candidates([query_id], depth)[query_id]:
            yield query_id, doc.doc_id, doc.score, f"{collection.source.name}, query {query_id!r}"


def _with_texts(
    asked: Sequence[StoredPair], collection: Collection, missing_texts: str, *, is_first: bool
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
    complete = (pair for pair in asked if pair.doc_id in texts)
    return [_candidate(p, collection.queries[p.query_id], texts[p.doc_id], collection.reading) for p in complete]


def _pair_of_program(number: int, pair: tuple[str, str], reading: Reading) -> Candidate:
    place = f"pairs[{number}]"
    match pair:
        case (str(query), str(text)):
            return _candidate(StoredPair(number, "", "", place), query, text, reading)
    raise DataError(f"{place}: expected two texts, a query and a passage, found {pair!r}.")


def _candidate(pair: StoredPair, query: str, text: str, reading: Reading) -> Candidate:
    """A candidate with cleaned texts."""
    query, text = (cleaned(words, what, pair.place, reading) for what, words in (("query", query), ("text", text)))
    return Candidate(pair.number, pair.place, query, text)


def cleaned(text: str, what: str, place: str, reading: Reading) -> str:
    """A text with control characters read as blanks. Raises `DataError` if it is no text; `what` names it in errors."""
    try:
        words, times = clean_text(text, what)
    except DataError as error:
        raise DataError(f"{place}: expected text, but {error}.") from error
    reading.count("control characters read as blanks", times)
    return words


def _rows(path: Path, reading: Reading) -> Iterator[tuple[str, list[str]]]:
    """(place, [query_id, doc_id, query, text]) of each row."""
    rows = _named_rows(path, reading) if has_named_fields(path) else _tsv_rows(path, reading)
    for place, row in rows:
        for what, name in zip(("query_id", "doc_id"), row, strict=False):
            if wrong := wrong_id(what, name):
                reading.reject(place, wrong)
        yield place, row


def _tsv_rows(path: Path, reading: Reading) -> Iterator[tuple[str, list[str]]]:
    for number, (place, row) in enumerate(read_cells(path, len(_KEYS), ", ".join(_KEYS), reading)):
        if number == 0 and is_header(row[:2]):
            raise DataError(
                f"{place}: found a header, but TSV files are expected to start with their first pair. Delete the line."
            )
        yield place, row


def _named_rows(path: Path, reading: Reading) -> Iterator[tuple[str, list[str]]]:
    for place, row in read_objects(path, _KEYS, reading):
        missing = [key for key in _KEYS if not isinstance(row.get(key), str | int) or isinstance(row.get(key), bool)]
        if missing:
            reading.reject(place, f"expected text for {', '.join(_KEYS)}, found none for {', '.join(missing)}")
        yield place, [str(row[key]) for key in _KEYS]


def _named_texts(rows: Iterable[tuple[str, list[str]]]) -> Iterator[tuple[str, str, str]]:
    """(name, text, place) of each text, with the place of its first occurrence."""
    places = dict[tuple[str, str], str]()
    for place, (query_id, doc_id, query, text) in rows:
        places.setdefault((f"query {query_id!r}", query), place)
        places.setdefault((f"document {doc_id!r}", text), place)
    return ((name, text, place) for (name, text), place in places.items())
