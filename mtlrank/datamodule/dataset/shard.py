"""A shard: one share of a dataset's samples, written by one process, with every text of it tokenised once."""

import hashlib
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtlrank.batch import Record, Span
from mtlrank.datamodule.chunks import chunks
from mtlrank.datamodule.dataset.arrays import ArrayFile, offsets
from mtlrank.datamodule.lines import IMPOSSIBLE, clean_text
from mtlrank.datamodule.preprocessor import Ids, LoadedPreprocessor, Tokens
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import ConfigError, DataError
from mtlrank.task import Task

NO_TEXT = -1
_CHUNK = 2_000  # records that are in memory at a time


class Share(NamedTuple):
    """Shard `number` (from 1) of `total`: samples belong to one by a hash of their query, or of their document."""

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """From `3/8`. Raises `ConfigError` for anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"The shard is {text!r}, expected i/n with i from 1 to n, as in 3/8.")
        return cls(int(found[1]), int(found[2]))

    @property
    def folder(self) -> str:
        """The name of the shard's folder."""
        return f"shard-{self.number}-of-{self.total}"

    def holds(self, key: str) -> bool:
        """Whether the samples of a query (or, where there is none, of a document) belong to this shard."""
        return self.total == 1 or zlib.crc32(key.encode("utf-8", "surrogatepass")) % self.total == self.number - 1


class Text(NamedTuple):
    """A text that has been tokenised."""

    row: int
    length: int  # in tokens, at most `max_length`


