"""How many candidates are worth re-ranking: rankings of several systems, had they re-ranked only the best few."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtlrank.comparing.systems import System
from mtlrank.pages import figures
from mtlrank.pages.tables import as_csv
from mtlrank.storage import write_text
from mtlrank.trec import FIRST_STAGE

_HEADER = ["system", "head", "measure", "candidates", "mean", "standard_deviation", "seeds"]


def write_depths(output: Path, systems: Sequence[System]) -> None:
    """Write depths.csv, a row for each system, ranking and number of candidates, and a picture for each ranking.

    Nothing if no system has re-ranked. Names are untrusted and escaped.
    """
    if rows := [row for system in systems for row in _rows(system)]:
        write_text(output / "depths.csv", as_csv([_HEADER, *rows]))
        figures.write_pictures(output, list(_pictures(systems)))


def _rows(system: System) -> Iterator[list[Any]]:
    for name, head in system.heads.items():
        for depth, values in head.by_depth.items():
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            yield [system.name, name, head.measures[0], depth, float(np.mean(values)), spread, len(values)]


def _pictures(systems: Sequence[System]) -> Iterator[tuple[str, figures.Picture]]:
    """A picture for each ranking, with a line for each system."""
    for name in dict.fromkeys(name for system in systems for name in system.heads):
        panels: dict[str, dict[str, dict[float, list[float]]]] = {}  # by measure and system
        levels, level = dict[str, float](), FIRST_STAGE
        for system in (system for system in systems if name in system.heads and system.heads[name].by_depth):
            head = system.heads[name]
            measure = head.measures[0]
            panels.setdefault(measure, {})[system.name] = {float(d): v.tolist() for d, v in head.by_depth.items()}
            if measure in head.first_stage:
                levels[measure], level = float(head.first_stage[measure].mean()), head.baseline_name
        if panels:
            picture = figures.setting_curves(panels, f"{name}: candidates re-ranked", levels, level)
            yield f"depths: {name}", picture
