"""Which documents a training query is learnt from: relevant ones, and others to contrast them with."""

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice

from mtlrank.checks import choice, or_null, whole
from mtlrank.errors import ConfigError

GROUPINGS = ("pointwise", "pairwise", "listwise")


class Negatives:
    """Draws a training query's documents.

    Negatives are unjudged candidates within the ranks `negative_ranks` and, with `judged_negatives`, documents judged below
    the relevance level; at most `max_negatives` different ones per query.

    - `pairwise`: `groups_per_positive` groups per relevant document, with `num_negatives` negatives each, different ones
      while there are enough. If `max_negatives` is too small for that, groups share the negatives, at least one each.
    - `listwise`: `groups_per_positive` groups per query, each with all relevant documents and `num_negatives` negatives for
      each of these.
    - `pointwise`: single documents: the relevant ones, the judged negatives, and `num_negatives` unjudged ones per relevant
      one.
    """

    def __init__(
        self,
        *,
        grouping: str,
        relevance_level: int,
        num_negatives: int,
        max_negatives: int | None,
        negative_ranks: tuple[int, int],
        judged_negatives: bool,
        groups_per_positive: int,
        seed: int,
    ) -> None:
        self.grouping = choice(GROUPINGS).check("grouping", grouping)
        self.relevance_level = relevance_level
        self.num_negatives = whole(0).check("num_negatives", num_negatives)
        self.max_negatives = or_null(whole(0)).check("max_negatives", max_negatives)
        if not isinstance(negative_ranks, Sequence) or len(negative_ranks) != 2:
            raise ConfigError(
                f"negative_ranks is {negative_ranks!r}, expected the first and the last, as in [10, 100]."
            )
        first = whole(1).check("negative_ranks[0]", negative_ranks[0])
        self.ranks = slice(first - 1, whole(first).check("negative_ranks[1]", negative_ranks[1]))
        self.judged_negatives = judged_negatives
        self.groups_per_positive = whole(1).check("groups_per_positive", groups_per_positive)
        if grouping == "pointwise" and groups_per_positive > 1:
            raise ConfigError(
                f"groups_per_positive is {groups_per_positive}, but with grouping=pointwise there are no groups: expected "
                "1. Raise num_negatives, or choose a loss over groups, such as task=relevance_pairwise."
            )
        self.seed = seed

    @property
    def depth(self) -> int:
        """How many candidates are looked at."""
        return int(self.ranks.stop)

    def groups(self, query_id: str, judged: Mapping[str, int], candidates: Sequence[str]) -> Iterator[list[str]]:
        """Groups of documents to learn from; both arguments hold only documents with a text."""
        draw = random.Random(f"{self.seed} {query_id}")
        level = self.relevance_level
        left = sys.maxsize if self.max_negatives is None else self.max_negatives
        positives = [doc_id for doc_id, grade in judged.items() if grade >= level]
        negatives = [doc_id for doc_id, grade in judged.items() if grade < level] if self.judged_negatives else []
        unjudged = [doc_id for doc_id in candidates if doc_id not in judged]
        if self.grouping == "pointwise":
            kept = negatives if len(negatives) <= left else draw.sample(negatives, left)
            wanted = min(self.num_negatives * len(positives), left - len(kept))
            yield [*positives, *kept, *draw.sample(unjudged, min(wanted, len(unjudged)))]
            return
        pool = negatives + unjudged
        times = self.groups_per_positive
        contrasted = [positives] if self.grouping == "listwise" else [[positive] for positive in positives]
        groups = [group for group in contrasted for _ in range(times)]
        sizes = [self.num_negatives * len(group) for group in groups]
        drawn = _shared(pool, sizes, left, draw) if sum(sizes) > left else _fresh(pool, sizes, times, draw)
        for group, others in zip(groups, drawn, strict=True):
            if group and others:
                yield [*group, *others]

    def count_missing(
        self, groups: Sequence[Sequence[str]], judged: Mapping[str, int], count: Callable[[str, int], None]
    ) -> None:
        """Count what lack of documents changed in the `groups` of a query: positives in none, and negatives too few."""
        if self.grouping == "pointwise":
            self._count_few(groups, judged, count)
            return
        positives = {doc_id for doc_id, grade in judged.items() if grade >= self.relevance_level}
        learnt = [positives.intersection(group) for group in groups]
        count("relevant documents without a negative", len(positives.difference(*learnt)))
        if self.max_negatives is None:
            wanted = [(1 + self.num_negatives) * len(some) for some in learnt]
            few = sum(len(group) < size for group, size in zip(groups, wanted, strict=True))
            count("groups with fewer negatives than num_negatives", few)

    def _count_few(
        self, groups: Sequence[Sequence[str]], judged: Mapping[str, int], count: Callable[[str, int], None]
    ) -> None:
        if self.max_negatives is None:
            wanted = self.num_negatives * sum(grade >= self.relevance_level for grade in judged.values())
            drawn = sum(doc_id not in judged for group in groups for doc_id in group)
            count("queries with fewer unjudged documents than num_negatives asks for", drawn < wanted)

    def samples(self, query_id: str, candidates: Sequence[str], number: int) -> Iterator[list[str]]:
        """`number` groups of `num_negatives` + 1 candidates each, as far as they suffice, for a teacher to score."""
        draw = random.Random(f"{self.seed} {query_id}")
        size = self.num_negatives + 1
        mixed = draw.sample(candidates, min(size * number, len(candidates)))
        for first in range(0, len(mixed), size):
            if len(mixed) - first > 1:
                yield mixed[first : first + size]


def _shared(pool: Sequence[str], sizes: Sequence[int], limit: int, draw: random.Random) -> Iterator[list[str]]:
    """Negatives of each group out of `limit` different ones: an equal share, at least one, at most the group's size.

    If there are fewer negatives than groups, several groups get the same one, so that no relevant document is lost.
    """
    allowed = cycle(draw.sample(pool, min(limit, len(pool))))
    for number, size in enumerate(sizes):
        share = limit // len(sizes) + (number < limit % len(sizes))
        yield list(islice(allowed, min(size, len(pool), max(share, 1))))


def _fresh(pool: Sequence[str], sizes: Sequence[int], times: int, draw: random.Random) -> Iterator[list[str]]:
    """Negatives of each group; the `times` groups of a document get different ones while the pool suffices."""
    rest = list[str]()
    for number, size in enumerate(sizes):
        if number % times == 0 or len(rest) < min(size, len(pool)):
            rest = draw.sample(pool, min(size * (times - number % times), len(pool)))
        yield rest[:size]
        rest = rest[size:]
