"""What a source gives more than once."""

from mtlrank.datamodule.reading import Reading
from mtlrank.datamodule.short_hash import short_hash


class Duplicates:
    """Finds duplicates: an equal one is counted, one with other contents is a bad row.

    `what` are the things, and `expected` is what there is one of for each. Hashes of them are held in memory.
    """

    def __init__(self, reading: Reading, what: str, expected: str) -> None:
        self.reading = reading
        self.what = what
        self.expected = expected
        self._said: dict[bytes, bytes] = {}

    def is_new(self, thing: object, says: object, place: str, *, mine: bool) -> bool:
        """Whether `thing` is to be kept. All shards meet it, and the one that it belongs to (`mine`) counts."""
        key, found = short_hash(repr(thing)), short_hash(repr(says))
        if key not in self._said:
            self._said[key] = found
            return True
        if self._said[key] != found:
            self.reading.reject(place, f"expected {self.expected}, found a second, different one")
        elif mine:
            self.reading.count(f"{self.what} given twice")
        return False
