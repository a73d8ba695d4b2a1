"""Runs below the folders that are named, such as those of a study; `runs/*` and `study/*/*` name more than runs."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtlrank.about import RUN
from mtlrank.comparing.grouping import split_run
from mtlrank.progress import warn
from mtlrank.words import listed

_DEPTH = 4  # of a study's folds in `runs`: study, tasks, seed, fold
_TABLE = "comparison.json"  # beside what a comparison wrote
_WRITTEN = {".csv", ".html", ".json", ".pdf", ".svg", ".tex"}
_MANY = 5  # paths named in a sentence


def find_runs(runs: Sequence[str]) -> list[str]:
    """The runs as they are named, with the runs below a folder, such as a study's, in its place.

    Files and folders that a comparison wrote are left out, with a note.
    """
    found, left_out = list[str](), list[str]()
    for run in runs:
        name, path = split_run(run)
        below = [str(each) for each in _runs_below(path)] if path.is_dir() else []
        if below:
            found += [each if name is None else f"{name}={each}" for each in below]
        elif ((path / _TABLE).exists() and not (path / RUN).exists()) or (
            path.suffix in _WRITTEN and (path.parent / _TABLE).exists()
        ):
            left_out.append(run)
        else:
            found.append(run)
    if left_out and found:
        warn(f"left out, as a comparison wrote them: {listed(left_out, _MANY)}")
    return found or list(runs)


def _runs_below(folder: Path) -> Iterator[Path]:
    """The runs in a folder that is no run itself, in order."""
    if (folder / RUN).exists():
        return
    for place, folders, files in os.walk(folder):
        path = Path(place)
        if RUN in files:
            yield path
        if RUN in files or len(path.relative_to(folder).parts) == _DEPTH:
            folders.clear()
        folders.sort()
