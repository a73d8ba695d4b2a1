"""Train and judge one run of a study."""

from typing import List

from kfp import dsl

from components.base import step


@step
def trial(
    datasets: dsl.Input[List[dsl.Dataset]],
    run: str,
    checkpoints: str,
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

    from components.plan.runs import read_run
    from mtlrank import study, train
    from mtlrank.prepare import folders_by_key

    trained, vary = read_run(run)
    config = {**study.config_of(trained, vary, Path(model.path)), "output_dir": model.path}
    folders = folders_by_key([dataset.path for dataset in datasets])
    values = train.run_step(config, checkpoints, {task: folders[task] for task in trained.mixture})

    def left_out(folder, names):
        """Leave these out of the run's own folder only: further down, a head may have such a name."""
        return {"model", "logs", "tensorboard", ".lock"}.intersection(names) if folder == model.path else set()

    shutil.copytree(model.path, Path(result.path) / trained.place, ignore=left_out)
    for key, value in values.items():
        metrics.log_metric(key, value)
