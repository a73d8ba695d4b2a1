"""Many runs in one table, such as those of a sweep: the settings that differ, and their measures.

mtlrank runs runs/* --output sweep.csv
"""

if __name__ == "__main__":  # `python -m mtlrank.runs` is `mtlrank runs`
    from mtlrank.entry import start_command

    start_command("runs")

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.markup import escape

from mtlrank.about import COSTS, METRICS, MODEL, RUN, costs, read_about
from mtlrank.checks import is_number, nearest
from mtlrank.comparing.confounds import confounds
from mtlrank.comparing.found_runs import find_runs
from mtlrank.comparing.grouping import group_runs, split_run
from mtlrank.comparing.setting_curves import RunsByValue, curves_over
from mtlrank.config import Config, datasets_of, measures_of
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation import measures
from mtlrank.evaluation.curves import Curves, read_curves
from mtlrank.pages.figures import setting_curves
from mtlrank.pages.tables import as_csv, show
from mtlrank.progress import say, warn
from mtlrank.storage import read_json, write_text

_AGAIN = "Leave this run out, or run its command again with force=true."


class Reached(NamedTuple):
    """The measures of a system's runs; a run that lacks a measure is left out there."""

    system: str
    folders: list[Path]
    values: dict[str, list[float]]  # by measure, as in test/trec2019/nDCG@10

    def mean(self, key: str) -> float | None:
        """The mean over runs, if there are any."""
        return statistics.fmean(self.values[key]) if self.values.get(key) else None

    def spread(self, key: str) -> float | None:
        """The standard deviation over runs, if there are several."""
        return statistics.stdev(self.values[key]) if len(self.values.get(key, ())) > 1 else None


def run(
    runs: Sequence[str], keys: Sequence[str] | None = None, output: Path | None = None, curve: str | None = None
) -> list[Reached]:
    """Show the table, the best system by the first measure first, and write it to `output`.

    The default measures are the one that chooses checkpoints and, for each head, the first one on its test set, or in
    validation if no run was judged. Runs are grouped into systems as by `compare`, and a line says in which settings these
    differ besides those that name them. Unfinished runs follow in a table of
    their own, which is not written, with their last validation. The measures over `curve`, the dotted key of a number that
    was varied, are drawn beside `output`. Raises `ConfigError` for a measure that no run has or what is no curve, and
    `DataError` if no run has begun, or none is finished and there is an `output`.
    """
    if curve is not None and output is None:
        raise ConfigError(f"A curve needs a file beside which it is drawn: --curve {curve} --output sweep.csv.")
    finished, begun = _split_finished(find_runs(runs))
    if not finished and (output is not None or not begun):
        raise DataError(f"None of the runs is finished: {', '.join(runs)}. Name the output_dir of finished ones.")
    groups = group_runs(finished)
    curves = {} if curve is None else curves_over(curve, finished)
    rows = [_read(system, folders) for system, folders in groups.items()]
    known = {key for row in rows for key in row.values}
    all_known = known.union(*map(_validated, begun.values()))
    for key in keys or ():
        if key not in all_known:
            there = ", ".join(sorted(all_known)) or "none yet"
            raise ConfigError(f"No run has the measure {key!r}.{nearest(key, all_known)} There are: {there}.")
    if rows:
        chosen = list(keys or _default_measures(rows, known))
        if not chosen:
            raise DataError(f"No measure is in the {METRICS} of {', '.join(runs)}: nothing to compare.")
        _warn(rows, chosen)
        less = measures.is_lower_better(chosen[0].rpartition("/")[2])
        rows.sort(key=lambda row: _sort_key(row.mean(chosen[0]), less=less))
        _print(rows, chosen)
        for note in confounds(groups):
            say(note)
    if begun:
        _print_begun(begun, keys or _first_measures(begun))
    if output is not None:
        write_text(output, _as_csv(rows, chosen))
        print(f"results: {output}")
        if curve is not None:
            _draw(curves, curve, chosen, output)
    return rows


def _split_finished(runs: Sequence[str]) -> tuple[list[str], dict[str, Curves]]:
    """The finished runs, and the curves of unfinished ones, without other folders, which `runs/*` may name too."""
    finished, begun, left_out = list[str](), dict[str, Curves](), list[str]()
    for run in runs:
        _, folder = split_run(run)
        if (folder / METRICS).exists():
            finished.append(run)
        elif (folder / RUN).exists():
            begun[run] = read_curves(folder)
        else:
            left_out.append(run)
    if left_out and len(left_out) < len(runs):
        warn(f"left out, as no run has begun there: {', '.join(left_out)}")
    return finished, begun


def _validated(curves: Curves) -> dict[str, float]:
    """The measures of a run's last validation."""
    measured = {key: points[-1][1] for key, points in curves.items() if key.startswith("val/")}
    return {key: value for key, value in measured.items() if not key.endswith("/loss")}


def _read(system: str, folders: list[Path]) -> Reached:
    values: dict[str, list[float]] = {}
    for folder in folders:
        for key, value in read_json(folder / METRICS).items():
            if not is_number(value):
                raise DataError(f"{folder / METRICS} is damaged: {key} is {value!r}, expected a number. {_AGAIN}")
            values.setdefault(key, []).append(value)
    return Reached(system, folders, values)


