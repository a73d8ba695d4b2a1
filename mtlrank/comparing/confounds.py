"""Differences that confound a comparison: within a system beside the seed, between systems beside their names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mtlrank.about import DATA
from mtlrank.comparing.grouping import (
    TASKS,
    Settings,
    all_keys,
    distinguishing_keys,
    identity_of,
    name_settings,
    settings_of,
    short_value,
)
from mtlrank.errors import DataError
from mtlrank.evaluation.judged_head import run_of
from mtlrank.storage import read_json
from mtlrank.words import listed

_MANY = 10  # differences named in a sentence
_LONG = 60  # characters of a value, such as a path or names of tasks
_CLASS = "class "
_WEIGHTS = ("model.start_from", "model.body.backbone", "model_dir")  # settings that name some
_PREPARED = ("prepare.num_shards", "prepare.on_bad_row")  # of `prepare`, what prepared data depend on


class Traced(NamedTuple):
    """A run with the hashes of what it was made from."""

    run: Path
    settings: Settings
    # By the key of a dataset, by the setting that names weights, or by a class, as in `class my.Loss`.
    hashes: Mapping[str, str]


def confounds(groups: Mapping[str, Sequence[Path]]) -> list[str]:
    """The confounds in sentences, from the run folders of each system. Folders without a config are left out."""
    folders = {name: [path for path in paths if path.is_dir()] for name, paths in groups.items()}
    found = {name: [settings for path in paths if (settings := _settings(path))] for name, paths in folders.items()}
    traced = [read for paths in folders.values() for path in paths if (read := _traced(path))]
    return confounds_of({name: runs for name, runs in found.items() if runs}) + changed_since(traced)


def confounds_of(systems: Mapping[str, Sequence[Settings]]) -> list[str]:
    """The confounds in sentences, from the settings of each system's runs, without their seeds."""
    notes = []
    for name, runs in systems.items():
        if differing := _differing([[run] for run in runs]):
            notes.append(
                f"{name}: its {len(runs)} runs differ not only in their seed, but in {_in_words(differing)}: their "
                "variance is not that of seeds alone."
            )
    first = [runs[0] for runs in systems.values()]
    are_different = len({repr(sorted(run.items())) for run in first}) == len(first) > 1
    are_named_by_settings = are_different and list(systems) == name_settings(first)
    differing = _differing(list(systems.values()))
    if are_named_by_settings:
        named = {(differing.get(key), _last(key)) for key in distinguishing_keys(first)}
        differing = {key: values for key, values in differing.items() if (values, _last(key)) not in named}
    if differing:
        notes.append(
            f"{' and '.join(systems)} {'also ' if are_named_by_settings else ''}differ in: {_in_words(differing)}."
        )
    return notes


def changed_since(runs: Sequence[Traced]) -> list[str]:
    """In sentences: data, weights and classes that are others for a later run with the same settings of them."""
    notes = []
    for name in dict.fromkeys(name for run in runs for name in run.hashes):
        first = dict[str, Traced]()  # by settings
        for run in (run for run in runs if name in run.hashes):
            other = first.setdefault(repr(_settings_of_part(run.settings, name)), run)
            if other.hashes[name] != run.hashes[name]:
                notes.append(
                    f"{other.run} and {run.run} have equal settings but were made from different {_kind(name)} of "
                    f"{name}: files changed in between, or mtlrank reads them otherwise now."
                )
                break
    return notes


def _kind(name: str) -> str:
    return "versions" if name.startswith(_CLASS) else "weights" if name in _WEIGHTS else "data"


def _settings_of_part(settings: Settings, name: str) -> list[tuple[str, object]]:
    """The settings of a dataset, or the one that names weights; a class has none."""
    if name.startswith(_CLASS):
        return []
    if name in _WEIGHTS:
        return [(name, settings.get(name))]
    prefix = f"datamodule.dataset.datasets.{name}."
    return sorted(
        (key.removeprefix(prefix), value)
        for key, value in settings.items()
        if key.startswith(prefix) or key in _PREPARED
    )


def _traced(run: Path) -> Traced | None:
    """None for a run that did not record it, such as one of which only the evaluation was kept."""
    try:
        hashes = read_json(run_of(run) / DATA)
        return Traced(run, identity_of(run), hashes)
    except DataError:
        return None


def _settings(run: Path) -> Settings | None:
    try:
        return settings_of(run)
    except DataError:
        return None  # not a run of mtlrank, or one of which only the evaluation was kept


def _differing(systems: Sequence[Sequence[Settings]]) -> dict[str, tuple[str, ...]]:
    """The keys in which systems of one or more runs differ, each with the values of all systems.

    Consequences of other differences are left out: settings of a task in systems that do not learn it (`-`), and settings
    of a part, such as an optimizer, that another part in its place does not have.
    """
    every = [run for runs in systems for run in runs]
    tasks = {task for run in every for task in run[TASKS]}
    replaced = tuple(
        key.removesuffix("_target_") for key in all_keys(every) if key.endswith("._target_") and _vary(every, key)
    )
    found = {}
    for key in all_keys(every):
        learners = [runs for runs in systems if tasks.intersection(key.split(".")) <= set(runs[0][TASKS])]
        is_replaced = key.startswith(replaced) and any(key not in run for runs in learners for run in runs)
        if not is_replaced and len({_values(runs, key) for runs in learners}) > 1:
            found[key] = tuple(_values(runs, key) if runs in learners else "-" for runs in systems)
    return found


def _vary(runs: Sequence[Settings], key: str) -> bool:
    return len({repr(run[key]) for run in runs if key in run}) > 1


def _values(runs: Sequence[Settings], key: str) -> str:
    """A system's value, or the different values of its runs."""
    values = dict.fromkeys("null" if run.get(key) is None else short_value(run[key]) for run in runs)
    return "/".join(_cut(value) for value in values)


def _cut(value: str) -> str:
    """The end of a long value; of a list, whole names."""
    if len(value) <= _LONG:
        return value
    end = value[-_LONG:]
    return f"…{end[end.find(',') :] if ',' in end else end}"


def _in_words(differing: Mapping[str, tuple[str, ...]]) -> str:
    """Keys with the same values are listed together, as one often takes its value from the other."""
    together: dict[tuple[str, ...], list[str]] = {}
    for key, values in differing.items():
        together.setdefault(values, []).append(key)
    phrases = []
    for values, (first, *others) in together.items():
        more = f" and {others[0] if len(others) == 1 else f'{len(others)} more'}" if others else ""
        phrases.append(f"{first}{more} ({', '.join(values)})")
    return listed(phrases, _MANY)


def _last(key: str) -> str:
    return key.rpartition(".")[2]
