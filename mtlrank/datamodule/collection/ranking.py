"""First-stage rankings, packed: those of half a million training queries are in memory at once."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class RankedDoc(NamedTuple):
    """A line of a TREC run; ranks count from 1."""

    query_id: str
    doc_id: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class RankedDocs:
    """The documents of a query, best first; its scores are float32."""

    query_id: str
    doc_ids: str  # a line for each: objects would take several times the memory
    scores: "array[float]"

    @classmethod
    def of(cls, query_id: str, scored: Iterable[tuple[str, float]]) -> "RankedDocs":
        """The ranking of (doc_id, score) pairs, which come best first."""
        pairs = list(scored)
        return cls(query_id, "\n".join(doc_id for doc_id, _ in pairs), array("f", [score for _, score in pairs]))

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[RankedDoc]:
        for rank, (doc_id, score) in enumerate(self.pairs(), 1):
            yield RankedDoc(self.query_id, doc_id, rank, score)

    def pairs(self) -> Iterable[tuple[str, float]]:
        """(doc_id, score), best first."""
        return zip(self.doc_ids.split("\n"), self.scores, strict=True) if self.scores else ()

    def best(self, k: int) -> "RankedDocs":
        """Its first `k` documents."""
        return self if len(self) <= k else RankedDocs.of(self.query_id, list(self.pairs())[:k])
