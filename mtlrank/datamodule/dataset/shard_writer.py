"""Writing a shard of a dataset: its samples, with every text tokenised once."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from mtlrank.batch import Record, Span
from mtlrank.datamodule.dataset.split_files import NO_TEXT, SplitFiles, StoredRecord
from mtlrank.datamodule.dataset.text_table import TextTable, TokenisedText
from mtlrank.datamodule.lines import clean_text, wrong_id
from mtlrank.datamodule.preprocessor import LoadedPreprocessor, Tokens
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.task import Task

_CHUNK = 2_000  # records that are in memory at a time


class ShardWriter:
    """Checks records and writes them as rows, a chunk at a time."""

    def __init__(self, folder: Path, task: Task, preprocessor: LoadedPreprocessor, reading: Reading) -> None:
        self.folder = folder
        self.task = task
        self.preprocessor = preprocessor
        self.reading = reading
        self.texts = TextTable(folder, preprocessor)
        self.classes: dict[str, int] = {}  # in the order of arrival
        self.first_place: dict[str, dict[str, str]] = {}  # by split and class, for errors that come later

    def write(self, split: str, samples: Iterable[list[Record]]) -> dict[str, int]:
        """Write one split; returns its counts."""
        self.reading.start(split)
        files = SplitFiles(self.folder / split, self.task.num_spans)
        with files:
            for chunk in _chunks(self._counted(samples)):
                self._add(chunk, split, files)
        return files.counts

    def _counted(self, samples: Iterable[list[Record]]) -> Iterator[list[Record]]:
        """Pass samples on and count them as progress at once: an annotator may take minutes for a chunk."""
        for sample in samples:
            self.reading.progress.advance(len(sample))
            yield sample

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the files that all splits share."""
        self.texts.close()

    def _add(self, chunk: list[list[Record]], split: str, files: SplitFiles) -> None:
        samples = [[good for record in sample if (good := self._checked(record, split))] for sample in chunk]
        records = [record for sample in samples for record in sample]
        texts = (t for record in records for t in (record.query, record.text, record.note) if t is not None)
        located = {record.text if record.spans_in == "text" else record.query for record in records if record.spans}
        rows, places = self.texts.add(list(texts), (text for text in located if text is not None))
        wrong = self._unusable(records, rows, split)
        kept = [[record for record in sample if id(record) not in wrong] for sample in samples]
        written = [[self._row(record, rows, places) for record in sample] for sample in kept]
        files.add(written)
        if self.classes:
            self._remember_places(split, chain.from_iterable(kept), chain.from_iterable(written))

    def _checked(self, record: Record, split: str) -> Record | None:
        """The record with a label as it is stored, or None if it cannot be used and may be left out."""
        try:
            good, times = usable(record, self.task)
        except DataError as error:
            self.reading.reject(
                place_of(record, split), str(error), f"{record.query or ''}\t{record.text}\t{record.label}"
            )
            return None
        self.reading.count("control characters read as blanks", times)
        if isinstance(good.label, str):
            good = good._replace(label=self.classes.setdefault(good.label, len(self.classes)))
        return good

    def _remember_places(self, split: str, records: Iterable[Record], rows: Iterable[StoredRecord]) -> None:
        """Note where each class comes first among the records that were kept."""
        names, first = list(self.classes), self.first_place.setdefault(split, {})
        for record, row in zip(records, rows, strict=True):
            if row.spans is not None and names[int(row.label)] not in first:
                first[names[int(row.label)]] = place_of(record, split)

    def _unusable(self, records: list[Record], rows: dict[str, TokenisedText], split: str) -> set[int]:
        """Records (by `id()`) with an id that had another text before in this split, or with a text without tokens."""
        named = [_by_name(record, rows, split) for record in records]
        first = {name: text.row for texts in reversed(named) for name, text in texts.items()}
        claimed = self.texts.claim(first)
        wrong = set[int]()
        for record, texts in zip(records, named, strict=True):
            if not all(text.length for text in texts.values()):
                reason = "expected text, found one without tokens"
            elif any(claimed[name] != text.row for name, text in texts.items()):
                found = f"query {record.query_id!r} or doc {record.doc_id!r} has two different texts"
                reason = f"{found}, one of them {record.text[:40]!r}"
            else:
                continue
            wrong.add(id(record))
            self.reading.reject(place_of(record, split), reason, record.text)
        return wrong

    def _row(self, record: Record, rows: dict[str, TokenisedText], places: dict[str, Tokens]) -> StoredRecord:
        """Rows of the texts, label and spans of a record; no spans if one is cut off, or holds no token."""
        text = rows[record.text]
        if record.query is None:
            texts, room = (text.row, NO_TEXT, NO_TEXT), self.preprocessor.room()
            cut = text.length > room.length
        else:
            query = rows[record.query]
            note = None if record.note is None else rows[record.note]
            texts = query.row, text.row, note.row if note else NO_TEXT
            of_query, room = self.preprocessor.rooms(query.length, text.length, note.length if note else 0)
            cut = query.length > of_query.length or text.length > self.preprocessor.lengths.reach(room.length)
        spans: list[Span] | None = []
        if record.spans and record.spans_in == "query" and record.query is not None:
            spans = places[record.query].positions(record.spans, of_query)
        elif record.spans:
            spans = places[record.text].positions(record.spans, room)
        return StoredRecord((record.query_id, record.doc_id), texts, float(record.label), spans, cut)


