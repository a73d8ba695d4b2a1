"""Runs over a setting that was varied, such as a learning rate or the number of training queries."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mtlrank.checks import nearest
from mtlrank.comparing.grouping import TASKS, Settings, settings_of, split_run, system_names
from mtlrank.errors import ConfigError
from mtlrank.progress import warn

RunsByValue = dict[float, list[Path]]  # of a setting, smallest first


def curves_over(key: str, runs: Sequence[str]) -> dict[str, RunsByValue]:
    """The run folders by their value of a setting, for each curve by its name.

    Runs are on one curve if they differ only in the setting, what follows from it, seed and fold; `name=DIR` names the
    curve of a run. Runs without a number are left out, with a warning. Raises `ConfigError` if there are no two numbers.
    """
    named = [split_run(run) for run in runs]
    settings = {folder: settings_of(folder) for _, folder in named}
    numbers = {folder: value for folder, found in settings.items() if (value := _number(found.get(key))) is not None}
    if len(set(numbers.values())) < 2:
        raise ConfigError(_too_few(key, settings))
    if left_out := [str(folder) for folder in settings if folder not in numbers]:
        warn(f"left out of the curve, as {key} is no number there: {', '.join(left_out)}")
    of_value = _following(key, [settings[folder] for folder in numbers])
    labels = system_names({f: {k: v for k, v in settings[f].items() if k not in of_value} for f in numbers})
    curves: dict[str, RunsByValue] = {}
    for name, folder in sorted((each for each in named if each[1] in numbers), key=lambda each: numbers[each[1]]):
        curve = curves.setdefault(name or labels[folder], {})
        curve.setdefault(numbers[folder], []).append(folder)
    return dict(sorted(curves.items()))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _following(key: str, runs: Sequence[Settings]) -> set[str]:
    """The setting, and those that it determines: equal in all runs with the same value that have them."""
    found = {key}
    for other in {other for run in runs for other in run} - {TASKS}:
        pairs = {(run[key], repr(run[other])) for run in runs if other in run}
        values = {value for value, _ in pairs}
        if len(pairs) == len(values) and len({own for _, own in pairs}) > 1:
            found.add(other)
    return found


def _too_few(key: str, settings: Mapping[Path, Settings]) -> str:
    every = list(settings.values())
    varied = sorted(
        other
        for other in {other for run in every for other in run}
        if len({number for run in every if (number := _number(run.get(other))) is not None}) > 1
    )
    said = f"Numbers that differ: {', '.join(varied)}." if varied else "No number differs between the runs."
    if not any(key in run for run in every):
        return f"No run has a setting {key!r}.{nearest(key, varied)} {said}"
    return f"A curve over {key} needs runs with different numbers there. {said}"
