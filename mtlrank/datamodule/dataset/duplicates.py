"""Data that a source gives more than once."""

from mtlrank.datamodule.reading import Reading
from mtlrank.datamodule.short_hash import short_hash


class Duplicates:
    """Finds duplicates: one with equal content is counted, one with different content is a bad row.

    `what` names the things in counts, `expected` says in errors what each may have one of. Hashes are held in memory.
    """

    def __init__(self, reading: Reading, what: str, expected: str) -> None:
        self.reading = reading
        self.what = what
        self.expected = expected
        self._contents: dict[bytes, bytes] = {}

    def is_new(self, thing: object, content: object, place: str, *, mine: bool) -> bool:
        """Whether `thing` comes for the first time. All shards read it; only the one that it belongs to (`mine`) counts."""
        key, found = short_hash(repr(thing)), short_hash(repr(content))
        if key not in self._contents:
            self._contents[key] = found
            return True
        if self._contents[key] != found:
            self.reading.reject(place, f"expected {self.expected}, found a second, different one")
        elif mine:
            self.reading.count(f"{self.what} given twice")
        return False
