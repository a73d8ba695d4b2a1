"""One head in a report: its measures with intervals, its queries that won and lost, and pictures."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtlrank.errors import DataError
from mtlrank.evaluation.judged_head import SUMMARY, HeadResults, confusion_matrix, head_of
from mtlrank.evaluation.measures import implicit_level, is_better, is_quality, shown
from mtlrank.evaluation.pairing import pair_heads
from mtlrank.evaluation.significance import confidence_interval
from mtlrank.evaluation.significance.weighted import ITEM_VALUES
from mtlrank.pages import figures
from mtlrank.storage import read_json

Interval = tuple[float, float]
_RESAMPLES = 2_000  # of the intervals
_SHOWN = 5  # queries that won or lost most


class Row(NamedTuple):
    """A measure of a head beside its baseline."""

    measure: str
    value: float
    interval: Interval | None  # 95 %; None for one query
    baseline: float
    difference: Interval | None  # 95 %, of value - baseline; None for one query
    better: bool
    level: int | None = None  # from which grade documents are relevant, if neither measure nor heading shows it

    @property
    def shown(self) -> str:
        """The measure, with an arrow where less is better."""
        return shown(self.measure) if self.level is None else f"{self.measure} (from grade {self.level})"

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `not decided`, if the interval of the difference includes 0 or there is none.

        Empty for a measure that is not one of quality.
        """
        if not is_quality(self.measure):
            return ""
        if self.difference is None or self.difference[0] <= 0 <= self.difference[1]:
            return "not decided"
        return "better" if self.better else "worse"


class Gain(NamedTuple):
    """A query, with its values by the head and by the first stage."""

    query_id: str
    text: str
    value: float
    baseline: float


class Section(NamedTuple):
    """What a report shows of a head."""

    name: str
    dataset: str
    split: str
    baseline_name: str
    units: str  # with the number of candidates, which limits a ranking and its first stage
    rows: list[Row]  # the primary measure first
    gains: list[Gain]  # of rankings: all queries, the one that won most first
    head: HeadResults
    note: str  # a warning about the measures

    @property
    def won(self) -> list[Gain]:
        """The queries that won most."""
        return [gain for gain in self.gains if gain.value > gain.baseline][:_SHOWN]

    @property
    def lost(self) -> list[Gain]:
        """The queries that lost most."""
        return [gain for gain in reversed(self.gains) if gain.value < gain.baseline][:_SHOWN]

    def pictures(self) -> figures.Pictures:
        """(title, SVG) of the pictures for this kind of head."""
        return _pictures(self.head, self.gains)


class Line(NamedTuple):
    """A row of the table of all heads."""

    name: str
    row: Row
    baseline_name: str
    is_first: bool


def table_of(sections: Sequence[Section]) -> list[Line]:
    """All measures of all heads, and for a head that is judged on several further test sets, their means over these.

    Every set has the same weight. A mean over sets has no interval.
    """
    lines = [
        Line(section.name, row, section.baseline_name, number == 0)
        for section in sections
        for number, row in enumerate(section.rows)
    ]
    for dataset in dict.fromkeys(section.dataset for section in sections):
        sets = [section for section in sections if section.dataset == dataset != section.name]
        if len(sets) > 1:
            found = [{row.measure: row for row in section.rows} for section in sets]
            shared = [measure for measure in found[0] if all(measure in rows for rows in found)]
            lines += [
                Line(
                    f"{dataset}, mean of {len(sets)} sets",
                    _mean_row([rows[measure] for rows in found]),
                    sets[0].baseline_name,
                    number == 0,
                )
                for number, measure in enumerate(shared)
            ]
    return lines


def _mean_row(rows: Sequence[Row]) -> Row:
    value, baseline = (sum(getattr(row, name) for row in rows) / len(rows) for name in ("value", "baseline"))
    better = is_better(rows[0].measure, value, baseline)
    levels = {row.level for row in rows}
    return Row(rows[0].measure, value, None, baseline, None, better, levels.pop() if len(levels) == 1 else None)


def read_sections(folders: Sequence[Path]) -> list[Section]:
    """Read the folders of judged heads. Raises `DataError` if there are none, or one is damaged."""
    if not folders:
        raise DataError("No judged heads to report on. Run evaluate first.")
    return [read_section(folder) for folder in folders]


