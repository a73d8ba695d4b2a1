"""Measures of many resamples at once: a resample is given by how often each unit is in it.

So a measure that is made of sums (means, correlation, F1) costs one product of matrices. Where a measure is undefined, as
the correlation of a constant is, it is 0.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlrank.dtypes import Floats, Ints
from mtlrank.tags import Entity, entities

LabelArray = NDArray[Any]  # numbers, or names of classes
Statistic = Callable[[Floats], Floats]  # weights of units, (units, resamples), to values, (runs, resamples)

ITEM_VALUES: dict[str, Callable[[LabelArray, LabelArray], Floats]] = {
    "MSE": lambda labels, predictions: (predictions - labels) ** 2,
    "MAE": lambda labels, predictions: np.abs(predictions - labels),
    "Accuracy": lambda labels, predictions: (predictions == labels).astype(np.float64),
}  # measures that are means over items
# The weights of the entities in the labels and of those in the predictions, among which the right ones are a share.
ENTITY_MEASURES = {"EntityF1": (0.5, 0.5), "EntityPrecision": (0.0, 1.0), "EntityRecall": (1.0, 0.0)}


def mean(values: Floats, units: Ints) -> Statistic:
    """The mean over items; `values` is (runs, items), and `units` says to which unit an item belongs, (items,)."""
    sums, counts = _by_unit(values, units), _by_unit(np.ones(len(units)), units)

    def means(weights: Floats) -> Floats:
        return np.divide(sums @ weights, counts @ weights)

    return means


def statistic(
    measure: str, labels: LabelArray, predictions: LabelArray, units: Ints, sequences: Ints | None = None
) -> Statistic:
    """A measure of predictions, (runs, items), for labels, (items,), whose items belong to `units`, (items,).

    `sequences`, (items,), are the texts whose words the items of measures of entities are; items of one follow each other.
    Without them, each unit is one.
    """
    if measure in ITEM_VALUES:
        return mean(ITEM_VALUES[measure](labels, predictions), units)
    if measure in ENTITY_MEASURES:
        return _of_entities(measure, labels, predictions, units, units if sequences is None else sequences)
    return _STATISTICS[measure](labels, predictions, units)


def _pearson(labels: Floats, predictions: Floats, units: Ints) -> Statistic:
    x, y = labels - labels.mean(), predictions - predictions.mean(1, keepdims=True)
    one, xx, yy, xy = (_by_unit(part, units) for part in (np.ones(len(x)), x * x, y * y, x * y))
    x, y = _by_unit(x, units), _by_unit(y, units)

    def values(weights: Floats) -> Floats:
        n, sum_x, sum_y = one @ weights, x @ weights, y @ weights
        covariance = n * (xy @ weights) - sum_x * sum_y
        return _correlation(covariance, *(_spread(n * (a @ weights), b) for a, b in ((xx, sum_x), (yy, sum_y))))

    return values


def _r2(labels: Floats, predictions: Floats, units: Ints) -> Statistic:
    x = labels - labels.mean()
    one, sums, squares = (_by_unit(part, units) for part in (np.ones(len(x)), x, x * x))
    errors = _by_unit((predictions - labels) ** 2, units)

    def values(weights: Floats) -> Floats:
        n = one @ weights
        spread = _spread(n * (squares @ weights), sums @ weights)
        return np.where(spread > 0, 1 - n * (errors @ weights) / np.where(spread > 0, spread, 1), 0.0)

    return values


def _macro_f1(labels: LabelArray, predictions: LabelArray, units: Ints) -> Statistic:
    """The mean F1 of the classes that a resample has, as labels or as predictions."""
    classes, codes = np.unique(np.concatenate([labels, predictions.ravel()]), return_inverse=True)
    true, predicted = codes[: len(labels)], codes[len(labels) :].reshape(predictions.shape)
    shape = len(classes), int(units.max()) + 1

    def counted(of_items: Ints, where: NDArray[np.bool_] | slice = slice(None)) -> Floats:
        """How many items of each class each unit has, (classes, units)."""
        counts = np.bincount((of_items * shape[1] + units)[where], minlength=shape[0] * shape[1])
        return counts.astype(np.float64).reshape(shape)

    hits = np.stack([counted(true, row == true) for row in predicted])  # (runs, classes, units)
    named = np.stack([counted(row) for row in predicted]) + counted(true)

    def values(weights: Floats) -> Floats:
        total = named @ weights
        f1: Floats = 2 * (hits @ weights) / np.maximum(total, 1)
        means: Floats = f1.sum(1) / (total > 0).sum(1)
        return means

    return values


def _of_entities(measure: str, labels: LabelArray, predictions: LabelArray, units: Ints, sequences: Ints) -> Statistic:
    """The entities that are found, as a share of those in the labels or in the predictions, or of the mean of both."""
    true, found = _entities(labels, sequences), [_entities(row, sequences) for row in predictions]

    def counted(marked: Iterable[Entity]) -> Floats:
        of_entities = units[[entity.first for entity in marked]]
        return np.bincount(of_entities, minlength=int(units.max()) + 1).astype(np.float64)

    hits = np.stack([counted(each & true) for each in found])  # (runs, units)
    of_labels, of_predictions = ENTITY_MEASURES[measure]
    all_entities = of_labels * counted(true) + of_predictions * np.stack([counted(each) for each in found])

    def values(weights: Floats) -> Floats:
        totals = all_entities @ weights
        return np.divide(hits @ weights, totals, out=np.zeros_like(totals), where=totals > 0)

    return values


def _entities(tags: LabelArray, sequences: Ints) -> set[Entity]:
    """The entities of all texts, counting words through."""
    starts = np.flatnonzero(np.diff(sequences, prepend=-1))
    names = tags.tolist()
    return {
        Entity(start + first, start + end, kind)
        for start, stop in pairwise([*starts.tolist(), len(names)])
        for first, end, kind in entities(names[start:stop])
    }


def _spearman(labels: Floats, predictions: Floats, units: Ints) -> Statistic:
    """Pearson's correlation of ranks within the resample."""
    of_labels, of_predictions = _Ranks(labels), [_Ranks(row) for row in predictions]

    def values(weights: Floats) -> Floats:
        of_items = np.take(weights, units, axis=0)
        x, spread_x = of_labels(of_items)
        x *= of_items
        both = [ranks(of_items) for ranks in of_predictions]
        return np.stack([_correlation(np.einsum("ij,ij->j", x, y), spread_x, spread_y) for y, spread_y in both])

    return values


