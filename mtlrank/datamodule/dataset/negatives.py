"""Which documents a training query is learnt from: relevant ones, and others to contrast them with."""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice

from mtlrank.checks import at_least, null_or_at_least, one_of
from mtlrank.errors import ConfigError

GROUPINGS = ("pointwise", "pairwise", "listwise")


class Negatives:
    """Draws a training query's documents.

    Negatives are unjudged candidates within the ranks `negative_ranks` and, with `judged_negatives`, documents judged below
    the relevance level; at most `max_negatives` different ones per query.

    - `pairwise`: `groups_per_positive` groups per relevant document, with `num_negatives` negatives each, other ones while
      there are some. If `max_negatives` is too small for that, groups share the negatives, at least one each.
    - `listwise`: as many groups per query, with `num_negatives` negatives for each relevant document.
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
        self.grouping = one_of("grouping", grouping, GROUPINGS)
        self.relevance_level = relevance_level
        self.num_negatives = at_least("num_negatives", num_negatives, 0)
        self.max_negatives = null_or_at_least("max_negatives", max_negatives, 0)
        if not isinstance(negative_ranks, Sequence) or len(negative_ranks) != 2:
            raise ConfigError(
                f"negative_ranks is {negative_ranks!r}, expected the first and the last, as in [10, 100]."
            )
        first = at_least("negative_ranks[0]", negative_ranks[0], 1)
        self.ranks = slice(first - 1, at_least("negative_ranks[1]", negative_ranks[1], first))
        self.judged_negatives = judged_negatives
        self.groups_per_positive = at_least("groups_per_positive", groups_per_positive, 1)
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
        contrasted = [positives] if self.grouping == "listwise" else [[positive] for positive in positives]
        times = self.groups_per_positive
        groups = [some for some in contrasted for _ in range(times)]
        limited = self.num_negatives * sum(map(len, groups)) > left
        allowed = cycle(draw.sample(pool, min(left, len(pool))) if limited else [])
        fresh = list[str]()
        for number, some in enumerate(groups):
            wanted = min(self.num_negatives * len(some), len(pool))
            if limited:  # a share of what is allowed, or one that another group has too: no relevant document is lost
                share = max(left // len(groups) + (number < left % len(groups)), 1)
                drawn = list(islice(allowed, min(wanted, share)))
            else:
                if number % times == 0 or len(fresh) < wanted:
                    fresh = draw.sample(pool, min(wanted * (times - number % times), len(pool)))
                drawn, fresh = fresh[:wanted], fresh[wanted:]
            if some and drawn:
                yield [*some, *drawn]

    def samples(self, query_id: str, candidates: Sequence[str], number: int) -> Iterator[list[str]]:
        """`number` groups of `num_negatives` + 1 candidates each, as far as they suffice, for a teacher to score."""
        draw = random.Random(f"{self.seed} {query_id}")
        size = self.num_negatives + 1
        mixed = draw.sample(candidates, min(size * number, len(candidates)))
        for first in range(0, len(mixed), size):
            if len(mixed) - first > 1:
                yield mixed[first : first + size]
