"""Several bodies' probes beside each other: the mean over seeds in each layer, and how far it is from the first body's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtlrank.about import PROBED
from mtlrank.comparing.confounds import Traced, changed_since, confounds_of
from mtlrank.comparing.grouping import Settings, check_distinct, system_names, without_seed
from mtlrank.dtypes import Floats
from mtlrank.errors import ConfigError, DataError
from mtlrank.pages.figures import RANDOM_WEIGHTS
from mtlrank.storage import read_json

COMPRESSION = "compression"
FREQUENCIES = "frequencies of the labels"  # by which labels are coded without a layer
_SAME = ("split", "classes")  # of a task, in all probes


class Probe(NamedTuple):
    """The results in the folder of one probe."""

    folder: Path
    seed: int
    settings: Settings  # by dotted key, without the seed
    made_from: dict[str, str]  # hashes of weights, by the setting that names them, and of data, by the dataset's key
    tasks: dict[str, dict[str, Any]]  # `Probed` of each task, by its name


class Estimate(NamedTuple):
    """A mean over probes with its 95 % interval (Student's t), which one probe does not have."""

    mean: float
    low: float | None
    high: float | None


class Curve(NamedTuple):
    """What the probes of one name found for a task, by layer."""

    seeds: list[int]
    values: dict[int, Floats]  # of each probe, in the order of the seeds; NaN where a probe does not rank

    def at(self, layer: int) -> Estimate | None:
        """The mean in a layer; None if a probe has no value there, or the body no such layer."""
        return _estimate(self.values[layer]) if layer in self.values else None

    def beyond(self, first: "Curve", layer: int) -> Estimate | None:
        """How much more it is than the first body's, paired by seed if both have the same ones."""
        if layer not in first.values or layer not in self.values:
            return None
        return _difference(first.values[layer], self.values[layer], is_paired=_are_paired(first.seeds, self.seeds))


class Found(NamedTuple):
    """One quantity of one task: a curve for each name, and the level that needs no layer."""

    task: str
    quantity: str  # compression, or a measure
    is_main: bool  # it is the compression or the task's first measure
    curves: dict[str, Curve]
    level: float
    level_name: str

    @property
    def first(self) -> Curve:
        """The curve that others are compared with."""
        return next(iter(self.curves.values()))


def read_probe(folder: Path) -> Probe:
    """Read the results of `mtlrank probe` in a folder."""
    found = read_json(folder / PROBED)
    if not {"settings", "weights"} <= found.keys():
        raise DataError(f"{folder} was written by an earlier version of mtlrank. Probe again, with force=true.")
    settings = found["settings"]
    try:
        tasks = {task["name"]: _checked(task) for task in found["tasks"]}
        made_from = {**found["classes"], **found["weights"], **found["data"]}
        return Probe(folder, int(settings["seed"]), without_seed(settings), made_from, tasks)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / PROBED} is damaged ({error!r}). Probe again, with force=true.") from error


def _checked(task: dict[str, Any]) -> dict[str, Any]:
    """The results of a task. Raises an error if what is compared is not there, or no number."""
    quantities = [COMPRESSION, *task["measures"]]
    levels = [task["frequencies"], *(task["baseline"][measure] for measure in task["measures"])]
    bodies = [task["found"], *([task["control"]] if task["control"] else [])]
    values = [value for body in bodies for each in quantities for value in _by_layer(body, each).values()]
    if wrong := [value for value in (*levels, *values) if type(value) not in (int, float)]:
        raise ValueError(f"{task['name']} has the value {wrong[0]!r}")
    _ = [task[key] for key in (*_SAME, "baseline_name")]
    return task


def group_probes(probes: Sequence[tuple[str | None, Probe]]) -> dict[str, list[Probe]]:
    """Probes by the name that was typed, or else by the settings that differ beside the seed; sorted by seed."""
    check_distinct([probe.folder for _, probe in probes])
    labels = system_names({probe.folder: probe.settings for name, probe in probes if name is None})
    groups = dict[str, list[Probe]]()
    for name, probe in probes:
        group = groups.setdefault(name or labels[probe.folder], [])
        for other in group:
            if (other.seed, other.settings, other.made_from) == (probe.seed, probe.settings, probe.made_from):
                raise ConfigError(
                    f"{other.folder} and {probe.folder} have the same settings and seed {probe.seed}, so they count once. "
                    "Leave one out."
                )
            if name is None and (changed := changed_since([_traced(other), _traced(probe)])):
                raise ConfigError(f"{changed[0]} Name both bodies, as in before={other.folder} after={probe.folder}.")
        group.append(probe)
    return {name: sorted(group, key=lambda probe: probe.seed) for name, group in groups.items()}


