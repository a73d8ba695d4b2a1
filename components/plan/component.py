"""List the runs of a study."""

from typing import Any, Dict, List

from kfp import dsl

from components.base import step


@step
def plan(
    tasks: List[str],
    seeds: List[int],
    mixtures: List[List[str]],
    heads: List[str],
    measures: List[str],
    margin: float,
    experiment: str,
    body: str,
    batch_size: int,
    learning_rate: float,
    epochs: int,
    sampler: str,
    loss: str,
    precision: str,
    shards: List[str],
    overrides: List[str],
    prepared: str,
    checkpoints: str,
    gpus: str,
    gpu_type: str,
    cpu: str,
    memory: str,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
    config: dsl.Output[dsl.Artifact],
) -> List[str]:
    """List the runs of a study, each mixture and each single task with each seed, and write its config.

    A study that cannot run is refused here, before anything is prepared. Its inputs are all parameters of the pipeline.
    """
    values = dict(locals())

    from pathlib import Path

    from components.check.parameters import check_places_of_step
    from components.plan.runs import check_study
    from mtlrank.storage import write_json

    check_places_of_step(values)
    composed, runs = check_study(values)
    write_json(Path(config.path), composed, sort_keys=False)
    print(*runs, sep="\n")
    return runs
