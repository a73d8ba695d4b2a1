"""The distinct texts of a shard."""

import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtlrank.chunks import chunks
from mtlrank.datamodule.dataset.arrays import ArrayFile, offsets
from mtlrank.datamodule.preprocessor import Ids, LoadedPreprocessor, Tokens
from mtlrank.datamodule.short_hash import short_hash

_LAYOUT = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
PRAGMA cache_size=-16384;
PRAGMA locking_mode=EXCLUSIVE;
CREATE TABLE texts (key BLOB PRIMARY KEY, row INT, length INT) WITHOUT ROWID;
CREATE TABLE names (key INTEGER PRIMARY KEY, row INT);
"""


class TokenisedText(NamedTuple):
    """A text that has been tokenised."""

    row: int
    length: int  # in tokens, of what is kept


class TextTable:
    """The distinct texts of a shard: tokenised when they first occur, and identified by a hash that is kept on disk.

    `tokens.npy` holds all tokens, `token_offsets.npy` where those of each text begin.
    """

    def __init__(self, folder: Path, preprocessor: LoadedPreprocessor) -> None:
        self.preprocessor = preprocessor
        dtype = np.uint16 if preprocessor.largest_id < 2**16 else np.uint32
        self.tokens = ArrayFile(folder / "tokens.npy", dtype)
        self.offsets = ArrayFile(folder / "token_offsets.npy", np.int64)
        self.offsets.append([0])
        self.num_unknown = 0  # tokens of words that the vocabulary lacks
        self._path = folder / ".texts.sqlite"
        self._database = sqlite3.connect(self._path)
        weakref.finalize(self, self._database.close)  # of a shard that is not finished
        self._database.executescript(_LAYOUT)

    def add(self, texts: Sequence[str], located: Iterable[str]) -> tuple[dict[str, TokenisedText], dict[str, Tokens]]:
        """Tokenise new texts. Returns the rows of all `texts`, and the tokens of the `located` ones with their offsets."""
        keys = {text: short_hash(text) for text in texts}
        known = self._known(keys.values())
        new, places = self.preprocessor.kept((text for text, key in keys.items() if key not in known), located)
        self._append(new, keys, known)
        return {text: known[key] for text, key in keys.items()}, places

    def _append(self, new: dict[str, Ids], keys: dict[str, bytes], known: dict[bytes, TokenisedText]) -> None:
        """Give new texts the next rows, in the order of their arrival."""
        first, lengths = self.offsets.rows - 1, [len(tokens) for tokens in new.values()]
        self.offsets.append(self.tokens.rows + offsets(lengths)[1:])
        flat = np.concatenate([np.zeros(0, np.int32), *new.values()])
        self.tokens.append(flat)
        self.num_unknown += int(np.count_nonzero(flat == self.preprocessor.tokenizer.unk_token_id))
        added = {keys[text]: TokenisedText(first + i, lengths[i]) for i, text in enumerate(new)}
        self._database.executemany("INSERT INTO texts VALUES (?, ?, ?)", [(key, *text) for key, text in added.items()])
        known.update(added)

    def claim(self, names: dict[str, int]) -> dict[str, int]:
        """The row that each name stands for: the given one, unless the name was claimed for another one before."""
        keys = {name: int.from_bytes(short_hash(name)[:8], signed=True) for name in names}
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

    def _known(self, keys: Iterable[bytes]) -> dict[bytes, TokenisedText]:
        return {key: TokenisedText(row, length) for key, row, length in self._select("key, row, length", "texts", keys)}

    def _select(self, columns: str, table: str, keys: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        for chunk in chunks(keys, 1000):
            marks = ",".join("?" * len(chunk))
            yield from self._database.execute(f"SELECT {columns} FROM {table} WHERE key IN ({marks})", chunk)  # noqa: S608
