"""The metrics that training logged, by step."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from mtlrank.errors import DataError, one_line

Curves = dict[str, list[tuple[int, float]]]  # (step, value) by metric


def read_curves(training: Path) -> Curves:
    """Every logged metric over steps, from all attempts of a run; where attempts overlap, the later one counts."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    attempts = (path for path in (training / "logs").glob("attempt_*/metrics.csv") if path.parent.name[8:].isdecimal())
    for path in sorted(attempts, key=lambda path: int(path.parent.name[8:])):
        try:
            for step, key, value in _points(path):
                curves[key][step] = value
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise DataError(
                f"{path} is damaged: {one_line(error)}. Remove it: the rest of the run needs none."
            ) from error
    return {key: sorted(points.items()) for key, points in sorted(curves.items())}


def _points(path: Path) -> Iterator[tuple[int, str, float]]:
    """(step, metric, value) of a log, line by line."""
    with path.open(encoding="utf-8", newline="") as file:
        whole = (line for line in file if line.endswith("\n"))  # a run may be writing its last line
        for row in csv.DictReader(whole):
            for key, value in row.items():
                if value and key not in ("step", "epoch"):
                    yield int(row["step"]), key, float(value)
