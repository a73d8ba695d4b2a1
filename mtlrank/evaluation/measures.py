"""Measures by their usual names: a value for each query of a ranking, one value for other predictions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import ir_measures
import numpy as np
from ir_measures import Qrel, ScoredDoc

from mtlrank.dtypes import Ints
from mtlrank.errors import ConfigError, all_lines
from mtlrank.evaluation.significance.weighted import ENTITY_MEASURES, statistic
from mtlrank.trec import doc_ids_in_order

if TYPE_CHECKING:
    from torch import Tensor

    from mtlrank.task import Task

PerQuery = dict[str, dict[str, float]]  # measure to query_id to value

_CLASSIFICATION = ("Accuracy", "MacroF1")
_REGRESSION = ("MSE", "MAE", "R2", "Pearson", "Spearman")
_LOWER_IS_BETTER = {"MSE", "MAE"}
_ROUNDING = 1e-5  # relative to the largest score: of the seven digits of a float32, the last two may be rounding errors
_HIGHEST = 2.0**24  # above all ranks, which count down from it: float32 holds all whole numbers below


def is_better(measure: str, value: float, other: float) -> bool:
    """Whether `value` is strictly better than `other`."""
    return value < other if is_lower_better(measure) else value > other


def is_quality(measure: str) -> bool:
    """Whether a measure has a better direction: all but Judged, the share of documents that have a judgement."""
    return not measure.startswith("Judged")


def is_lower_better(measure: str) -> bool:
    """Whether a measure is an error, so that less is better."""
    return measure in _LOWER_IS_BETTER


def shown(measure: str) -> str:
    """A measure as tables show it: with an arrow where less is better."""
    return f"{measure} ↓" if is_lower_better(measure) else measure


def in_words(measure: str) -> str:
    """A measure as pictures name it: with words where less is better."""
    return f"{measure} (less is better)" if is_lower_better(measure) else measure


def implicit_level(measure: str, relevance_level: int) -> int | None:
    """The grade from which a measure counts documents as relevant, if it differs from the task's and is not written.

    AP means AP(rel=1) whatever the task's level. None for nDCG, which uses the grades themselves.
    """
    parsed = ir_measures.parse_measure(measure)
    default = getattr(parsed.SUPPORTED_PARAMS.get("rel"), "default", None)
    differs = "rel" not in parsed.params and isinstance(default, int) and default != relevance_level
    return default if differs else None


def with_level(measure: str, relevance_level: int) -> str:
    """A ranking measure that counts documents as relevant from this grade on, as in AP(rel=2)."""
    return repr(ir_measures.parse_measure(measure)(rel=relevance_level))


def at_level(measure: str, relevance_level: int) -> str:
    """A ranking measure with its grade of relevance replaced; as it is if it names none, such as nDCG.

    Spelt as a config spells it, also where ir-measures would leave the grade out, as in AP(rel=1).
    """
    return re.sub(r"\brel=\d+", f"rel={relevance_level}", measure)


def always_zero(measures: Iterable[str], qrels: Iterable[Qrel]) -> list[str]:
    """Ranking measures that no ranking can raise: no document has the grade from which they count."""
    highest = max((qrel.relevance for qrel in qrels), default=None)
    levels = {measure: ir_measures.parse_measure(measure).params.get("rel") for measure in measures}
    return [measure for measure, level in levels.items() if None not in (level, highest) and level > highest]


def check(task: "Task") -> None:
    """Raise `ConfigError` for the first measure that a task cannot be judged by."""
    names = [
        *(_CLASSIFICATION if task.kind == "classification" else _REGRESSION),
        *(ENTITY_MEASURES if task.tags else ()),
    ]
    for measure in task.measures:
        if task.kind == "ranking":
            _parse(measure)
        elif measure not in names:
            way = " Entities are found by tags of words, task=tags." if measure in ENTITY_MEASURES else ""
            raise ConfigError(f"Unknown measure {measure!r} for {task.kind}. Expected one of {', '.join(names)}.{way}")


def exists(measure: str) -> bool:
    """Whether tasks of any kind can be judged by this measure."""
    if measure in (*_CLASSIFICATION, *_REGRESSION, *ENTITY_MEASURES):
        return True
    try:
        _parse(measure)
    except ConfigError:
        return False
    return True


def ranking_values(measures: Sequence[str], qrels: Sequence[Qrel], run: Iterable[ScoredDoc]) -> PerQuery:
    """Each measure for each judged query, equal to trec_eval's. A query without a ranking counts as 0."""
    judged = {qrel.query_id for qrel in qrels}
    return values_of_order(measures, qrels, doc_ids_in_order(doc for doc in run if doc.query_id in judged))