def _warn(rows: Sequence[Reached], keys: Sequence[str]) -> None:
    """Warn of values in one column that were measured on different queries."""
    most = {str(_trained(folder).max_val_queries) for row in rows for folder in row.folders}
    if len(most) > 1 and any(key.startswith("val/") for key in keys):
        found = ", ".join(sorted(most)).replace("None", "all")
        warn(f"val/ measures are of different queries: training.max_val_queries is {found}")


class _Trained(NamedTuple):
    """What the config of a run says of its measures."""

    max_val_queries: int | None
    measures: dict[str, list[str] | None]  # by dataset name, the main task first; None: those of the task's class


def _trained(folder: Path) -> _Trained:
    path = folder / MODEL / "config.json"
    config: Config = read_json(path)
    try:
        training = config["training"]
        named = {str(dataset["name"]): measures_of(dataset) for dataset in datasets_of(config).values()}
        return _Trained(training.get("max_val_queries"), named)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: it is not the config of a run. {_AGAIN}") from error


def _default_measures(rows: Sequence[Reached], known: set[str]) -> list[str]:
    """The measure that chooses checkpoints, and one of each head."""
    heads: dict[str, str] = {}  # the first measure by dataset name, the main task first
    monitored = set[str]()
    for folder in (folder for row in rows for folder in row.folders):
        trained = _trained(folder)
        monitored.add(str(read_about(folder).get("chosen by")))
        for name, of_dataset in trained.measures.items():
            if measured := of_dataset or sorted(_measured(name, known)):
                heads.setdefault(name, measured[0])
    primary = [f"{name}/{measure}" for name, measure in heads.items()]
    wanted = [*sorted(monitored), *[f"val/{key}" for key in primary if f"val/{key}" in known][:1]]
    wanted += [f"test/{key}" if f"test/{key}" in known else f"val/{key}" for key in primary]
    return [key for key in dict.fromkeys(wanted) if key in known]


def _measured(name: str, keys: set[str]) -> list[str]:
    """The measures of a head among keys such as test/trec2019/nDCG@10."""
    return [key.partition(f"/{name}/")[2] for key in keys if f"/{name}/" in key]


def _sort_key(value: float | None, *, less: bool) -> float:
    """The best value comes first, no value last."""
    return float("inf") if value is None else value if less else -value


def _print(rows: Sequence[Reached], keys: Sequence[str]) -> None:
    cells = [[escape(row.system), str(len(row.folders)), *(_cell(row, key) for key in keys)] for row in rows]
    show(["system", "runs", *map(_title, keys)], cells, names=1, width=160)


def _first_measures(begun: Mapping[str, Curves]) -> list[str]:
    """The first measure of each head that was validated."""
    keys = dict[str, None]()
    for run in begun:
        settings = read_json(split_run(run)[1] / RUN)
        for place, found in settings.items():
            before, end, _ = place.partition("task.measures")
            if end and found:
                keys[f"val/{settings.get(before + 'name')}/{found[0]}"] = None
    return [key for key in keys if any(key in curves for curves in begun.values())]


def _print_begun(begun: Mapping[str, Curves], keys: Sequence[str]) -> None:
    keys = [key for key in keys if key.startswith("val/")]
    cells = []
    for run, curves in begun.items():
        step = max((points[-1][0] for points in curves.values()), default=0)
        found = _validated(curves)
        cells.append([escape(run), f"{step:,}", *(f"{found[key]:.4f}" if key in found else "" for key in keys)])
    show(["not finished", "last step", *map(_title, keys)], cells, names=1, width=160)


def _title(key: str) -> str:
    return escape(key.replace("/", "\n"))


def _cell(row: Reached, key: str) -> str:
    mean, spread = row.mean(key), row.spread(key)
    return "" if mean is None else f"{mean:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def _as_csv(rows: Sequence[Reached], keys: Sequence[str]) -> str:
    """A row for each system: its runs, mean and standard deviation of each measure, and the mean cost of a run."""
    of_measures = [f"{key}{what}" for key in keys for what in ("", " (sd)")]
    table: list[list[Any]] = [["system", "runs", *of_measures, *COSTS, "folders"]]
    for row in rows:
        cells = [value for key in keys for value in (row.mean(key), row.spread(key))]
        costs = [_mean_cost(row.folders, what) for what in COSTS]
        table.append([row.system, len(row.folders), *cells, *costs, " ".join(map(str, row.folders))])
    return as_csv(table)


def _draw(curves: Mapping[str, RunsByValue], setting: str, keys: Sequence[str], table: Path) -> None:
    """Write the picture of measures over a setting beside the table."""
    panels = {key: {name: reached for name, curve in curves.items() if (reached := _along(curve, key))} for key in keys}
    setting_curves({key: lines for key, lines in panels.items() if lines}, setting).write(table.parent, table.stem)
    print(f"pictures: {table.with_suffix('.svg')}, {table.with_suffix('.pdf')}")


def _along(curve: RunsByValue, key: str) -> dict[float, list[float]]:
    """A measure of the runs at each value of a setting where it was measured."""
    reached = {value: _read("", folders).values.get(key, []) for value, folders in curve.items()}
    return {value: measured for value, measured in reached.items() if measured}


def _mean_cost(folders: Sequence[Path], what: str) -> float | None:
    """The mean of what runs have recorded; None if one has not."""
    recorded = [took[what] for folder in folders if what in (took := costs(folder))]
    return statistics.fmean(recorded) if len(recorded) == len(folders) else None
