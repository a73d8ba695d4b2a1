"""The runs of a study as JSON texts, which a loop of a pipeline hands to its steps, with all their settings."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.check.parameters import check_folders, check_lists, check_pods, check_shard, check_tasks
from components.train.settings import number_of_gpus, shared_settings
from mtlrank.checks import is_number
from mtlrank.composing.compose import pipeline_config
from mtlrank.config import Config
from mtlrank.errors import ConfigError

if TYPE_CHECKING:
    from mtlrank.study import Run, Vary


def check_study(values: Mapping[str, Any], are_tasks_given: bool = True) -> tuple[Config, list[str]]:
    """The config of a study and its runs, from all parameters of the pipeline.

    Raises `ConfigError` for what `plan_runs`, or the step of a run, would refuse. If the tasks were not given, their
    default must be the experiment's tasks.
    """
    check_lists(values)
    if not all(is_number(seed) for seed in values["seeds"]):
        raise ConfigError(f"seeds is {json.dumps(values['seeds'])}: expected a list of whole numbers, as in [1, 2, 3].")
    check_pods(values)
    check_folders(values)
    shared, overrides = run_settings(values), values["overrides"]
    settings = {**shared, **study_settings(values)}
    # Each run sets these two, so overrides must not.
    pipeline_config({**settings, "seed": 0, "output_dir": "of the step"}, overrides, name="study")
    if not are_tasks_given:
        check_tasks(pipeline_config({**settings, "tasks": None}, overrides, name="study"), values)
    config = pipeline_config(settings, overrides, name="study")
    check_shard(config)
    return config, plan_runs(config, shared, overrides)


def plan_runs(config: Config, settings: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Every run of a study, with the settings and overrides that all have in common.

    Raises `ConfigError` for a study that cannot run, or not in a pipeline.
    """
    from mtlrank import study  # here, as other pipelines that are started should not wait for torch

    if config["study"]["shard"]:
        raise ConfigError(
            f"study.shard is {config['study']['shard']!r}, but each run has a step of its own: leave it out."
        )
    runs = study.plan(config)
    if any(run.fold is not None for run in runs):
        raise ConfigError(
            "The study is cross-validated, but the pipeline prepares each dataset once, not for each fold: run `mtlrank "
            "study`, with study.shard on several machines."
        )
    same = {"settings": {key: value for key, value in settings.items() if value is not None}, "overrides": overrides}
    return [json.dumps({"tasks": run.mixture, "seed": run.seed, **same}) for run in runs]


def read_run(text: str) -> tuple["Run", "Vary"]:
    """The run that a text names, and the function that gives its study's config with some keys changed."""
    from mtlrank.study import Run

    decoded = json.loads(text)

    def vary(changes: Mapping[str, Any]) -> Config:
        return pipeline_config({**decoded["settings"], **changes}, decoded["overrides"], name="study")

    return Run(tuple(decoded["tasks"]), decoded["seed"]), vary


def study_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a study compares, by config key, from a pipeline's parameters. Empty ones are left to the config."""
    return {
        "tasks": values["tasks"],
        "study.seeds": [int(seed) if seed == int(seed) else seed for seed in values["seeds"]],  # a server sends 1.0
        "study.mixtures": values["mixtures"] or None,
        "study.heads": values["heads"] or None,
        "study.measures": values["measures"] or None,
        "study.margin": values["margin"],
    }


def run_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """`shared_settings`, if each run needs no more than the one device of its pod."""
    if number_of_gpus(values["gpus"]) > 1:
        raise ConfigError(
            f"gpus is {values['gpus']}: expected 0 or 1, as each run of a study has a pod with one device."
        )
    return shared_settings(values)
