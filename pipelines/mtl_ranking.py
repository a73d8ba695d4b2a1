"""Wiring: check, prepare each dataset in shards, train on all of them on one node, judge each head, report, promote."""

from typing import Any, Dict, List

from kfp import dsl

from components.check.component import check
from components.launch.trainjob import TRAINING_KEYS
from components.train.component import train
from pipelines.placement import place, place_on_gpus
from pipelines.stages import judging, prepare_after


@dsl.pipeline(name="mtl-ranking", description="Train one transformer body with one head per dataset and judge each.")
def mtl_ranking(
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
    gpus: str = "0",
    judging_gpus: str = "0",
    gpu_type: str = "nvidia.com/gpu",
    cpu: str = "2",
    memory: str = "16Gi",
    node_selector: Dict[str, str] = {},
    tolerations: List[Dict[str, Any]] = [],
):
    """Train one transformer body with one head per dataset, judge each, and promote the model if it is not worse.

    Args:
        tasks: Data and model - keys of the datasets to train on together; the first measure of the first one chooses
            the best checkpoint. The experiment's own list is ignored, because each task gets its own steps.
        experiment: Data and model - name of a config in experiment/, such as embedded, trec2019, vaswani or msmarco. An
            experiment with other tasks needs `tasks` too.
        body: Data and model - name of a config in model/body, such as tiny or bert_base_uncased. Empty - the
            experiment's.
        batch_size: Settings - samples in a batch, of all tasks together. 0 - the experiment's.
        learning_rate: Settings - peak learning rate, reached after warm-up. 0 - the experiment's.
        epochs: Settings - epochs of the sampler. 0 - the experiment's.
        sampler: Settings - name of a config in datamodule/sampler, such as random_proportional, round_robin or
            temperature. Empty - the experiment's.
        loss: Settings - name of a config in loop/loss, such as example_mean, task_mean or uncertainty. Empty - the
            experiment's.
        seed: Settings - seed of all random choices.
        precision: Settings - Lightning's precision, 32-true, or bf16-mixed on a GPU. Empty - the experiment's.
        shards: Settings - the shards in which each dataset is prepared in parallel, such as ["1/3", "2/3", "3/3"].
        overrides: Settings - further settings, written as on the command line, such as ["debug=limit"]. They may choose
            among the image's configs, but not name code.
        prepared: Storage - a folder for prepared datasets, such as gs://bucket/prepared. Later runs with the same data and
            settings use them again, also with another image. Empty - each image prepares its own.
        checkpoints: Storage - a folder that outlives pods, such as gs://bucket/checkpoints. Training that was killed
            continues from there. Empty - it starts over.
        registry: Storage - the folder of the registry, such as gs://bucket/registry. Empty - nothing is promoted.
        measures: Promotion - the measures that decide, such as ["trec2019/nDCG@10"]. Empty - the first measure of the
            first task of the model in use.
        margin: Promotion - the new model may be worse by this much, in the measures' own unit.
        gpus: Machine - GPUs for training, with one process each. 0 - none.
        judging_gpus: Machine - GPUs of each judging step, 0 or 1.
        gpu_type: Machine - the name of the GPU resource, such as nvidia.com/gpu.
        cpu: Machine - cores that training requests.
        memory: Machine - memory that training may use, such as 64Gi.
        node_selector: Machine - labels of the nodes for training and judging, also if judging needs no GPU, such as
            {"cloud.google.com/gke-accelerator": "nvidia-l4"}.
        tolerations: Machine - taints that training and judging tolerate, such as
            [{"key": "cloud.google.com/gke-spot", "operator": "Exists"}].

    """
    checked = check(**locals())  # all parameters
    place(checked, cpu="1", memory="1Gi", hours=1)
    checked.set_caching_options(False)  # the cache does not know what the image's environment says
    dataset = prepare_after(checked, tasks, shards, experiment, body, overrides, prepared)
    trained = train(
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
        gpus=gpus,
    )
    trained.set_caching_options(False)  # a rerun trains again, or continues, instead of showing an old result
    place(trained, cpu=cpu, memory=memory, hours=24 * 7, retries=5, secrets=TRAINING_KEYS)
    place_on_gpus(trained, gpu_type, gpus, node_selector, tolerations)
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
