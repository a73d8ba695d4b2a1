"""How many candidates are worth re-ranking: a measure, had the head re-ranked only the best few of each query."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, takewhile
from typing import Any

import ir_measures
import numpy as np
from ir_measures import Qrel, ScoredDoc

from mtlrank.dtypes import Floats
from mtlrank.evaluation.measures import means, values_of_order
from mtlrank.trec import doc_ids_in_order

ByDepth = dict[int, Floats]  # candidates re-ranked, ascending: a measure of each run, (runs,)


def depths_to(most: int) -> list[int]:
    """5, 10, 20, 50, 100, ... as far as they are below `most`, and `most`."""
    series = (factor * 10**power for power in count() for factor in (5, 10, 20))
    return [*takewhile(lambda depth: depth < most, series), most]


def by_depth(
    measure: str, qrels: Sequence[Qrel], run: Collection[ScoredDoc], first_stage: Iterable[ScoredDoc]
) -> dict[int, float]:
    """The mean of a measure, had only the best 5, 10, 20, 50, ... candidates of each query been re-ranked.

    Candidates are the documents of the run. Those that are not among the best follow in the order of the first stage. The
    last depth is the largest number of candidates, so its value is that of the run. More candidates need not be better: a
    re-ranker sees more documents to be wrong about (Jacob et al. 2024).
    """
    scored = {(doc.query_id, doc.doc_id) for doc in run}
    reranked = doc_ids_in_order(run)
    candidates = doc_ids_in_order(doc for doc in first_stage if (doc.query_id, doc.doc_id) in scored)
    depths = depths_to(max(map(len, candidates.values())))
    params = ir_measures.parse_measure(measure).params
    cutoff = None if params.get("judged_only") else params.get("cutoff")  # what is below it does not count
    found = {}
    for depth in depths:
        order = {q: _merged(reranked[q], doc_ids, depth)[:cutoff] for q, doc_ids in candidates.items()}
        found[depth] = means(values_of_order([measure], qrels, order))[measure]
    return found


def depths_in(summary: Mapping[str, Any]) -> ByDepth:
    """What the metrics.json of a judged head says; empty for all but rankings, and in older folders.

    Raises `ValueError` for what are no depths and finite values.
    """
    values = {int(depth): np.array([float(value)]) for depth, value in summary.get("by_depth", {}).items()}
    if any(depth < 1 or not np.isfinite(value).all() for depth, value in values.items()):
        raise ValueError("by_depth has what are no numbers of candidates and finite values")
    return dict(sorted(values.items()))


def joined(parts: Sequence[ByDepth], weights: Sequence[int]) -> ByDepth:
    """The mean over parts of a test set, with the number of queries of each. A part may have fewer candidates."""
    if not all(parts):
        return {}
    deepest = max(parts, key=lambda part: max(part))
    return {
        depth: np.average([part.get(depth, part[max(part)]) for part in parts], axis=0, weights=weights)
        for depth in deepest
    }


def _merged(reranked: Sequence[str], candidates: Sequence[str], depth: int) -> list[str]:
    """The best `depth` candidates in their new order, above the others in their old one."""
    best = set(candidates[:depth])
    return [*(doc_id for doc_id in reranked if doc_id in best), *candidates[depth:]]