class _Ranks:
    """Ranks of values in resamples. Equal values are a group and share the mean of their ranks."""

    def __init__(self, values: Floats) -> None:
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        self.ends = np.flatnonzero(np.concatenate([ordered[1:] != ordered[:-1], [True]]))
        self.group = np.empty(len(values), dtype=np.int64)  # of each item
        self.group[self.order] = np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=-1))

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Ranks less their mean, (items, resamples), and the sum of their squares, (resamples,)."""
        ranks = np.take(weights, self.order, axis=0)
        np.cumsum(ranks, axis=0, out=ranks)  # the last rank of each group; in place, as memory is what takes time here
        ranks = ranks[self.ends] if len(self.ends) < len(ranks) else ranks
        mean = (ranks[-1] + 1) / 2
        sizes = np.empty_like(ranks)
        sizes[0] = ranks[0]
        np.subtract(ranks[1:], ranks[:-1], out=sizes[1:])
        ranks -= mean - 0.5
        ranks -= 0.5 * sizes
        return np.take(ranks, self.group, axis=0), np.einsum("ij,ij,ij->j", sizes, ranks, ranks)


def _correlation(covariance: Floats, spread_x: Floats, spread_y: Floats) -> Floats:
    defined = (spread_x > 0) & (spread_y > 0)
    return np.where(defined, covariance / np.sqrt(np.where(defined, spread_x * spread_y, 1.0)), 0.0)


def _spread(squares: Floats, total: Floats) -> Floats:
    """The sum of squares about the mean, times n; what rounding leaves of a constant's is 0."""
    spread = squares - total**2
    return np.where(spread > 1e-12 * squares, spread, 0.0)


def _by_unit(values: NDArray[Any], units: Ints) -> Floats:
    """Sums of the last axis by unit, (..., units)."""
    rows = values.reshape(-1, len(units)).astype(np.float64)
    sums: Floats = np.stack([np.bincount(units, row) for row in rows])
    return sums.reshape(*values.shape[:-1], -1)


_STATISTICS = {"Pearson": _pearson, "Spearman": _spearman, "R2": _r2, "MacroF1": _macro_f1}
