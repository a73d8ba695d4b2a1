"""The values behind a table of results: those of each seed and, of a cross-validation, of each fold."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtlrank.comparing.grouping import identity_if_kept
from mtlrank.comparing.systems import System
from mtlrank.comparing.systems_table import Column
from mtlrank.evaluation.judged_head import SUMMARY, evaluation_of
from mtlrank.evaluation.pairing import values_of_runs
from mtlrank.pages.tables import as_csv
from mtlrank.storage import read_json, write_text

_HEADER = ["system", "seed", "fold", "head", "measure", "value", "folder"]


def write_seeds(output: Path, systems: Iterable[System], columns: Sequence[Column]) -> None:
    """Write seeds.csv: a row for each system, seed, head and measure. Names are untrusted and escaped.

    The folds of a seed have a row each, after that of all queries, whose fold is empty.
    """
    rows = [row for system in systems for column in columns for row in _rows(system, *column)]
    write_text(output / "seeds.csv", as_csv([_HEADER, *rows]))


def _rows(system: System, name: str, measure: str) -> Iterator[list[Any]]:
    head = system.heads.get(name)
    if head is None or measure not in head.measures:
        return
    fold = head.fold.fold if head.fold else None
    for number, value in enumerate(values_of_runs(head, measure).tolist()):
        folders = system.folders[number * system.num_folds :][: system.num_folds]
        seed = _seed(folders[0])
        yield [system.name, seed, fold, name, measure, value, folders[0] if len(folders) == 1 else None]
        for folder in folders if len(folders) > 1 else ():
            judged = read_json(evaluation_of(folder) / name / SUMMARY)
            yield [system.name, seed, judged["fold"][0], name, measure, judged["values"][measure], folder]


def _seed(folder: Path) -> int | None:
    """The seed of a run; None for a run file, and where only the evaluation was kept."""
    return (identity_if_kept(folder) or {}).get("seed") if folder.is_dir() else None
