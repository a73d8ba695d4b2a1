"""A collection's documents on disk: read once, checked once, looked up by id without holding them in memory."""

import json
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import count
from pathlib import Path

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.chunks import chunks
from mtlrank.datamodule.collection.rows import Text
from mtlrank.datamodule.collection.source import Source
from mtlrank.datamodule.lines import IMPOSSIBLE, wrong_id
from mtlrank.datamodule.reading import Reading
from mtlrank.errors import DataError
from mtlrank.storage import fingerprint, home, locked, new_file, new_folder, writable_folder

_CHUNK = 5_000
VERSION = 1  # of the layout: raise it when older stores can no longer be read
_LAYOUT = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
PRAGMA cache_size=-65536;
CREATE TABLE docs (position INTEGER PRIMARY KEY, name TEXT, text TEXT, place TEXT);
"""


class DocStore:
    """The documents of a source, by id and by position, in an SQLite file below `$MTLRANK_HOME/collections`.

    The first process that needs the file makes it. Its name contains a hash of where the documents are read from, so that
    changed files get a new one. Ids are unique: a document that is there twice with the same text is kept once, with two
    texts it is a bad row.
    """

    def __init__(self, source: Source, reading: Reading) -> None:
        name = Path(str(source.identity("docs")[0])).name[:40]  # splits of one collection share its documents
        self.folder = writable_folder(
            home() / "collections" / f"{name}-{fingerprint([VERSION, *source.identity('docs')])}"
        )
        self.path = self.folder / "docs.sqlite"
        self._bm25_settings = source.bm25_settings
        if not self.path.exists():
            with locked(self.folder):
                if not self.path.exists():
                    self._build(source)
        uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"  # quotes what a file name may hold
        self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        try:
            (self._size,) = self._database.execute("SELECT count(*) FROM docs").fetchone()
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path} is damaged: {error}. Remove {self.folder}; it will be rebuilt.") from error
        self._pass_on(reading)

    def __len__(self) -> int:
        return int(self._size)

    def texts(self, doc_ids: Iterable[str]) -> dict[str, str]:
        """The texts of the documents that exist and are not blank."""
        wanted, found = dict.fromkeys(doc_ids), dict[str, str]()
        for chunk in chunks(wanted, _CHUNK):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT name, text FROM docs WHERE name IN ({marks})"  # noqa: S608 - only question marks
            found.update((name, text) for name, text in self._database.execute(query, chunk) if text.strip())
        return found

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(doc_id, text) of every document, blank ones too, in the order of their positions."""
        yield from self._database.execute("SELECT name, text FROM docs ORDER BY position")

    def names(self, positions: Sequence[int]) -> list[str]:
        """The ids of the documents at some positions, counted from 0."""
        query = "SELECT name FROM docs WHERE position = ?"
        return [self._database.execute(query, (int(position),)).fetchone()[0] for position in positions]

    def positions(self, doc_ids: Iterable[str]) -> dict[str, int]:
        """The position of each document; unknown ids are left out."""
        query = "SELECT position FROM docs WHERE name = ?"
        found = ((doc_id, self._database.execute(query, (doc_id,)).fetchone()) for doc_id in dict.fromkeys(doc_ids))
        return {doc_id: row[0] for doc_id, row in found if row}

    @cached_property
    def bm25(self) -> BM25Index:
        """A BM25 index of all documents by the source's settings, kept beside the store. It is built in memory."""
        settings = self._bm25_settings
        folder = self.folder / f"bm25-{BM25Index.FORMAT}{settings.suffix}"
        with locked(self.folder):
            if not folder.exists():
                index = BM25Index.build((text for _, text in self), settings)
                if not index.num_terms:
                    raise DataError(
                        f"The collection of {self.folder.name} has no documents with text to retrieve from: BM25 needs "
                        "words of two letters or more."
                    )
                with new_folder(folder) as part:
                    index.save(part)
        try:
            return BM25Index.load(folder, settings)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"The index {folder} is damaged: {error}. Remove it; it will be rebuilt.") from error

    def _build(self, source: Source) -> None:
        """Read the source into a new file. It keeps the bad rows too, for the reading of each process that opens it."""
        noted = Reading("quarantine", max_bad_rows=10_000, what=f"the documents of {source.name}")
        noted.start("collection")
        with new_file(self.path) as part, closing(sqlite3.connect(part)) as database:
            database.executescript(_LAYOUT)
            positions = count()
            for chunk in chunks(source.texts("docs", noted), _CHUNK):
                values = [(next(positions), doc.name, doc.text, doc.place) for doc in chunk if _is_usable(doc, noted)]
                database.executemany("INSERT INTO docs VALUES (?, ?, ?, ?)", values)
                noted.progress.advance(len(chunk))
            twice = _merge_duplicates(database, noted)
            database.execute("CREATE TABLE notes (value TEXT)")
            notes = {"twice": twice, "bad_rows": list(noted.bad_rows.values())}
            database.execute("INSERT INTO notes VALUES (?)", [json.dumps(notes)])
            database.commit()

    def _pass_on(self, reading: Reading) -> None:
        """Report the bad rows of the build to the reading that uses the store."""
        notes = json.loads(self._database.execute("SELECT value FROM notes").fetchone()[0])
        for place, reason, row in notes["bad_rows"]:
            reading.reject(place, reason, row)
        self.twice: int = notes["twice"]


def _is_usable(doc: Text, noted: Reading) -> bool:
    """Whether the document's id can be used in a TREC file, and its text has no invalid character."""
    reason = wrong_id("doc_id", doc.name)
    if not reason and (wrong := IMPOSSIBLE.search(doc.text)):
        reason = f"expected text, found the invalid character {wrong[0]!r}"
    if reason:
        noted.reject(doc.place, reason, doc.text)
    return not reason


def _merge_duplicates(database: sqlite3.Connection, noted: Reading) -> int:
    """Leave one document of each id; returns how many were repeated with the same text."""
    database.execute("CREATE INDEX by_name ON docs (name)")
    names = "SELECT name FROM docs GROUP BY name HAVING count(*) > 1 ORDER BY min(position)"
    doubled = database.execute(names).fetchall()
    if not doubled:
        return 0
    twice = 0
    for (name,) in doubled:
        rows = "SELECT position, text, place FROM docs WHERE name = ? ORDER BY position"
        (_, text, first), *others = database.execute(rows, (name,)).fetchall()
        for position, other, place in others:
            database.execute("DELETE FROM docs WHERE position = ?", (position,))
            twice += other == text
            if other != text:
                noted.reject(place, f"document {name!r} has a different text at {first}", other)
    database.execute("CREATE TABLE kept AS SELECT * FROM docs ORDER BY position")
    database.execute("DELETE FROM docs")
    database.execute("INSERT INTO docs SELECT row_number() OVER (ORDER BY position) - 1, name, text, place FROM kept")
    database.execute("DROP TABLE kept")
    return twice
