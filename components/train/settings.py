"""What a pipeline's parameters mean in the words of the config, for one node and for several."""

import re
from typing import Any, List

from mtlrank.errors import ConfigError


def number_of_gpus(text: str, name: str = "gpus") -> int:
    """A number of GPUs that is a text, because the pipeline's placement on nodes needs it so."""
    if not re.fullmatch("[0-9]+", text):
        raise ConfigError(f"{name} is {text!r}, expected a whole number, at least 0.")
    return int(text)


def train_settings(
    tasks: List[str],
    experiment: str,
    body: str,
    batch_size: int,
    learning_rate: float,
    epochs: int,
    sampler: str,
    loss: str,
    seed: int,
    precision: str,
    gpus: int,
) -> dict[str, Any]:
    """Settings by config key, for `mtlrank.composing.compose.pipeline_config`. None leaves a setting to the experiment.

    With `gpus`, training fails rather than run on the CPU.
    """
    return {
        "experiment": experiment,
        "tasks": tasks,
        "model/body": body or None,
        "training.batch_size": batch_size or None,
        "loop.optimizer.lr": learning_rate or None,
        "training.epochs": epochs or None,
        "datamodule/sampler@datamodule.train_sampler": sampler or None,
        "loop/loss": loss or None,
        "seed": seed,
        "trainer.precision": precision or None,
        "trainer.accelerator": "gpu" if gpus else None,
        "test": False,
    }
