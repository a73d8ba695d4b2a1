"""How many pods of a loop run at once."""

from typing import Annotated

import typer
from kfp.dsl.base_component import BaseComponent

LOOPS = ("try-each", "judge-each")  # whose pods may have GPUs

Parallelism = Annotated[
    int | None,
    typer.Option(min=1, help="Runs of a study that train, or heads that are judged, at once; default: all."),
]


def set_parallelism(pipeline: BaseComponent, limit: int | None) -> None:
    """Let `limit` iterations of each loop whose pods may have GPUs run at once; None for all.

    For Kubeflow Pipelines this cannot be a parameter of the pipeline.
    """
    for component in [pipeline.pipeline_spec.root, *pipeline.pipeline_spec.components.values()]:
        for task in component.dag.tasks.values():
            if task.task_info.name in LOOPS:
                task.ClearField("iterator_policy")
                if limit:
                    task.iterator_policy.parallelism_limit = limit
