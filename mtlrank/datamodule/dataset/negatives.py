"""Which documents a training query is learnt from: relevant ones, and others to tell them from."""

import random
from collections.abc import Iterator, Mapping, Sequence

from mtlrank.datamodule.dataset.settings import at_least, one_of

GROUPINGS = ("pointwise", "pairwise", "listwise")


class Negatives:
    """Draws a training query's documents.

    Each relevant document comes with `num_negatives` others (at most `max_negatives` a query): candidates at the
    first-stage ranks of the window `negative_ranks` that nobody judged and, if `judged_negatives`, judged ones below the
    relevance level. `pointwise` gives all of a query's documents one by one, `pairwise` each relevant one with its own
    negatives, `listwise` all of them as one list.
    """

    def __init__(
        self,
        grouping: str,
        relevance_level: int,
        num_negatives: int,
        max_negatives: int | None,
        negative_ranks: tuple[int, int],
        judged_negatives: bool,
        seed: int,
    ) -> None:
        self.grouping = one_of("grouping", grouping, GROUPINGS)
        self.relevance_level = relevance_level
        self.num_negatives = at_least("num_negatives", num_negatives, 0)
        self.max_negatives = None if max_negatives is None else at_least("max_negatives", max_negatives, 0)
        first = at_least("negative_ranks[0]", negative_ranks[0], 1)
        self.ranks = slice(first - 1, at_least("negative_ranks[1]", negative_ranks[1], first))
        self.judged_negatives = judged_negatives
        self.seed = seed

    @property
    def depth(self) -> int:
        """How many candidates are looked at."""
        return int(self.ranks.stop)

    def groups(self, query_id: str, judged: Mapping[str, int], candidates: Sequence[str]) -> Iterator[list[str]]:
        """Groups of documents to learn from; both arguments hold only documents with a text."""
        draw = random.Random(f"{self.seed} {query_id}")
        level = self.relevance_level
        positives = [doc_id for doc_id, grade in judged.items() if grade >= level]
        negatives = [doc_id for doc_id, grade in judged.items() if grade < level] if self.judged_negatives else []
        unjudged = [doc_id for doc_id in candidates if doc_id not in judged]
        if self.grouping == "pairwise":
            pool = negatives + unjudged
            for positive in positives:
                if pool:
                    yield [positive, *draw.sample(pool, min(self._limit(1), len(pool)))]
        elif self.grouping == "listwise":
            pool = negatives + unjudged
            if positives and pool:
                yield [*positives, *draw.sample(pool, min(self._limit(len(positives)), len(pool)))]
        else:
            drawn = draw.sample(unjudged, min(self._limit(len(positives)), len(unjudged)))
            yield [*positives, *negatives, *drawn]

    def _limit(self, positives: int) -> int:
        wanted = self.num_negatives * positives
        return wanted if self.max_negatives is None else min(wanted, self.max_negatives)