def _by_name(record: Record, rows: dict[str, TokenisedText], split: str) -> dict[str, TokenisedText]:
    """The texts of a record, each by a name made of split and id."""
    texts = {f"{split} doc {record.doc_id}": rows[record.text]}
    if record.query is not None:
        texts[f"{split} query {record.query_id}"] = rows[record.query]
    return texts


def samples_of(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Samples: consecutive records of the same group, or a record without a group."""
    sample: list[Record] = []
    for record in records:
        if sample and (record.group is None or record.group != sample[-1].group):
            yield sample
            sample = []
        sample.append(record)
    if sample:
        yield sample


def _chunks(samples: Iterable[list[Record]]) -> Iterator[list[list[Record]]]:
    chunk, records = list[list[Record]](), 0
    for sample in samples:
        chunk.append(sample)
        records += len(sample)
        if records >= _CHUNK:
            yield chunk
            chunk, records = [], 0
    if chunk:
        yield chunk


def usable(record: Record, task: Task) -> tuple[Record, int]:
    """The record with parsed label and cleaned texts, and how many control characters became blanks.

    Raises `DataError` if it is a bad row.
    """
    _check(record, task)
    query, in_query = (None, 0) if record.query is None else clean_text(record.query, "query")
    text, in_text = clean_text(record.text, "text")
    label, in_label = task.parse_label(record.label), 0
    if isinstance(label, str):
        label, in_label = clean_text(label, "label")
        label = label.strip()  # invisible blanks should not make another class
    return record._replace(query=query, text=text, label=label), in_query + in_text + in_label


def _check(record: Record, task: Task) -> None:
    for what, name in (("query_id", record.query_id), ("doc_id", record.doc_id)):
        if wrong := wrong_id(what, name):
            raise DataError(wrong)
    if record.query is None and task.kind == "ranking":
        raise DataError("expected a query, as the task is a ranking, found none")
    if len(record.spans) != task.num_spans:
        raise DataError(f"expected {task.num_spans} spans, found {len(record.spans)}")
    check_spans(record.spans, record.text if record.spans_in == "text" else record.query or "")


def check_spans(spans: Iterable[Span], text: str) -> None:
    """Raise `DataError` for spans that are empty or outside the text."""
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            if start >= end:
                raise DataError(f"span {start}:{end} has no characters: expected start < end")
            raise DataError(f"span {start}:{end} lies outside the text, which has {len(text)} characters")


def place_of(record: Record, split: str) -> str:
    """The place of a record, for errors."""
    return record.place or f"{split}, query {record.query_id!r}, doc {record.doc_id!r}"
