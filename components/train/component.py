"""Train the model."""

from typing import List

from kfp import dsl

from components.base import step


@step
def train(
    datasets: dsl.Input[List[dsl.Dataset]],
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
    checkpoints: str,
    overrides: List[str],
    gpus: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Train one body with one head per dataset and keep the best checkpoint.

    A step that was killed and is retried continues from the last checkpoint, if `checkpoints` names a folder that
    outlives the pod. With `gpus`, it fails rather than train on the CPU.
    """
    parameters = dict(locals())

    from pathlib import Path

    from components.train.order import Order
    from components.train.processes import train_in_processes
    from components.train.settings import number_of_gpus, train_settings
    from mtlrank import train
    from mtlrank.composing.compose import pipeline_config
    from mtlrank.prepare import folders_by_key

    processes = number_of_gpus(gpus)
    settings = train_settings(parameters)
    if processes > 1:
        order = Order(settings, overrides, [dataset.path for dataset in datasets], model.path, checkpoints)
        values = train_in_processes(order, processes)
    else:
        folders = folders_by_key([dataset.path for dataset in datasets])
        config = pipeline_config({**settings, "output_dir": model.path}, overrides)
        values = train.run_step(config, checkpoints, folders)
    for key, value in values.items():
        metrics.log_metric(key, value)
    model.metadata.update(train.summary(Path(model.path), values))
