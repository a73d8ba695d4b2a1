"""A pipeline's parameters as settings of the config."""

import re
from collections.abc import Mapping
from typing import Any

from mtlrank.errors import ConfigError

# Config key by parameter.
_KEYS = {
    "body": "model/body",
    "batch_size": "training.batch_size",
    "learning_rate": "loop.optimizer.lr",
    "epochs": "training.epochs",
    "sampler": "datamodule/sampler@datamodule.train_sampler",
    "loss": "loop/loss",
    "precision": "trainer.precision",
}


def number_of_gpus(text: str, name: str = "gpus") -> int:
    """A number of GPUs, which is a text because `pipelines.placement` needs one."""
    if not re.fullmatch("[0-9]+", text):
        raise ConfigError(f"{name} is {text!r}, expected a whole number, at least 0.")
    return int(text)


def train_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training run by config key, from a pipeline's parameters, for `pipeline_config`.

    None leaves a setting to the experiment. The number of processes is never left to it: pods have what parameters say.
    """
    processes = {
        "trainer.devices": max(1, number_of_gpus(values["gpus"])),
        "trainer.num_nodes": values.get("num_nodes", 1),
    }
    return {**shared_settings(values), **processes, "tasks": values["tasks"], "seed": values["seed"], "test": False}


def shared_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that all runs of a study share. With `gpus`, training fails rather than run on the CPU."""
    settings = {key: values[name] or None for name, key in _KEYS.items()}
    accelerator = "gpu" if number_of_gpus(values["gpus"]) else None
    return {"experiment": values["experiment"], **settings, "trainer.accelerator": accelerator}