class TextTable:
    """The distinct texts of a shard: tokenised when they first come, and told by a hash that is kept on disk.

    `tokens.npy` holds all tokens, `token_offsets.npy` where each text's begin.
    """

    def __init__(self, folder: Path, preprocessor: LoadedPreprocessor) -> None:
        self.preprocessor = preprocessor
        dtype = np.uint16 if preprocessor.largest_id < 2**16 else np.uint32
        self.tokens = ArrayFile(folder / "tokens.npy", dtype)
        self.offsets = ArrayFile(folder / "token_offsets.npy", np.int64)
        self.offsets.append([0])
        self._path = folder / ".texts.sqlite"
        self._database = sqlite3.connect(self._path)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384", "locking_mode=EXCLUSIVE"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE texts (key BLOB PRIMARY KEY, row INT, length INT) WITHOUT ROWID")
        self._database.execute("CREATE TABLE names (key INTEGER PRIMARY KEY, row INT)")

    def add(self, texts: Sequence[str], located: Iterable[str]) -> tuple[dict[str, Text], dict[str, Tokens]]:
        """Tokenise what is new among `texts`; tell all of them, and where the characters of the `located` ones went."""
        keys = {text: _key(text) for text in texts}
        known = self._known(keys.values())
        located = list(dict.fromkeys(located))
        places = dict(zip(located, self.preprocessor.encode(located), strict=True))
        new = [text for text, key in keys.items() if key not in known]
        plain = [text for text in new if text not in places]
        ids = dict(zip(plain, self.preprocessor.ids(plain), strict=True))
        self._append(new, [places[text].ids if text in places else ids[text] for text in new], keys, known)
        return {text: known[key] for text, key in keys.items()}, places

    def _append(self, texts: list[str], ids: list[Ids], keys: dict[str, bytes], known: dict[bytes, Text]) -> None:
        """Give new texts the next rows, in the order of their arrival."""
        longest, first = self.preprocessor.max_length, self.offsets.rows - 1
        kept = [tokens[:longest] for tokens in ids]
        lengths = [len(tokens) for tokens in kept]
        self.offsets.append(self.tokens.rows + offsets(lengths)[1:])
        self.tokens.append(np.concatenate([np.zeros(0, np.int32), *kept]))
        added = {keys[text]: Text(first + i, lengths[i]) for i, text in enumerate(texts)}
        self._database.executemany("INSERT INTO texts VALUES (?, ?, ?)", [(key, *text) for key, text in added.items()])
        known.update(added)

    def claim(self, names: dict[str, int]) -> dict[str, int]:
        """The row that each name stands for: the given one, unless the name was claimed for another one before."""
        keys = {name: int.from_bytes(_key(name)[:8], signed=True) for name in names}
        known = dict(self._select("key, row", "names", keys.values()))
        new = [(keys[name], row) for name, row in names.items() if keys[name] not in known]
        self._database.executemany("INSERT INTO names VALUES (?, ?)", new)
        return {name: known.get(keys[name], row) for name, row in names.items()}

    def close(self) -> None:
        """Finish the files; the hashes are not needed any more."""
        self.tokens.close()
        self.offsets.close()
        self._database.close()
        self._path.unlink()

    def _known(self, keys: Iterable[bytes]) -> dict[bytes, Text]:
        return {key: Text(row, length) for key, row, length in self._select("key, row, length", "texts", keys)}

    def _select(self, columns: str, table: str, keys: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        for chunk in chunks(keys, 1000):
            marks = ",".join("?" * len(chunk))
            yield from self._database.execute(f"SELECT {columns} FROM {table} WHERE key IN ({marks})", chunk)  # noqa: S608


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
        self.reading.split = split
        self.reading.progress.start(split)
        files = SplitFiles(self.folder / split, self.task.num_spans)
        with files:
            for chunk in _chunks(self._counted(samples)):
                self._add(chunk, split, files)
        return files.counts

    def _counted(self, samples: Iterable[list[Record]]) -> Iterator[list[Record]]:
        """Samples, which progress hears of as they come: an annotator may take minutes for what is written at once."""
        for sample in samples:
            self.reading.progress.advance(len(sample))
            yield sample

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the files that all splits share."""
        self.texts.close()

    def _add(self, chunk: list[list[Record]], split: str, files: "SplitFiles") -> None:
        samples = [[good for record in sample if (good := self._checked(record, split))] for sample in chunk]
        records = [record for sample in samples for record in sample]
        texts = (text for record in records for text in (record.query, record.text) if text is not None)
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
            _check(record, self.task)
            query = None if record.query is None else self._clean(record.query, "query")
            text = self._clean(record.text, "text")
            label = self.task.parse_label(record.label)
            if isinstance(label, str) and IMPOSSIBLE.search(label):
                raise DataError(f"label {label!r} is no text")
        except DataError as error:
            self.reading.reject(
                _place(record, split), str(error), f"{record.query or ''}\t{record.text}\t{record.label}"
            )
            return None
        if isinstance(label, str):
            label = self.classes.setdefault(label, len(self.classes))
        return record._replace(query=query, text=text, label=label)

    def _remember_places(self, split: str, records: Iterable[Record], rows: "Iterable[Row]") -> None:
        """Where each class is met first, of what was kept."""
        names, first = list(self.classes), self.first_place.setdefault(split, {})
        for record, row in zip(records, rows, strict=True):
            if row.spans is not None and names[int(row.label)] not in first:
                first[names[int(row.label)]] = _place(record, split)

    def _clean(self, text: str, what: str) -> str:
        """Text with blanks for control characters, which are counted."""
        cleaned, times = clean_text(text, what)
        self.reading.count("control characters read as blanks", times)
        return cleaned

    def _unusable(self, records: list[Record], rows: dict[str, Text], split: str) -> set[int]:
        """Records whose ids stand for another text than the first time in this split, or whose text has no token."""
        names = dict[str, int]()
        for record in records:
            names.setdefault(f"{split} doc {record.doc_id}", rows[record.text].row)
            if record.query is not None:
                names.setdefault(f"{split} query {record.query_id}", rows[record.query].row)
        claimed = self.texts.claim(names)
        wrong = set[int]()
        for record in records:
            if not rows[record.text].length or (record.query is not None and not rows[record.query].length):
                wrong.add(id(record))
                self.reading.reject(
                    _place(record, split), "expected text, found nothing that makes a token", record.text
                )
                continue
            same = claimed[f"{split} doc {record.doc_id}"] == rows[record.text].row
            if record.query is not None:
                same = same and claimed[f"{split} query {record.query_id}"] == rows[record.query].row
            if not same:
                wrong.add(id(record))
                found = f"query {record.query_id!r} or doc {record.doc_id!r} stands for two different texts"
                self.reading.reject(_place(record, split), f"{found}, one of them {record.text[:40]!r}", record.text)
        return wrong

    def _row(self, record: Record, rows: dict[str, Text], places: dict[str, Tokens]) -> "Row":
        """Rows of the texts, label and spans of a record; no spans if truncation cuts one off."""
        layout, longest = self.preprocessor.template, self.preprocessor.max_query_length
        text = rows[record.text]
        if record.query is None:
            texts, start = (text.row, NO_TEXT), len(layout.prefix)
            room = self.preprocessor.max_length - len(layout.prefix) - len(layout.suffix)
            cut = text.length > room
        else:
            query = rows[record.query]
            texts, length = (query.row, text.row), min(query.length, longest)
            start = len(layout.prefix) + length + len(layout.middle)
            room = self.preprocessor.max_length - layout.num_special - length
            cut = query.length > longest or text.length > room
        spans: list[Span] | None = []
        if record.spans_in == "query" and record.query is not None:
            spans = _positions(record.spans, places[record.query], len(layout.prefix), longest)
        elif record.spans:
            spans = _positions(record.spans, places[record.text], start, room)
        return Row((record.query_id, record.doc_id), texts, float(record.label), spans, cut)


def _positions(spans: Iterable[Span], tokens: Tokens, start: int, room: int) -> list[Span] | None:
    """Where spans of characters are in a sequence whose text begins at `start` and has `room`; None if one is cut off."""
    found = [tokens.span(*span) for span in spans]
    kept = [(span[0] + start, span[1] + start) for span in found if span and span[1] <= room]
    return kept if len(kept) == len(found) else None


class Row(NamedTuple):
    """A record as it is stored; `spans` count from the start of the sequence and are None where truncation cut one."""

    ids: tuple[str, str]
    texts: tuple[int, int]
    label: float
    spans: list[Span] | None
    cut: bool


class SplitFiles:
    """The rows of one split: sequences, the items in them, and the samples that they form."""

    def __init__(self, folder: Path, num_spans: int) -> None:
        folder.mkdir()
        self.stack = ExitStack()
        array = lambda name, dtype, *row: self.stack.enter_context(ArrayFile(folder / f"{name}.npy", dtype, row))  # noqa: E731
        self.sequences = array("sequences", np.int32, 2)
        self.sample_offsets = array("sample_offsets", np.int64)
        self.item_offsets = array("item_offsets", np.int64)
        self.labels = array("labels", np.float32)
        self.spans = array("spans", np.int32, num_spans, 2)
        self.ids = self.stack.enter_context((folder / "ids.tsv").open("w", encoding="utf-8", newline="\n"))
        self.dropped = self.cut = 0
        self.sample_offsets.append([0])
        self.item_offsets.append([0])

    def __enter__(self) -> "SplitFiles":
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    @property
    def counts(self) -> dict[str, int]:
        """What was written and what was not."""
        counts = {"samples": self.sample_offsets.rows - 1, "sequences": self.sequences.rows, "items": self.labels.rows}
        return {**counts, "items_dropped": self.dropped, "sequences_cut": self.cut}

    def add(self, samples: list[list[Row]]) -> None:
        """Write samples. Neighbours of equal ids share a sequence; one that truncation leaves without items is left out."""
        whole = [[row for row in sample if row.spans is not None] for sample in samples]
        self.dropped += sum(map(len, samples)) - sum(map(len, whole))
        rows = [row for sample in whole for row in sample]
        starts = [not i or row.ids != sample[i - 1].ids for sample in whole for i, row in enumerate(sample)]
        first = [i for i, start in enumerate(starts) if start]  # of each sequence, the first item
        sequences = [rows[i] for i in first]
        sample_ends = np.cumsum([len(sample) for sample in whole if sample])
        per_sample = np.searchsorted(first, sample_ends)  # sequences that begin before a sample ends
        self.sample_offsets.append(self.sequences.rows + per_sample)
        self.item_offsets.append(self.labels.rows + np.array([*first[1:], len(rows)] if first else []))
        self.sequences.append([row.texts for row in sequences])
        self.labels.append([row.label for row in rows])
        self.spans.append([row.spans for row in rows])
        self.ids.write("".join(f"{row.ids[0]}\t{row.ids[1]}\n" for row in sequences))
        self.cut += sum(row.cut for row in sequences)


def samples_of(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Neighbours of the same group, as a sample each; a record without a group is one by itself."""
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


def _check(record: Record, task: Task) -> None:
    for what, name in (("query_id", record.query_id), ("doc_id", record.doc_id)):
        if not name or name.split() != [name] or IMPOSSIBLE.search(name):
            raise DataError(f"{what} {name!r} is empty or has a blank, which TREC files cannot hold")
    if len(record.spans) != task.num_spans:
        raise DataError(f"expected {task.num_spans} spans, found {len(record.spans)}")
    located = record.text if record.spans_in == "text" else record.query or ""
    for start, end in record.spans:
        if not 0 <= start < end <= len(located):
            raise DataError(f"span {start}:{end} lies outside the text, which has {len(located)} characters")


def _place(record: Record, split: str) -> str:
    """How an error names a record."""
    return record.place or f"{split}, query {record.query_id!r}, doc {record.doc_id!r}"


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
