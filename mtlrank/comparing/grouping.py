"""Runs grouped into systems, named as the user names them, else by the settings that differ."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtlrank.about import MODEL, RUN
from mtlrank.config import datasets_of
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation.judged_head import JUDGED_RUN, run_of
from mtlrank.storage import local_path, read_json

Settings = dict[str, Any]  # of a run, by dotted key

_OF_THE_SEED = ("seed", "datamodule.seed", "loop.loss.seed", "datamodule.train_sampler.draw_seed")
TASKS = "tasks"


def group_runs(runs: Sequence[str]) -> dict[str, list[Path]]:
    """Run folders, and TREC run files of other systems, by the name of their system, in the order given.

    `name=DIR` names a run's system. Other runs are one system if their configs differ only in seed, fold and what does
    not make another run (folders, devices, checkpoints); it is named by the settings that distinguish it from the others.
    A run file is named as it was typed.
    """
    named = [split_run(run) for run in runs]
    check_distinct([path for _, path in named])
    settings = {path: settings_of(path) for name, path in named if name is None and path.is_dir()}
    labels = system_names(settings)
    groups: dict[str, list[Path]] = {}
    for name, path in named:
        groups.setdefault(name or labels.get(path, str(path)), []).append(path)
    _check_kinds(groups)
    _check_seeds(groups)
    return groups


def system_names(settings: Mapping[Path, Settings]) -> dict[Path, str]:
    """The name of each run's system: runs with equal settings are one system."""
    kinds = list[Settings]()
    for found in settings.values():
        if found not in kinds:
            kinds.append(found)
    labels = name_settings(kinds)
    return {path: labels[kinds.index(found)] for path, found in settings.items()}


def name_settings(systems: Sequence[Settings]) -> list[str]:
    """A name for each of several different settings: the keys that distinguish them, with their values."""
    chosen = distinguishing_keys(systems)
    short = [_short(key) for key in chosen]
    names = [one if short.count(one) == 1 else key for one, key in zip(short, chosen, strict=True)]
    return [
        " ".join(f"{name}={short_value(settings.get(key))}" for name, key in zip(names, chosen, strict=True))
        for settings in systems
    ]


def distinguishing_keys(systems: Sequence[Settings]) -> list[str]:
    """As few keys as distinguish several different settings, `tasks` before others."""
    differing = [key for key in all_keys(systems) if len({repr(settings.get(key)) for settings in systems}) > 1]
    chosen: list[str] = [] if differing else [TASKS]

    def kinds(keys: Sequence[str]) -> int:
        return len({repr([settings.get(key) for key in keys]) for settings in systems})

    while kinds(chosen) < len(systems):
        chosen.append(max(differing, key=lambda key: kinds([*chosen, key])))  # the first of the best
    return chosen


def all_keys(systems: Sequence[Settings]) -> list[str]:
    """All keys of several settings: `tasks` first, then short ones before long ones, those of the data last."""
    keys = {key for settings in systems for key in settings}
    return sorted(keys, key=lambda key: (key != TASKS, key.count("."), key.startswith("datamodule."), key))


def split_run(run: str) -> tuple[str | None, Path]:
    """(name, path) of an argument `name=PATH`; no name for a path alone, which may contain '=' too."""
    name, equals, folder = run.partition("=")
    if not equals or "/" in name or Path(run).exists():
        name, folder = "", run
    elif not name.strip() or not folder:
        raise ConfigError(f"{run!r} is neither a folder nor name=FOLDER.")
    path = local_path(folder)
    if not path.exists():
        raise DataError(
            f"The run {folder!r} does not exist. Expected the output_dir of a run, or in a comparison a TREC run file."
        )
    return name.strip() or None, path


def settings_of(run: Path) -> Settings:
    """A run's settings without its seed and its fold."""
    return without_seed(without_fold(identity_of(run)))


def without_seed(settings: Settings) -> Settings:
    """The settings that runs with different seeds share."""
    return {key: value for key, value in settings.items() if key not in _OF_THE_SEED}


def without_fold(settings: Settings) -> Settings:
    """The settings that the folds of a cross-validation share."""
    return {key: value for key, value in settings.items() if not (key.endswith(".fold") and settings.get(f"{key}s"))}


def identity_of(folder: Path) -> Settings:
    """A run's settings with its seed, and with the tasks that were learnt, however they were chosen.

    The folder of an evaluation holds them itself, wherever it lies.
    """
    if (folder / JUDGED_RUN).exists():
        judged: Settings = read_json(folder / JUDGED_RUN)
        return judged
    run = run_of(folder)
    if not (run / MODEL / "config.json").is_file():
        raise DataError(
            f"{run} is not a finished run: it has no model. Wait for it, or name the output_dir of another."
        )
    config = read_json(run / MODEL / "config.json")
    settings = read_json(run / RUN)  # only those of its identity: no folders, devices, checkpoints
    try:
        return {**settings, TASKS: list(datasets_of(config))}
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{run} is not a run of mtlrank: its config has no datasets. Name it, as in all={run}."
        ) from error


def identity_if_kept(run: Path) -> Settings | None:
    """The identity of a run; None for what is no run of mtlrank, or one of which only the evaluation was kept."""
    try:
        return identity_of(run)
    except DataError:
        return None


def check_distinct(paths: Sequence[Path]) -> None:
    """Raise `ConfigError` if a folder or file is named twice: its results would count twice."""
    seen = set[Path]()
    for path in paths:
        if path.resolve() in seen:
            raise ConfigError(f"The run {str(path)!r} is named twice. Leave one out: a run counts once.")
        seen.add(path.resolve())


def _check_kinds(groups: dict[str, list[Path]]) -> None:
    for name, paths in groups.items():
        if len({path.is_dir() for path in paths}) > 1:
            raise ConfigError(f"{name!r} names folders of runs and a run file. Give the file a name of its own.")


def _check_seeds(groups: dict[str, list[Path]]) -> None:
    """Refuse two runs of the same config and seed in a system: they are one result, not two."""
    for folders in groups.values():
        first: dict[str, Path] = {}
        for path in (path for path in folders if path.is_dir()):
            run = identity_if_kept(path)
            if run is None:
                continue
            other = first.setdefault(json.dumps(run, sort_keys=True), path)
            if other != path:
                raise ConfigError(
                    f"{other} and {path} have the same config and seed {run.get('seed')}, so they count once. "
                    f"Leave one out or, if their data or classes of yours differ, name both, as in a={other} b={path}."
                )


def _short(key: str) -> str:
    """The last word of a key; for a class, the one before."""
    *_, before, last = ["", *key.split(".")]
    return before if last == "_target_" and before else last


def short_value(value: Any) -> str:
    """A short form of a value: a list with commas, a class by its name."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.rpartition(".")[2] if text.startswith("mtlrank.") else text
