"""The metrics that training logged, by step."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from mtlrank.progress import warn
from mtlrank.words import counted

Curves = dict[str, list[tuple[int, float]]]  # (step, value) by metric


def read_curves(training: Path) -> Curves:
    """Every logged metric over steps, from all attempts of a run; where attempts overlap, the later one counts."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    attempts = (path for path in (training / "logs").glob("attempt_*/metrics.csv") if path.parent.name[8:].isdecimal())
    for path in sorted(attempts, key=lambda path: int(path.parent.name[8:])):
        for step, key, value in _points(path):
            curves[key][step] = value
    return {key: sorted(points.items()) for key, points in sorted(curves.items())}


def _points(path: Path) -> Iterator[tuple[int, str, float]]:
    """(step, metric, value) of a log, without the lines that a power failure may have damaged."""
    num_damaged = 0
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        whole = (line for line in file if line.endswith("\n"))  # a run may be writing its last line
        for row in csv.DictReader(whole):
            try:
                step = int(row["step"])
                values = {key: float(value) for key, value in row.items() if value and key not in ("step", "epoch")}
            except (KeyError, TypeError, ValueError):
                num_damaged += 1
            else:
                yield from ((step, key, value) for key, value in values.items())
    if num_damaged:
        warn(f"{path}: {counted(num_damaged, 'damaged line')} left out of the curves")
