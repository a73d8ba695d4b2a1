"""Checks of a pipeline's parameters that need the configs, but no data."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.launch.trainjob import EXPECTED, Nodes, check_machine, check_shared
from components.train.settings import number_of_gpus, train_settings
from mtlrank.checks import nearest
from mtlrank.composing.compose import pipeline_config
from mtlrank.composing.selection import check_monitor, select_tasks
from mtlrank.config import Config, datasets_of, judged_sets, measures_of
from mtlrank.errors import ConfigError, StorageError
from mtlrank.evaluation.judged_head import head_name
from mtlrank.progress import warn
from mtlrank.registry.margin import check_margin
from mtlrank.storage.paths import Place
from mtlrank.storage.paths import parse as parse_path

# Folders at the root of a pod that belong to the image, and those that Kubeflow Pipelines mounts.
_OF_THE_IMAGE = ("bin", "dev", "etc", "lib", "lib64", "opt", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var")
RESERVED = (*_OF_THE_IMAGE, "gcs", "s3", "minio", "kfp-launcher", ".local", ".cache", ".config")
_TEXTS = {
    "tasks": '["trec2019", "msm_ner"]',
    "shards": '["1/2", "2/2"]',
    "measures": '["trec2019/nDCG@10"]',
    "overrides": '["training.max_steps=100"]',
}  # an example of each list of texts
_PLACES = ("prepared", "checkpoints", "registry")  # parameters that name folders


def check_training(values: Mapping[str, Any], are_tasks_given: bool = True) -> None:
    """Raise `ConfigError` for what cannot be trained, judged and promoted.

    `values` are all parameters of the pipeline. With `num_nodes` among them, several nodes train. If the tasks were not
    given, their default must be the experiment's tasks.
    """
    check_lists(values)
    check_pods(values)
    check_folders(values)
    settings = {**train_settings(values), "output_dir": "of the step"}
    config = pipeline_config(settings, values["overrides"])
    if not are_tasks_given:
        check_tasks(pipeline_config({**settings, "tasks": None}, values["overrides"]), values)
    config = select_tasks(config)
    check_shard(config)
    check_monitor(config)
    if values["registry"]:
        _check_promotion(config, values["measures"])
    check_margin(values["margin"], values["measures"] or _main_measure(config))
    if not any(map(judged_sets, datasets_of(config).values())):
        raise ConfigError("No dataset has a test split, so no head would be judged: give one a `test`.")


def check_places(values: Mapping[str, Any], pipeline_root: str | None = None, mounted: Sequence[str] = ()) -> None:
    """Refuse folders that are lost with a pod, or that other nodes cannot see; `mounted` are paths that outlive pods."""
    if "num_nodes" in values:
        check_shared({"checkpoints": [values["checkpoints"]], "the model": [pipeline_root] if pipeline_root else []})
    for name in _PLACES:
        if values.get(name):
            _check_place(name, values[name], mounted)


def check_places_of_step(values: Mapping[str, Any]) -> None:
    """`check_places` if this is a pod of a pipeline, whose own disk is lost with it; what is mounted here is not."""
    if "KFP_POD_NAME" in os.environ:
        paths = [values[name] for name in _PLACES if name in values]
        check_places(values, mounted=[folder for path in paths for folder in mounted_above(path)])


def check_lists(values: Mapping[str, Any]) -> None:
    """Check what lists hold, as Kubeflow Pipelines does not, and those whose elements get steps of their own."""
    for name, example in _TEXTS.items():
        if not (isinstance(values[name], list) and all(isinstance(element, str) for element in values[name])):
            raise ConfigError(f"{name} is {json.dumps(values[name])}: expected a list of texts, as in {example}.")
    tasks, shards = values["tasks"], values["shards"]
    for name in ("tasks", "shards"):
        if not values[name]:
            raise ConfigError(f"{name} is empty: expected at least one.")
    if len(set(tasks)) < len(tasks):
        raise ConfigError(f"tasks is {json.dumps(tasks)}: expected each task once.")
    if sorted(shards) != sorted(f"{number}/{len(shards)}" for number in range(1, len(shards) + 1)):
        raise ConfigError(
            f'shards is {json.dumps(shards)}: expected all shards of one number, each once, as in ["1/3", "2/3", "3/3"].'
        )


def check_pods(values: Mapping[str, Any]) -> None:
    """Refuse machines that no cluster gives."""
    gpus, judging_gpus = (number_of_gpus(values.get(name, "0"), name) for name in ("gpus", "judging_gpus"))
    if judging_gpus > 1:
        raise ConfigError(f"judging_gpus is {judging_gpus}: expected 0 or 1, as one process judges a head.")
    empty = [name for name in ("cpu", "memory") if not values[name]]
    if empty and "num_nodes" not in values:  # nodes may have what the cluster's runtime says
        raise ConfigError(f"{empty[0]} is empty: expected {EXPECTED[empty[0]]}.")
    check_machine({name: values[name] for name in Nodes._fields if name in values} | {"gpus": gpus})


def check_tasks(config: Config, values: Mapping[str, Any]) -> None:
    """Steps are made by the parameter `tasks` alone, so its default must be what the config would learn."""
    learnt = list(select_tasks(config)["model"]["heads"])
    if learnt != values["tasks"]:
        raise ConfigError(
            f"experiment={values['experiment']} has the tasks {', '.join(learnt)}, but the default of the pipeline's "
            f"parameter tasks is {', '.join(values['tasks'])}. Add 'tasks={json.dumps(learnt)}'."
        )


def check_shard(config: Config) -> None:
    """Refuse a shard that an override chooses."""
    if config["prepare"]["shard"]:
        raise ConfigError(
            f"prepare.shard is {config['prepare']['shard']!r}, but the pipeline prepares the shards that its parameter "
            'shards names, as in \'shards=["1/2", "2/2"]\'. Leave prepare.shard out.'
        )


def mounted_above(path: str) -> list[str]:
    """The volumes of this machine that a path is on: what they hold outlives a pod. Folders of the image do not count."""
    place = Path(path)
    if not place.is_absolute() or (len(place.parts) > 1 and place.parts[1] in RESERVED):
        return []
    return [str(folder) for folder in (place, *place.parents[:-1]) if folder.is_mount()]


def check_folders(values: Mapping[str, Any]) -> None:
    """Refuse paths that no step could use as a folder."""
    for name in _PLACES:
        if values.get(name):
            if not values[name].isprintable() or values[name] != values[name].strip():
                raise ConfigError(
                    f"{name} is {values[name]!r}: expected a folder without blanks around it and without signs that cannot "
                    "be seen."
                )
            place = _parsed(name, values[name])
            if isinstance(place, Path) and os.path.exists(place) and not os.path.isdir(place):  # Path.exists may raise
                raise ConfigError(f"{name} is {values[name]!r}, which is no folder here.")


def _parsed(name: str, path: str) -> Path | Place:
    try:
        return parse_path(path)
    except StorageError as error:
        raise ConfigError(f"{name}: {error}") from error


def _check_place(name: str, path: str, mounted: Sequence[str]) -> None:
    place = _parsed(name, path)
    if isinstance(place, Path):
        if not place.is_absolute():
            raise ConfigError(
                f"{name} is {path!r}, which is on a pod's own disk and gone with it: expected gs://bucket/name."
            )
        if not any(place.is_relative_to(folder) for folder in mounted):
            warn(f"{name} is {path!r}: without a volume there, it is gone with the pod. Safe is gs://bucket/name.")


def _main_measure(config: Config) -> list[str]:
    """The first measure of the first task, which decides by default, if the config names it."""
    main = next(iter(datasets_of(config).values()))
    return [f"{main['name']}/{measure}" for measure in (measures_of(main) or ())[:1]]


def _check_promotion(config: Config, measures: Sequence[str]) -> None:
    """Refuse measures by which no head will be judged, as far as the configs name their tasks' measures."""
    datasets = list(datasets_of(config).values())
    judged = [each for each in datasets if judged_sets(each)]
    if not measures and "test" not in judged_sets(datasets[0]):
        warn(
            f"{datasets[0]['name']}, the first task, has no test split, so a first model of this registry would not be "
            "promoted. Name what decides in the parameter measures, as in 'measures=[\"msm_bm25/MSE\"]'."
        )
    keys = [
        f"{head_name(each['name'], split)}/{measure}"
        for each in judged
        for split in judged_sets(each)
        for measure in measures_of(each) or ()
    ]
    for measure in measures:
        if measure not in keys and None not in map(measures_of, judged):
            raise ConfigError(
                f"measures has {measure!r}, by which no head is judged.{nearest(measure, keys)} Expected some of "
                f"{', '.join(keys)}."
            )
