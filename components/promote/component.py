"""Promote the model."""

from typing import List

from kfp import dsl

from components.base import step


@step
def promote(
    datasets: dsl.Input[List[dsl.Dataset]],
    results: dsl.Input[List[dsl.Artifact]],
    model: dsl.Input[dsl.Model],
    registry: str,
    measures: List[str],
    margin: float,
    decision: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
):
    """Publish the model in the registry, and promote it if it is not worse than the model in use."""
    from pathlib import Path

    from mtlrank import promote
    from mtlrank.evaluation.judged_head import head_folders
    from mtlrank.prepare import folders_by_key
    from mtlrank.registry import Registry
    from mtlrank.registry.decision import Decision, markdown

    if registry:
        made = promote.run(
            Path(model.path) / "model",
            head_folders([Path(result.path) for result in results]),
            Registry(registry),
            measures,
            margin,
            folders_by_key([dataset.path for dataset in datasets]),
            trained_in=model.uri,
        )
        decision.metadata.update({"model": made.model, "registry": registry})
    else:
        made = Decision(False, "the pipeline's parameter `registry` is empty")
    Path(decision.path).write_text(markdown(made, registry), "utf-8")
    metrics.log_metric("promoted", int(made.promoted))
    for row in made.comparisons:
        metrics.log_metric(f"{row.head}/{row.measure} difference", row.difference)
