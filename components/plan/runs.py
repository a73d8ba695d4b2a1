"""The runs of a study as texts, which a loop of a pipeline hands to its steps one by one, with all that makes them."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, List

from components.train.settings import number_of_gpus, train_settings
from mtlrank.composing.compose import Config, pipeline_config
from mtlrank.errors import ConfigError

if TYPE_CHECKING:
    from mtlrank.study import Run, Vary


def plan_runs(config: Config, settings: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Every run of a study, with the settings and overrides that all have in common.

    Raises `ConfigError` for a study that cannot be, or not in a pipeline.
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

    told = json.loads(text)

    def vary(changes: Mapping[str, Any]) -> Config:
        return pipeline_config({**told["settings"], **changes}, told["overrides"], name="study")

    return Run(tuple(told["tasks"]), told["seed"]), vary


def study_settings(
    tasks: List[str], seeds: List[int], mixtures: List[List[str]], heads: List[str], measures: List[str], margin: float
) -> dict[str, Any]:
    """What is compared, by config key. What is empty is left to the config."""
    return {
        "tasks": tasks,
        "study.seeds": [int(seed) if seed == int(seed) else seed for seed in seeds],  # a server sends them as 1.0
        "study.mixtures": mixtures or None,
        "study.heads": heads or None,
        "study.measures": measures or None,
        "study.margin": margin,
    }


def run_settings(
    experiment: str,
    body: str,
    batch_size: int,
    learning_rate: float,
    epochs: int,
    sampler: str,
    loss: str,
    precision: str,
    gpus: str,
) -> dict[str, Any]:
    """What all runs have in common, by config key. None leaves a setting to the experiment."""
    number = number_of_gpus(gpus)
    if number > 1:
        raise ConfigError(f"gpus is {gpus}: expected 0 or 1, as each run of a study has a pod with one device.")
    settings = train_settings(
        [], experiment, body, batch_size, learning_rate, epochs, sampler, loss, 0, precision, number
    )
    return {key: value for key, value in settings.items() if key not in ("tasks", "seed", "test")}
