"""Wiring: prepare each dataset in shards, train on all of them, judge each head, report."""

from typing import List

from kfp import dsl

from components.evaluate.component import evaluate
from components.merge.component import merge
from components.prepare.component import prepare
from components.report.component import report
from components.train.component import train


@dsl.pipeline(name="preparing")
def preparing(task: str, shards: List[str], experiment: str, body: str, overrides: List[str]) -> dsl.Dataset:
    """Prepare the shards of one dataset, then merge them; a pipeline of its own, as loops do not nest otherwise."""
    with dsl.ParallelFor(shards, name="prepare-shards") as shard:
        prepared = prepare(task=task, shard=shard, experiment=experiment, body=body, overrides=overrides)
    parts = dsl.Collected(prepared.outputs["part"])
    return merge(task=task, parts=parts, experiment=experiment, body=body, overrides=overrides).outputs["dataset"]


@dsl.pipeline(name="judging")
def judging(datasets: dsl.Input[List[dsl.Dataset]], model: dsl.Input[dsl.Model], tasks: List[str]):
    """Judge each head, then put them side by side.

    A pipeline of its own because kfp cannot hand what one loop collects to a task inside another loop.
    """
    with dsl.ParallelFor(tasks, name="judge-each") as task:
        judged = evaluate(datasets=datasets, model=model, task=task)
    report(results=dsl.Collected(judged.outputs["result"]), model=model)


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
):
    """Train one transformer body with one head per dataset and judge each.

    Args:
        tasks: Keys of the datasets to learn together; the first one's first measure chooses the checkpoint.
        experiment: Name of a config in experiment/: embedded, trec2019, vaswani or msmarco.
        body: Name of a config in model/body, such as tiny or bert_base_uncased. Empty - the experiment's.
        batch_size: Samples in a batch, of all tasks together. 0 - the experiment's.
        learning_rate: Peak learning rate, reached after warm-up. 0 - the experiment's.
        epochs: Epochs of the sampler. 0 - the experiment's.
        sampler: Name of a config in datamodule/sampler: random_proportional, round_robin or sequential.
        loss: Name of a config in loop/loss, such as example_mean, task_mean or uncertainty.
        seed: Seed of every random choice.
        precision: Lightning's name of the arithmetic: 32-true, or bf16-mixed on a GPU.
        shards: The shares that each dataset is prepared in, side by side, such as ["1/3", "2/3", "3/3"].
        overrides: Further settings in the command line's words, such as ["debug=limit"]. They may choose among what the
            image holds, not name code.

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
        overrides=overrides,
    )
    trained.set_caching_options(False)  # a rerun trains again instead of showing an old result
    # A fresh Collected: kfp changes one when it is used.
    judging(datasets=dsl.Collected(prepared.output), model=trained.outputs["model"], tasks=tasks)
