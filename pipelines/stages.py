"""Stages that pipelines share: preparing one dataset, and judging, reporting and promoting a model."""

from typing import Any, Dict, List

from kfp import dsl

from components.evaluate.component import evaluate
from components.merge.component import merge
from components.prepare.component import prepare
from components.promote.component import promote
from components.report.component import report
from pipelines.placement import place, place_on_gpus


@dsl.pipeline(name="preparing")
def preparing(
    task: str, shards: List[str], experiment: str, body: str, overrides: List[str], prepared: str
) -> dsl.Dataset:
    """Prepare the shards of one dataset, then merge them; a pipeline of its own, as loops do not nest otherwise."""
    with dsl.ParallelFor(shards, name="prepare-shards") as shard:
        shared = prepare(
            task=task, shard=shard, experiment=experiment, body=body, overrides=overrides, prepared=prepared
        )
        place(shared, cpu="2", memory="16Gi", hours=24)
    parts = dsl.Collected(shared.outputs["part"])
    merged = merge(task=task, parts=parts, experiment=experiment, body=body, overrides=overrides, prepared=prepared)
    return place(merged, cpu="1", memory="8Gi", hours=24).outputs["dataset"]


def prepare_after(first, tasks, shards, experiment, body, overrides, prepared):
    """Prepare each dataset once the first step of a pipeline, which checks, has ended well; called while it is traced."""
    with dsl.ParallelFor(tasks, name="prepare-each") as task:
        dataset = preparing(
            task=task, shards=shards, experiment=experiment, body=body, overrides=overrides, prepared=prepared
        )
        dataset.after(first)
    return dataset


@dsl.pipeline(name="judging-one")
def judging_one(
    datasets: dsl.Input[List[dsl.Dataset]],
    model: dsl.Input[dsl.Model],
    task: str,
    judging_gpus: str,
    gpu_type: str,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
) -> dsl.Artifact:
    """Judge one head; a pipeline of its own, as kfp forgets a loop's resources that are parameters."""
    judged = evaluate(datasets=datasets, model=model, task=task)
    place(judged, cpu="2", memory="16Gi", hours=24)
    return place_on_gpus(judged, gpu_type, judging_gpus, node_selector, tolerations).outputs["result"]


@dsl.pipeline(name="judging")
def judging(
    datasets: dsl.Input[List[dsl.Dataset]],
    model: dsl.Input[dsl.Model],
    tasks: List[str],
    registry: str,
    measures: List[str],
    margin: float,
    judging_gpus: str,
    gpu_type: str,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
):
    """Judge each head, compare them in a report, and promote the model if it is not worse.

    A pipeline of its own because kfp cannot hand what one loop collects to a task inside another loop.
    """
    with dsl.ParallelFor(tasks, name="judge-each") as task:
        judged = judging_one(
            datasets=datasets,
            model=model,
            task=task,
            judging_gpus=judging_gpus,
            gpu_type=gpu_type,
            node_selector=node_selector,
            tolerations=tolerations,
        )
    reported = report(results=dsl.Collected(judged.output), model=model)
    place(reported, cpu="1", memory="4Gi", hours=2)
    promoted = promote(
        datasets=datasets,
        results=dsl.Collected(judged.output),
        model=model,
        registry=registry,
        measures=measures,
        margin=margin,
    )
    place(promoted, cpu="2", memory="16Gi", hours=24)
    promoted.set_caching_options(False)  # another model may be in use by now
