"""The metrics that training logged, by step."""

import csv
from collections import defaultdict
from pathlib import Path

Curves = dict[str, list[tuple[int, float]]]  # (step, value) by metric


def read_curves(training: Path) -> Curves:
    """Every logged metric over steps, from all attempts of a run; where attempts overlap, the later one counts."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted((training / "logs").glob("attempt_*/metrics.csv"), key=lambda p: int(p.parent.name[8:])):
        with path.open(encoding="utf-8", newline="") as file:
            whole = (line for line in file if line.endswith("\n"))  # a run may be writing its last line
            for row in csv.DictReader(whole):
                for key, value in row.items():
                    if value and key not in ("step", "epoch"):
                        curves[key][int(row["step"])] = float(value)
    return {key: sorted(points.items()) for key, points in sorted(curves.items())}
