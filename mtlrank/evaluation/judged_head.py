"""Reading the folder of a judged head: its results, query by query or item by item."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtlrank.about import EVALUATION, MODEL
from mtlrank.dtypes import Floats, Ints
from mtlrank.errors import DataError
from mtlrank.evaluation.depths import ByDepth, depths_in
from mtlrank.evaluation.significance.weighted import ITEM_VALUES, LabelArray, Statistic, mean, statistic
from mtlrank.storage import read_json
from mtlrank.trec import FIRST_STAGE

SUMMARY = "metrics.json"  # of a judged head, in its folder, where it is written last
PER_QUERY = "query_id", "measure", "value", "first_stage"  # columns of per_query.tsv
PREDICTIONS = "query_id", "doc_id", "item", "label", "prediction", "confidence"  # of predictions.tsv; the last: classes
JUDGED_RUN = "judged_run.json"  # beside heads that `mtlrank evaluate` judged: the settings of their run


class Fold(NamedTuple):
    """Which fold of a cross-validation a head was judged on, counted from 0."""

    fold: int
    of: int


class HeadResults(NamedTuple):
    """The results of a system's runs on one test set; `read_head` gives those of one run."""

    name: str
    kind: str
    split: str
    measures: tuple[str, ...]  # the primary one first
    items: tuple[tuple[str, ...], ...]  # (query_id,) of each query, or (query_id, doc_id, number) of each item
    units: Ints  # (items,) to which of the units that are drawn independently an item belongs
    values: dict[str, Floats]  # of measures that are means: the value of each item, (runs, items)
    first_stage: dict[str, Floats]  # the same of the first stage, (1, items); rankings only
    constant: Any  # the baseline's prediction for every item; None for rankings
    labels: LabelArray  # (items,); empty for rankings
    predictions: LabelArray  # (runs, items); empty for rankings
    confidence: Floats  # (items,), the probability of the predicted class; empty for all but classes
    by_depth: ByDepth  # the primary measure, had fewer candidates been re-ranked; empty for all but judged rankings
    baseline_name: str = FIRST_STAGE
    fold: Fold | None = None  # None: the items are the whole test set
    num_folds: int = 1  # that were joined

    @property
    def sequences(self) -> Ints:
        """Which sequence each item belongs to, (items,)."""
        numbers: dict[tuple[str, ...], int] = {}
        return np.array([numbers.setdefault(item[:2], len(numbers)) for item in self.items])

    @property
    def num_units(self) -> int:
        """How many units there are, each drawn as a whole in resamples."""
        return int(self.units.max()) + 1

    @property
    def name_of_units(self) -> str:
        """What the units are: queries, or the sequences of items where no two sequences have a query in common."""
        return "queries" if self.kind == "ranking" or self.num_units <= self.sequences.max() else "sequences"

    def statistic(self, measure: str) -> Statistic:
        """A measure of each run in resamples of the units."""
        if measure in self.values:
            return mean(self.values[measure], self.units)
        return statistic(measure, self.labels, self.predictions, self.units, self.sequences)


def head_name(dataset: str, split: str) -> str:
    """The name of a head on a test set: that of its dataset; on a further test set, `dataset@name`."""
    _, at, name = split.partition("@")
    return dataset + at + name


def ranking_head(
    name: str, split: str, query_ids: Sequence[str], values: dict[str, Floats], first_stage: dict[str, Floats]
) -> HeadResults:
    """A head of a ranking, whose items are queries; `values` has the primary measure first."""
    return HeadResults(
        name=name,
        kind="ranking",
        split=split,
        measures=tuple(values),
        items=tuple((query_id,) for query_id in query_ids),
        units=np.arange(len(query_ids)),
        values=values,
        first_stage=first_stage,
        constant=None,
        labels=np.empty(0),
        predictions=np.empty((1, 0)),
        confidence=np.empty(0),
        by_depth={},
    )


def confusion_matrix(head: HeadResults) -> tuple[list[str], list[list[int]]]:
    """The classes, and the counts of items by true class (rows) and predicted class (columns)."""
    classes = sorted({*head.labels, *head.predictions[0]})
    counts = Counter(zip(head.labels, head.predictions[0], strict=True))
    return [str(name) for name in classes], [[counts[true, found] for found in classes] for true in classes]


def head_folders(roots: Sequence[Path]) -> list[Path]:
    """The folders of judged heads below some folders, in order."""
    return [path.parent for root in roots for path in sorted(root.glob(f"*/{SUMMARY}"))]


def evaluation_of(folder: Path) -> Path:
    """Where judged heads lie: in the folder itself if `mtlrank evaluate` wrote it, else in the evaluation of the run."""
    is_evaluation = (folder / JUDGED_RUN).exists() or run_of(folder) != folder
    return folder if is_evaluation else folder / EVALUATION


