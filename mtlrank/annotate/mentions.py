"""Pairs of mentions to learn coreference from."""

import random
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

from mtlrank.batch import Span


def mention_pairs(clusters: Sequence[Sequence[Span]], draw: random.Random) -> Iterator[tuple[Span, Span, str]]:
    """Neighbouring mentions of each cluster, and at most as many pairs of mentions that share no cluster.

    The mention that comes first in the text is the first of its pair.
    """
    mentions = [(span, number) for number, cluster in enumerate(clusters) for span in sorted(set(cluster))]
    same = dict.fromkeys((a, b) for (a, i), (b, j) in pairwise(mentions) if i == j)
    clusters_of = dict[Span, set[int]]()  # a span may be in several
    for span, number in mentions:
        clusters_of.setdefault(span, set()).add(number)
    across = [(a, b) for a, b in combinations(clusters_of, 2) if clusters_of[a].isdisjoint(clusters_of[b])]
    different = draw.sample(across, min(len(same), len(across)))
    for label, pairs in (("coreferent", same), ("distinct", different)):
        for first, second in pairs:
            yield min(first, second), max(first, second), label
