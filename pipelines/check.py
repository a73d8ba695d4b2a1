"""Mistakes in a run's parameters, reported before any step starts."""

import json
import sys
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from hydra.errors import MissingConfigException
from kfp.dsl.structures import InputSpec

from components.train.settings import train_settings
from mtlrank.checks import nearest
from mtlrank.compose import Config, pipeline_config, select_tasks
from mtlrank.errors import ConfigError
from mtlrank.evaluation.judged import head_name


def check(parameters: Mapping[str, Any], declared: Mapping[str, InputSpec]) -> None:
    """Raise `ConfigError` for mistakes that the parameters and the configs on this machine show."""
    values = {name: spec.default for name, spec in declared.items()} | dict(parameters)
    _check_lists(values["tasks"], values["shards"])
    settings = train_settings(**{name: values[name] for name in signature(train_settings).parameters})
    if "tasks" not in parameters:
        _check_tasks(pipeline_config({**settings, "tasks": None}, values["overrides"]), values)
    config = select_tasks(pipeline_config(settings, values["overrides"]))
    if config["prepare"]["shard"]:
        raise ConfigError(
            f"prepare.shard is {config['prepare']['shard']!r}, but the pipeline prepares the shards that its parameter "
            'shards names, as in \'shards=["1/2", "2/2"]\'. Leave prepare.shard out.'
        )
    _check_monitor(config)
    if values["registry"]:
        _check_promotion(config, values["measures"])
    if all(each.get("test", "") is None for each in config["datamodule"]["dataset"]["datasets"].values()):
        raise ConfigError("No dataset has a test split, so no head would be judged: give one a `test`.")


def check_for_image(parameters: Mapping[str, Any], declared: Mapping[str, InputSpec]) -> None:
    """The same where steps run on an image, which may hold configs and variables that are not here: then only say so."""
    try:
        check(parameters, declared)
    except ConfigError as error:
        cause = error.__cause__
        if not (isinstance(cause, MissingConfigException) or "Environment variable" in str(cause)):
            raise
        print(f"cannot be checked before the run: {error} The image may have it.", file=sys.stderr)


def _check_lists(tasks: Sequence[str], shards: Sequence[str]) -> None:
    """Each element of these gets steps of its own, whatever the configs say."""
    if len(set(tasks)) < len(tasks):
        raise ConfigError(f"tasks is {json.dumps(tasks)}: expected each task once.")
    if sorted(shards) != sorted(f"{number}/{len(shards)}" for number in range(1, len(shards) + 1)):
        raise ConfigError(
            f'shards is {json.dumps(shards)}: expected all shards of one number, each once, as in ["1/3", "2/3", "3/3"].'
        )


def _check_tasks(config: Config, values: Mapping[str, Any]) -> None:
    """Steps are made by the parameter `tasks` alone, so its default must be what the config would learn."""
    learnt = list(select_tasks(config)["model"]["heads"])
    if learnt != values["tasks"]:
        raise ConfigError(
            f"experiment={values['experiment']} has the tasks {', '.join(learnt)}, but the default of the pipeline's "
            f"parameter tasks is {', '.join(values['tasks'])}. Add 'tasks={json.dumps(learnt)}'."
        )


def _check_monitor(config: Config) -> None:
    """`mtlrank.build.monitored` without the data, as far as the configs name their tasks' measures."""
    monitor, datasets = config["training"]["monitor"], config["datamodule"]["dataset"]["datasets"].values()
    keys = [f"val/{each['name']}/{measure}" for each in datasets for measure in each["task"].get("measures", [])]
    if monitor and monitor not in keys and all("measures" in each["task"] for each in datasets):
        raise ConfigError(
            f"training.monitor is {monitor!r}.{nearest(monitor, keys)} Expected one of {', '.join(keys)}."
        )


def _check_promotion(config: Config, measures: Sequence[str]) -> None:
    """Whether heads will be judged by what decides on promotion, as far as the configs name their tasks' measures."""
    datasets = list(config["datamodule"]["dataset"]["datasets"].values())
    judged = [each for each in datasets if each.get("test", "") is not None]
    if not measures and datasets[0] not in judged:
        raise ConfigError(
            f"{datasets[0]['name']}, the first task, has no test split, so its first measure cannot decide on promotion. "
            "Name others in the parameter measures, as in 'measures=[\"msm_bm25/MSE\"]'."
        )
    keys = [
        f"{head_name(each['name'], split)}/{measure}"
        for each in judged
        for split in ("test", *(f"test@{name}" for name in each.get("more_tests") or ()))
        for measure in each["task"].get("measures", [])
    ]
    for measure in measures:
        if measure not in keys and all("measures" in each["task"] for each in judged):
            raise ConfigError(
                f"measures has {measure!r}, by which no head is judged.{nearest(measure, keys)} Expected some of "
                f"{', '.join(keys)}."
            )