def run_of(folder: Path) -> Path:
    """The folder of a run: `folder`, or the one around it if that is an evaluation."""
    return folder.parent if folder.name.startswith(EVALUATION) and not (folder / MODEL).exists() else folder


def read_head(folder: Path) -> HeadResults:
    """Read the folder of a judged head. Raises `DataError` if a file is missing or damaged."""
    return head_of(folder, read_json(folder / SUMMARY))


def head_of(folder: Path, summary: dict[str, Any]) -> HeadResults:
    """A judged head from `summary`, the content of its metrics.json, and the other files of its folder."""
    try:
        return (_read_ranking if summary["kind"] == "ranking" else _read_labels)(folder, summary)
    except (AttributeError, KeyError, TypeError, ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} is damaged: {error}. Judge that head again with `mtlrank evaluate`.") from error


def _read_ranking(folder: Path, summary: dict[str, Any]) -> HeadResults:
    rows = _read_table(folder / "per_query.tsv", PER_QUERY, quoted=False)
    by_measure: dict[str, dict[str, tuple[float, float]]] = {}
    for query_id, measure, value, first in rows:
        by_measure.setdefault(measure, {})[query_id] = float(value), float(first)
    measures = tuple(dict.fromkeys([summary["primary"], *by_measure]))
    queries = sorted(by_measure[measures[0]])
    table = {m: np.array([by_measure[m][query_id] for query_id in queries]).T for m in measures}
    if not all(np.isfinite(values).all() for values in table.values()) or len(rows) != len(queries) * len(measures):
        raise ValueError("per_query.tsv lacks numbers, or not every measure has every query")
    return ranking_head(
        head_name(summary["name"], summary["split"]),
        summary["split"],
        queries,
        {measure: values[:1] for measure, values in table.items()},
        {measure: values[1:] for measure, values in table.items()},
    )._replace(
        baseline_name=summary["baseline_name"],
        fold=Fold(*map(int, summary["fold"])) if "fold" in summary else None,
        num_folds=int(summary.get("num_folds", 1)),
        by_depth=depths_in(summary),
    )


def _read_labels(folder: Path, summary: dict[str, Any]) -> HeadResults:
    has_classes = summary["kind"] == "classification"
    rows = _read_table(folder / "predictions.tsv", PREDICTIONS if has_classes else PREDICTIONS[:-1], quoted=True)
    rows.sort(key=lambda row: (row[0], row[1], int(row[2])))
    labels, predictions = (np.array([row[column] for row in rows]) for column in (3, 4))
    if summary["kind"] == "regression":
        labels, predictions = labels.astype(np.float64), predictions.astype(np.float64)
        if not (np.isfinite(labels).all() and np.isfinite(predictions).all()):
            raise ValueError("predictions.tsv lacks numbers")
    measures = tuple(dict.fromkeys([summary["primary"], *summary["values"]]))
    return HeadResults(
        name=head_name(summary["name"], summary["split"]),
        kind=summary["kind"],
        split=summary["split"],
        measures=measures,
        items=tuple(tuple(row[:3]) for row in rows),
        units=_units(rows),
        values={m: ITEM_VALUES[m](labels, predictions[None]) for m in measures if m in ITEM_VALUES},
        first_stage={},
        constant=summary["constant"],
        labels=labels,
        predictions=predictions[None],
        confidence=np.array([row[5] for row in rows], dtype=np.float64) if has_classes else np.empty(0),
        by_depth={},
    )


def _units(rows: Sequence[Sequence[str]]) -> Ints:
    """The unit of each item, (items,): its query or, of a text without one, its sequence.

    The pairs of a query are no independent units: its length and its terms shift the errors of all of them. Without a query
    are texts with `-` as query_id, and those of a test set in which all have the same.
    """
    none = {"-"} | (set() if len(names := {row[0] for row in rows}) > 1 else names)
    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault((row[0], row[1] if row[0] in none else ""), len(numbers)) for row in rows])


def _read_table(path: Path, header: Sequence[str], *, quoted: bool) -> list[list[str]]:
    """The rows of a table that mtlrank wrote, without its header."""
    if not path.is_file():
        raise DataError(
            f"{path} is missing. Judge this head again with `mtlrank evaluate "
            f"model_dir={path.parents[2] / 'model'} output_dir={path.parents[1]}`."
        )
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        first, *rows = list(lines) or [[]]
    if first != list(header) or not rows or any(len(row) != len(header) for row in rows):
        raise ValueError(f"{path.name} should have the columns {', '.join(header)} and at least one row")
    return rows
