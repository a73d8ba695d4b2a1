"""Train and judge one run of a study."""

from typing import List

from kfp import dsl

from components.base import step


@step
def trial(
    datasets: dsl.Input[List[dsl.Dataset]],
    run: str,
    experiment: str,
    body: str,
    batch_size: int,
    learning_rate: float,
    epochs: int,
    sampler: str,
    loss: str,
    precision: str,
    checkpoints: str,
    overrides: List[str],
    gpus: str,
    model: dsl.Output[dsl.Model],
    result: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """Train one mixture of tasks with one seed and judge its heads, as `mtlrank train` does.

    A step that was killed and is retried continues from the last checkpoint, if `checkpoints` names a folder that
    outlives the pod. `result` is what is compared: the run without its model, in its place in the study's folder.
    """
    import shutil
    from pathlib import Path

    from components.plan.runs import read_run, run_settings
    from mtlrank import study, train
    from mtlrank.compose import pipeline_config
    from mtlrank.prepare import folders_by_key

    settings = run_settings(experiment, body, batch_size, learning_rate, epochs, sampler, loss, precision, gpus)
    trained = read_run(run)
    vary = lambda changes: pipeline_config({**settings, **changes}, overrides, name="study")  # noqa: E731
    config = {**study.config_of(trained, vary, Path(model.path)), "output_dir": model.path}
    folders = folders_by_key([dataset.path for dataset in datasets])
    values = train.run_step(config, checkpoints, {task: folders[task] for task in trained.mixture})
    left_out = {"model", "logs", "tensorboard", ".lock"}  # here, and not below: a head may be called so
    without = lambda folder, names: left_out.intersection(names) if folder == model.path else set()  # noqa: E731
    shutil.copytree(model.path, Path(result.path) / trained.place, ignore=without)
    for key, value in values.items():
        metrics.log_metric(key, value)
