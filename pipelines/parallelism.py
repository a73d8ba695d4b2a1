"""How many pods of a loop go at once."""

from typing import Annotated

import typer
from kfp.dsl.base_component import BaseComponent

LOOPS = ("try-each", "judge-each")  # whose pods may have GPUs

Parallelism = Annotated[
    int | None,
    typer.Option(min=1, help="Runs of a study that train, or heads that are judged, at once; default: all."),
]


def set_parallelism(pipeline: BaseComponent, limit: int | None) -> None:
    """Let so many iterations of each loop that may ask for GPUs go at once; None for all.

    Kubeflow Pipelines takes no parameter there.
    """
    for component in [pipeline.pipeline_spec.root, *pipeline.pipeline_spec.components.values()]:
        for task in component.dag.tasks.values():
            if task.task_info.name in LOOPS:
                task.ClearField("iterator_policy")
                if limit:
                    task.iterator_policy.parallelism_limit = limit
