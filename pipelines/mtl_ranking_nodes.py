"""Wiring: check, prepare each dataset in shards, train on all of them on several nodes, judge each, report, promote."""

from typing import Any, Dict, List

from kfp import dsl

from components.base import IMAGE
from components.check.component import check
from components.launch.component import launch
from pipelines.described import other_parameters_as_in
from pipelines.mtl_ranking import mtl_ranking
from pipelines.placement import place
from pipelines.stages import judging, prepare_after


@dsl.pipeline(name="mtl-ranking-nodes", description="The same as mtl-ranking, with training on several nodes.")
@other_parameters_as_in(mtl_ranking)
def mtl_ranking_nodes(  # noqa: D417 - the others are in mtl_ranking
    tasks: List[str] = ["trec2019", "msm_bm25", "msm_sem_sim", "msm_ner", "msm_coref"],
    experiment: str = "embedded",
    body: str = "",
    batch_size: int = 0,
    learning_rate: float = 0.0,
    epochs: int = 0,
    sampler: str = "",
    loss: str = "",
    seed: int = 42,
    precision: str = "",
    shards: List[str] = ["1/1"],
    overrides: List[str] = [],
    prepared: str = "",
    checkpoints: str = "",
    registry: str = "",
    measures: List[str] = [],
    margin: float = 0.02,
    gpus: str = "1",
    judging_gpus: str = "0",
    gpu_type: str = "nvidia.com/gpu",
    cpu: str = "8",
    memory: str = "64Gi",
    num_nodes: int = 2,
    service_account: str = "",
    runtime: str = "torch-distributed",
    deadline_hours: int = 168,
    node_selector: Dict[str, str] = {},
    tolerations: List[Dict[str, Any]] = [],
):
    """Train on several nodes by a TrainJob of Kubeflow Trainer, judge each head, and promote the model if it is not worse.

    A pipeline of its own beside mtl-ranking: kfp's local runner knows no choice between two steps that make one artifact,
    and its compiler loses resources inside one.

    Parameters that are not described here mean what they mean in `mtl_ranking`.

    Args:
        checkpoints: Storage - a folder that all nodes can access, such as gs://bucket/checkpoints. Training that was
            killed continues from there.
        gpus: Machine - GPUs of each node, with one process each. 0 - none.
        cpu: Machine - cores of each node.
        memory: Machine - memory of each node, such as 64Gi.
        num_nodes: Machine - nodes that train together.
        service_account: Machine - the account of the nodes, which writes to the bucket. Empty - the namespace's own.
        runtime: Machine - a ClusterTrainingRuntime of the cluster, such as torch-distributed.
        deadline_hours: Machine - hours after which training is stopped.

    """
    checked = check(**locals(), on_nodes=True)  # all parameters
    place(checked, cpu="1", memory="1Gi", hours=1)
    checked.set_caching_options(False)  # the cache does not know what the image's environment says
    dataset = prepare_after(checked, tasks, shards, experiment, body, overrides, prepared)
    trained = launch(
        datasets=dsl.Collected(dataset.output),
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
        run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        image=IMAGE,
        num_nodes=num_nodes,
        gpus=gpus,
        gpu_type=gpu_type,
        cpu=cpu,
        memory=memory,
        node_selector=node_selector,
        tolerations=tolerations,
        service_account=service_account,
        runtime=runtime,
        deadline_hours=deadline_hours,
    )
    trained.set_caching_options(False)  # a rerun trains again, or continues, instead of showing an old result
    place(trained, cpu="1", memory="4Gi", hours=24 * 30, retries=5)  # it waits; the job has a deadline of its own
    judging(
        datasets=dsl.Collected(dataset.output),  # a fresh one: kfp changes a Collected when it is used
        model=trained.outputs["model"],
        tasks=tasks,
        registry=registry,
        measures=measures,
        margin=margin,
        judging_gpus=judging_gpus,
        gpu_type=gpu_type,
        node_selector=node_selector,
        tolerations=tolerations,
    )