def compare_probes(groups: Mapping[str, Sequence[Probe]]) -> list[Found]:
    """Compression and measures of each task that the probes of all names have, in the order of the first probe.

    If all of a name's probes also probed a body with random weights, the first such name's are the last curve.
    """
    every = [probe for group in groups.values() for probe in group]
    names = [task for task in every[0].tasks if all(task in probe.tasks for probe in every)]
    if not names:
        raise DataError(f"No task was probed in all of {', '.join(str(probe.folder) for probe in every)}.")
    return [found for name in names for found in _task(name, groups)]


def remarks(groups: Mapping[str, Sequence[Probe]]) -> list[str]:
    """What confounds the comparison or is left out of it, in sentences."""
    every = [probe for group in groups.values() for probe in group]
    notes = confounds_of({name: [probe.settings for probe in group] for name, group in groups.items()})
    notes += changed_since([_traced(probe) for probe in every])
    for task in dict.fromkeys(task for probe in every for task in probe.tasks):
        mine = [probe.tasks[task] for probe in every if task in probe.tasks]
        if len(mine) < len(every):
            notes.append(f"{task} is left out: it was not probed everywhere.")
            continue
        lacking = dict.fromkeys(
            m for probed in mine for m in probed["measures"] if not all(m in p["measures"] for p in mine)
        )
        if lacking:
            notes.append(f"{task}: {', '.join(lacking)} is left out: not all probes have it.")
        for what in _SAME:
            if len(different := dict.fromkeys(str(probed[what]) for probed in mine)) > 1:
                notes.append(f"{task}: the probes differ in {what}: {', '.join(different)}.")
    return notes


def _traced(probe: Probe) -> Traced:
    return Traced(probe.folder, probe.settings, probe.made_from)


def _task(name: str, groups: Mapping[str, Sequence[Probe]]) -> Iterator[Found]:
    bodies = {body: [probe.tasks[name] for probe in group] for body, group in groups.items()}
    seeds = {body: [probe.seed for probe in group] for body, group in groups.items()}
    first = next(iter(bodies.values()))
    controls = [body for body, probed in bodies.items() if all(task["control"] for task in probed)]
    every = [task for probed in bodies.values() for task in probed]
    measures = [each for each in first[0]["measures"] if all(each in task["measures"] for task in every)]
    for quantity in (COMPRESSION, *measures):
        curves = {body: Curve(seeds[body], _values(probed, "found", quantity)) for body, probed in bodies.items()}
        if controls and RANDOM_WEIGHTS not in curves:
            curves[RANDOM_WEIGHTS] = Curve(seeds[controls[0]], _values(bodies[controls[0]], "control", quantity))
        if quantity == COMPRESSION:
            levels, level_name = [task["frequencies"] for task in first], FREQUENCIES
        else:
            levels, level_name = [task["baseline"][quantity] for task in first], first[0]["baseline_name"]
        is_main = quantity in (COMPRESSION, *measures[:1])
        yield Found(name, quantity, is_main, curves, float(np.mean(levels)), level_name)


def _values(probed: Sequence[Mapping[str, Any]], body: str, quantity: str) -> dict[int, Floats]:
    """By layer that all probes have: each one's value."""
    read = [_by_layer(task[body], quantity) for task in probed]
    shared = [layer for layer in read[0] if all(layer in values for values in read)]
    return {layer: np.array([values[layer] for values in read]) for layer in shared}


def _by_layer(layers: Mapping[str, Any], quantity: str) -> dict[int, float]:
    values = layers["compression"] if quantity == COMPRESSION else layers["values"][quantity]
    return {layer: np.nan if value is None else value for layer, value in zip(layers["layers"], values, strict=True)}


def _are_paired(first: Sequence[int], second: Sequence[int]) -> bool:
    return list(first) == list(second) and len(set(first)) == len(first)


def _estimate(values: Floats) -> Estimate | None:
    """The mean of (probes,) values with its interval."""
    if np.isnan(values).any():
        return None
    if len(values) < 2 or not np.ptp(values):
        return Estimate(float(values.mean()), None, None)
    from scipy import stats  # slow to import

    low, high = stats.ttest_1samp(values, 0.0).confidence_interval()
    return Estimate(float(values.mean()), float(low), float(high))


def _difference(first: Floats, second: Floats, *, is_paired: bool) -> Estimate | None:
    """The mean difference of (probes,) values; with other seeds or bodies by Welch's interval."""
    if is_paired:
        return _estimate(second - first)
    if np.isnan(first).any() or np.isnan(second).any():
        return None
    mean = float(second.mean() - first.mean())
    if min(len(first), len(second)) < 2 or not (np.ptp(first) or np.ptp(second)):
        return Estimate(mean, None, None)
    from scipy import stats

    low, high = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    return Estimate(mean, float(low), float(high))