def read_section(folder: Path) -> Section:
    """Read the folder of a judged head."""
    return section_of(folder, read_json(folder / SUMMARY))


def section_of(folder: Path, summary: dict[str, Any]) -> Section:
    """A head's section from `summary`, the content of its metrics.json, and the other files of its folder."""
    head = head_of(folder, summary)
    return Section(
        name=head.name,
        dataset=summary["name"],
        split=head.split,
        baseline_name=summary["baseline_name"],
        units=_units(summary),
        rows=[_row(summary, measure) for measure in head.measures],
        gains=_gains(folder, head) if head.kind == "ranking" else [],
        head=head,
        note=summary.get("note", ""),
    )


def find_intervals(head: HeadResults) -> dict[str, dict[str, Interval | None]]:
    """The 95 % intervals of a judged head's measures, and of their differences to the baseline's; None where undefined."""
    return {
        measure: {
            "value": confidence_interval(
                head.statistic(measure), head.num_units, 0, _RESAMPLES, is_mean=measure in head.values
            ),
            "gain": _interval_of_gain(head, measure),
        }
        for measure in head.measures
    }


def _row(summary: dict[str, Any], measure: str) -> Row:
    value, baseline = summary["values"][measure], summary["baseline"][measure]
    found, task_level = summary["intervals"][measure], summary["relevance_level"]
    interval, gain = (tuple(found[key]) if found[key] else None for key in ("value", "gain"))
    level = None if task_level is None else implicit_level(measure, task_level)
    return Row(measure, value, interval, baseline, gain, is_better(measure, value, baseline), level)


def _units(summary: dict[str, Any]) -> str:
    if summary["kind"] != "ranking":
        return "items"
    return f"queries, at most {summary['max_candidates']:,} candidates each"


def _interval_of_gain(head: HeadResults, measure: str) -> Interval | None:
    if head.kind == "ranking":
        baseline = head._replace(values=head.first_stage)
    else:
        constant = np.tile(np.array(head.constant), head.predictions.shape)
        values = {m: ITEM_VALUES[m](head.labels, constant) for m in head.values}
        baseline = head._replace(predictions=constant, values=values)
    pair = pair_heads(baseline, head, measure)
    return confidence_interval(pair.statistic, head.num_units, 1, _RESAMPLES, is_mean=measure in head.values)


def _gains(folder: Path, head: HeadResults) -> list[Gain]:
    """All queries, the one that won most by the primary measure first."""
    texts = _texts(folder / "queries.tsv")
    values, baselines = (of[head.measures[0]][0].tolist() for of in (head.values, head.first_stage))
    found = zip(head.items, values, baselines, strict=True)
    gains = [Gain(query_id, texts.get(query_id, ""), value, baseline) for (query_id,), value, baseline in found]
    return sorted(gains, key=lambda gain: gain.baseline - gain.value)


def _texts(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row[0]: row[1] for row in csv.reader(file, delimiter="\t")}


def _pictures(head: HeadResults, gains: Sequence[Gain]) -> figures.Pictures:
    measure = head.measures[0]
    if head.kind == "ranking":
        differences = [gain.value - gain.baseline for gain in gains]
        title = f"Gain over the {head.baseline_name}, per query ({measure})"
        gained = (title, figures.gains(differences, measure, head.baseline_name, head.name))
        return [gained, *_depth_pictures(head)]
    if head.kind == "regression":
        return [("Predicted and true values", figures.predictions(head.labels, head.predictions[0]))]
    classes, counts = confusion_matrix(head)
    pictures = [("Confusion matrix", figures.confusion(np.array(counts), classes))]
    if len(head.confidence):
        right = head.labels == head.predictions[0]
        pictures.append(("Calibration: accuracy by confidence", figures.calibration(head.confidence, right)))
    return pictures


def _depth_pictures(head: HeadResults) -> figures.Pictures:
    """What the ranking would be worth with fewer candidates; none if that is not known, or there are hardly any."""
    if len(head.by_depth) < 2:
        return []
    measure, level = head.measures[0], head.baseline_name
    panels = {measure: {head.name: {float(depth): values.tolist() for depth, values in head.by_depth.items()}}}
    first = {measure: float(head.first_stage[measure].mean())}
    picture = figures.setting_curves(panels, "candidates re-ranked", first, level)
    return [(f"{measure} by the number of candidates that are re-ranked", picture)]
