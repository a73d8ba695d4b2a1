"""A share of the work, done by one of several processes."""

import re
import zlib
from typing import NamedTuple

from mtlrank.errors import ConfigError


class Shard(NamedTuple):
    """Shard `number` (from 1) of `total`: samples belong to one by a hash of their query, or of their document (`holds`).

    The lines of a `predict` input are divided by their positions instead (`part`).
    """

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """From `3/8`; the whole if there is no text. Raises `ConfigError` for anything else."""
        if not text:
            return cls()
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

    def part(self, size: int) -> range:
        """The shard's contiguous slice of `size` things, counted from 0."""
        return range(size * (self.number - 1) // self.total, size * self.number // self.total)
