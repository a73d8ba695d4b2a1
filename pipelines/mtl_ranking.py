"""Wiring: prepare each dataset in shards, train on all of them, judge each head, report, promote."""

from typing import Any, Dict, List

from kfp import dsl

from components.evaluate.component import evaluate
from components.merge.component import merge
from components.prepare.component import prepare
from components.promote.component import promote
from components.report.component import report
from components.train.component import train
from pipelines.placement import place, place_on_gpus


@dsl.pipeline(name="preparing")
def preparing(task: str, shards: List[str], experiment: str, body: str, overrides: List[str]) -> dsl.Dataset:
    """Prepare the shards of one dataset, then merge them; a pipeline of its own, as loops do not nest otherwise."""
    with dsl.ParallelFor(shards, name="prepare-shards") as shard:
        prepared = prepare(task=task, shard=shard, experiment=experiment, body=body, overrides=overrides)
        place(prepared, cpu="2", memory="16Gi", hours=24)
    parts = dsl.Collected(prepared.outputs["part"])
    merged = merge(task=task, parts=parts, experiment=experiment, body=body, overrides=overrides)
    return place(merged, cpu="1", memory="8Gi", hours=24).outputs["dataset"]


@dsl.pipeline(name="judging-one")
def judging_one(
    datasets: dsl.Input[List[dsl.Dataset]],
    model: dsl.Input[dsl.Model],
    task: str,
    gpu_type: str,
    gpus: int,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
) -> dsl.Artifact:
    """Judge one head; a pipeline of its own, as kfp forgets a loop's resources that are parameters."""
    judged = evaluate(datasets=datasets, model=model, task=task)
    place(judged, cpu="2", memory="16Gi", hours=24)
    return place_on_gpus(judged, gpu_type, gpus, node_selector, tolerations).outputs["result"]


@dsl.pipeline(name="judging")
def judging(
    datasets: dsl.Input[List[dsl.Dataset]],
    model: dsl.Input[dsl.Model],
    tasks: List[str],
    registry: str,
    measures: List[str],
    margin: float,
    gpu_type: str,
    gpus: int,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
):
    """Judge each head, put them side by side, and put the model in use if it is not worse.

    A pipeline of its own because kfp cannot hand what one loop collects to a task inside another loop.
    """
    with dsl.ParallelFor(tasks, name="judge-each") as task:
        judged = judging_one(
            datasets=datasets,
            model=model,
            task=task,
            gpu_type=gpu_type,
            gpus=gpus,
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
    promoted.set_caching_options(False)  # what is in use may have changed


@dsl.pipeline(name="mtl-ranking", description="Train one transformer body with one head per dataset and judge each.")
def mtl_ranking(
    tasks: List[str] = ["trec2019", "msm_bm25", "msm_sem_sim", "msm_ner", "msm_coref"],
    experiment: str = "embedded",
    body: str = "",
    batch_size: int = 0,
    learning_rate: float = 0.0,
    epochs: int = 0,
    sampler: str = "random_proportional",
    loss: str = "example_mean",
    seed: int = 42,
    precision: str = "32-true",
    shards: List[str] = ["1/1"],
    overrides: List[str] = [],
    checkpoints: str = "",
    registry: str = "",
    measures: List[str] = [],
    margin: float = 0.02,
    gpus: int = 0,
    gpu_type: str = "nvidia.com/gpu",
    cpu: str = "2",
    memory: str = "16Gi",
    node_selector: Dict[str, str] = {},
    tolerations: List[Dict[str, Any]] = [],
):
    """Train one transformer body with one head per dataset, judge each, and put the model in use if it is not worse.

    Args:
        tasks: What is learnt - keys of the datasets to learn together; the first one's first measure chooses the best
            checkpoint.
        experiment: What is learnt - name of a config in experiment/, such as embedded, trec2019, vaswani or msmarco.
        body: What is learnt - name of a config in model/body, such as tiny or bert_base_uncased. Empty - the experiment's.
        batch_size: How - samples in a batch, of all tasks together. 0 - the experiment's.
        learning_rate: How - peak learning rate, reached after warm-up. 0 - the experiment's.
        epochs: How - epochs of the sampler. 0 - the experiment's.
        sampler: How - name of a config in datamodule/sampler, such as random_proportional, round_robin or temperature.
        loss: How - name of a config in loop/loss, such as example_mean, task_mean or uncertainty.
        seed: How - seed of every random choice.
        precision: How - Lightning's name of the arithmetic, 32-true, or bf16-mixed on a GPU.
        shards: How - the shares that each dataset is prepared in, side by side, such as ["1/3", "2/3", "3/3"].
        overrides: How - further settings in the command line's words, such as ["debug=limit"]. They may choose among what
            the image holds, not name code.
        checkpoints: Kept - a folder that outlives pods, such as gs://bucket/checkpoints. Training that was killed goes on
            from there. Empty - it starts again.
        registry: Kept - the folder of models in use, such as gs://bucket/registry. Empty - nothing is promoted.
        measures: Promotion - what decides, such as ["trec2019/nDCG@10"]. Empty - the first measure of the first task.
        margin: Promotion - the new model may be worse by this much, in the measures' own unit.
        gpus: Machine - GPUs of the training and of each judging step. 0 - none.
        gpu_type: Machine - the resource that a GPU is, such as nvidia.com/gpu.
        cpu: Machine - cores that training asks for.
        memory: Machine - memory that training may use, such as 64Gi.
        node_selector: Machine - labels of the nodes for training and judging, such as
            {"cloud.google.com/gke-accelerator": "nvidia-l4"}.
        tolerations: Machine - taints that training and judging bear, such as
            [{"key": "cloud.google.com/gke-spot", "operator": "Exists"}].

    """
    with dsl.ParallelFor(tasks, name="prepare-each") as task:
        prepared = preparing(task=task, shards=shards, experiment=experiment, body=body, overrides=overrides)
    trained = train(
        datasets=dsl.Collected(prepared.output),
        tasks=tasks,
        experiment=experiment,
        body=body,
        batch_size=batch_size,
        learning_rate=learning_rate,
        epochs=epochs,
        sampler=sampler,
        loss=loss,
        seed=seed,
        precision=precision,
        checkpoints=checkpoints,
        overrides=overrides,
    )
    trained.set_caching_options(False)  # a rerun trains again, or goes on, instead of showing an old result
    place(trained, cpu=cpu, memory=memory, hours=24 * 7, retries=5)
    place_on_gpus(trained, gpu_type, gpus, node_selector, tolerations)
    judging(
        datasets=dsl.Collected(prepared.output),  # a fresh one: kfp changes a Collected when it is used
        model=trained.outputs["model"],
        tasks=tasks,
        registry=registry,
        measures=measures,
        margin=margin,
        gpu_type=gpu_type,
        gpus=gpus,
        node_selector=node_selector,
        tolerations=tolerations,
    )