def values_of_order(measures: Sequence[str], qrels: Sequence[Qrel], ranked: Mapping[str, Sequence[str]]) -> PerQuery:
    """`ranking_values` of documents in order, by query, the best first.

    ir-measures computes some measures (RR@k, Judged@k) with other programs, which order equal scores differently: so all
    get scores that follow trec_eval's order. These are above 0, which Compat takes for the score of a missing document. One
    of them (for ERR@k) takes only numbers as query ids: so all get numbers.
    """
    parsed: dict[ir_measures.Measure, list[str]] = {}
    for measure in measures:
        parsed.setdefault(_parse(measure), []).append(measure)
    query_ids = list(dict.fromkeys(qrel.query_id for qrel in qrels))
    values: PerQuery = {measure: dict.fromkeys(query_ids, 0.0) for measure in measures}
    places = {query_id: str(place) for place, query_id in enumerate(query_ids)}
    judged: dict[str, dict[str, int]] = {}  # ir-measures would make dicts of objects, which is slow
    for qrel in qrels:
        judged.setdefault(places[qrel.query_id], {})[qrel.doc_id] = qrel.relevance
    ranks = {
        places[query_id]: {doc_id: _HIGHEST - rank for rank, doc_id in enumerate(doc_ids, 1)}
        for query_id, doc_ids in ranked.items()
        if query_id in places
    }
    for value in ir_measures.iter_calc(list(parsed), judged, ranks):
        for measure in parsed[value.measure]:
            values[measure][query_ids[int(value.query_id)]] = value.value
    return values


class Ties(NamedTuple):
    """Queries whose scores are all equal up to rounding errors, so that these and document ids decide the order."""

    num_tied: int
    num_queries: int  # with several documents

    @property
    def decide(self) -> bool:
        """Whether the ranking is arbitrary: most of its queries are tied."""
        return 2 * self.num_tied > self.num_queries


def ties(run: Iterable[ScoredDoc]) -> Ties:
    """How many queries of a ranking are tied."""
    scores: dict[str, list[float]] = {}
    for doc in run:
        scores.setdefault(doc.query_id, []).append(doc.score)
    several = [found for found in scores.values() if len(found) > 1]
    tied = [found for found in several if max(found) - min(found) <= _ROUNDING * max(map(abs, found))]
    return Ties(len(tied), len(several))


def means(values: PerQuery) -> dict[str, float]:
    """The mean of each measure over its queries."""
    return {measure: fmean(by_query.values()) for measure, by_query in values.items()}


def label_values(task: "Task", scores: "Tensor", labels: "Tensor", sequences: Ints) -> dict[str, float]:
    """Measures of a classification, with `scores` (items, classes), or of a regression, with `scores` (items,).

    `sequences` says to which sequence an item belongs, (items,). Where a measure is undefined, as the correlation of a
    constant is, it is 0.
    """
    predictions = scores.argmax(-1) if task.kind == "classification" else scores
    wanted, found = labels.double().numpy(), predictions.double().numpy()[None]
    if task.tags:
        names = np.array(task.classes)  # type: ignore[attr-defined]
        wanted, found = names[wanted.astype(int)], names[found.astype(int)]
    units = np.zeros(len(wanted), dtype=np.int64)  # all of them together
    return {m: float(statistic(m, wanted, found, units, sequences)(np.ones((1, 1)))[0, 0]) for m in task.measures}


class Constant(NamedTuple):
    """A constant prediction, made without reading the text, and its measures."""

    name: str
    prediction: float  # a value, or the index of a class
    values: dict[str, float]


def baseline(task: "Task", known: Mapping[str, Any], labels: "Tensor", sequences: Ints) -> Constant:
    """The most frequent class or the mean of the training labels, from `known`, their statistics in a manifest."""
    import torch  # seconds to import, which tables of values should not wait for

    if task.kind == "classification":
        counts = torch.tensor(known["counts"])
        name, prediction = "majority class", float(counts.argmax())
        scores = torch.eye(len(counts))[counts.argmax()].repeat(len(labels), 1)
    else:
        name, prediction = "training mean", float(known["mean"])
        scores = torch.full((len(labels),), prediction)
    return Constant(name, prediction, label_values(task, scores, labels, sequences))


@cache
def _parse(measure: str) -> ir_measures.Measure:
    try:
        parsed = ir_measures.parse_measure(measure)
    except (NameError, ValueError, KeyError, SyntaxError) as error:
        raise ConfigError(
            f"Unknown ranking measure {measure!r}. Expected one that ir-measures knows, such as nDCG@10 or AP(rel=2)."
        ) from error
    if parsed.params.get("cutoff", 1) < 1:
        raise ConfigError(f"The cut-off of {measure!r} is below 1. Expected one such as nDCG@10.")
    needed = [name for name, param in parsed.SUPPORTED_PARAMS.items() if param.required and name not in parsed.params]
    if needed:
        raise ConfigError(f"{measure!r} needs a value of {needed[0]}, as nDCG@10 has a cutoff and AP(rel=2) has a rel.")
    try:  # some cannot be computed, or not on this machine: fail before training
        list(ir_measures.iter_calc([parsed], [Qrel("1", "d", 1)], [ScoredDoc("1", "d", 1.0)]))
    except Exception as error:  # ir-measures lets through whatever its programs raise
        raise ConfigError(f"{measure!r} cannot be computed here: {all_lines(error)}") from error
    return parsed
