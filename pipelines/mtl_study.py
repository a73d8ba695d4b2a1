"""Wiring: plan, prepare each dataset in shards, train every mixture of tasks with every seed in a pod each, compare."""

from typing import Any, Dict, List

from kfp import dsl

from components.launch.trainjob import TRAINING_KEYS
from components.plan.component import plan
from components.transfer.component import transfer
from components.trial.component import trial
from pipelines.described import other_parameters_as_in
from pipelines.mtl_ranking import mtl_ranking
from pipelines.placement import place, place_on_gpus
from pipelines.stages import prepare_after


@dsl.pipeline(name="trying-one")
def trying_one(
    datasets: dsl.Input[List[dsl.Dataset]],
    run: str,
    checkpoints: str,
    gpus: str,
    gpu_type: str,
    cpu: str,
    memory: str,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
) -> dsl.Artifact:
    """Train and judge one run; a pipeline of its own, as kfp forgets a loop's resources that are parameters."""
    tried = trial(datasets=datasets, run=run, checkpoints=checkpoints)
    place(tried, cpu=cpu, memory=memory, hours=24 * 7, retries=5, secrets=TRAINING_KEYS)
    return place_on_gpus(tried, gpu_type, gpus, node_selector, tolerations).outputs["result"]


@dsl.pipeline(name="trying")
def trying(
    datasets: dsl.Input[List[dsl.Dataset]],
    runs: List[str],
    config: dsl.Input[dsl.Artifact],
    checkpoints: str,
    gpus: str,
    gpu_type: str,
    cpu: str,
    memory: str,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
):
    """Train and judge all runs, then compare them.

    A pipeline of its own because kfp cannot hand what one loop collects to a task inside another loop.
    """
    with dsl.ParallelFor(runs, name="try-each") as run:
        tried = trying_one(
            datasets=datasets,
            run=run,
            checkpoints=checkpoints,
            gpus=gpus,
            gpu_type=gpu_type,
            cpu=cpu,
            memory=memory,
            node_selector=node_selector,
            tolerations=tolerations,
        )
    compared = transfer(results=dsl.Collected(tried.output), config=config)
    place(compared, cpu="1", memory="8Gi", hours=2)


@dsl.pipeline(name="mtl-study", description="Train mixtures of tasks and single tasks with several seeds and compare.")
@other_parameters_as_in(mtl_ranking)
def mtl_study(  # noqa: D417 - the others are in mtl_ranking
    tasks: List[str] = ["trec2019", "msm_bm25", "msm_sem_sim", "msm_ner", "msm_coref"],
    seeds: List[int] = [1, 2, 3],
    mixtures: List[List[str]] = [],
    heads: List[str] = [],
    experiment: str = "embedded",
    body: str = "",
    batch_size: int = 0,
    learning_rate: float = 0.0,
    epochs: int = 0,
    sampler: str = "",
    loss: str = "",
    precision: str = "",
    shards: List[str] = ["1/1"],
    overrides: List[str] = [],
    prepared: str = "",
    checkpoints: str = "",
    measures: List[str] = [],
    margin: float = 0.01,
    gpus: str = "0",
    gpu_type: str = "nvidia.com/gpu",
    cpu: str = "2",
    memory: str = "16Gi",
    node_selector: Dict[str, str] = {},
    tolerations: List[Dict[str, Any]] = [],
):
    """Train mixtures of tasks, and each task by itself, with several seeds, and say what learning together changed.

    Parameters that are not described here mean what they mean in `mtl_ranking`.

    Args:
        tasks: Data and model - keys of the datasets to train on; the first measure of the first one of a mixture chooses
            its best checkpoint. The experiment's own list is ignored, because each task gets its own steps.
        seeds: Data and model - each mixture and each single task is trained once with each seed.
        mixtures: Data and model - what is learnt together, such as [["trec2019", "msm_bm25"], ["trec2019", "msm_ner"]].
            Empty - all tasks.
        heads: Data and model - tasks that are also trained by themselves and compared, such as ["trec2019"]. Empty - all
            that have a val and a test split.
        measures: Comparison - measures that are compared, such as ["nDCG@10"]. Empty - the first one of each head.
        margin: Comparison - a difference that does not matter, in the measures' own unit.
        gpus: Machine - GPUs of each training step, 0 or 1.
        cpu: Machine - cores that each training step requests.
        memory: Machine - memory that each training step may use, such as 64Gi.
        node_selector: Machine - labels of the nodes for training, such as
            {"cloud.google.com/gke-accelerator": "nvidia-l4"}.
        tolerations: Machine - taints that training tolerates, such as
            [{"key": "cloud.google.com/gke-spot", "operator": "Exists"}].

    """
    planned = plan(**locals())  # all parameters
    place(planned, cpu="1", memory="4Gi", hours=1)
    dataset = prepare_after(planned, tasks, shards, experiment, body, overrides, prepared)
    trying(
        datasets=dsl.Collected(dataset.output),
        runs=planned.outputs["Output"],
        config=planned.outputs["config"],
        checkpoints=checkpoints,
        gpus=gpus,
        gpu_type=gpu_type,
        cpu=cpu,
        memory=memory,
        node_selector=node_selector,
        tolerations=tolerations,
    )
