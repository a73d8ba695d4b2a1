"""Check a run's parameters."""

from typing import Any, Dict, List

from components.base import step


@step
def check(
    tasks: List[str],
    experiment: str,
    body: str,
    batch_size: int,
    learning_rate: float,
    epochs: int,
    sampler: str,
    loss: str,
    seed: int,
    precision: str,
    shards: List[str],
    overrides: List[str],
    prepared: str,
    checkpoints: str,
    registry: str,
    measures: List[str],
    margin: float,
    gpus: str,
    judging_gpus: str,
    gpu_type: str,
    cpu: str,
    memory: str,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
    on_nodes: bool = False,
    num_nodes: int = 1,
    service_account: str = "",
    runtime: str = "torch-distributed",
    deadline_hours: int = 168,
):
    """Refuse what later steps would refuse, before anything is prepared, by the configs of the steps' own image.

    Its inputs are all parameters of the pipeline; with `on_nodes`, those of a TrainJob too. A run that is started from the
    UI is checked here only.
    """
    values = dict(locals())

    from components.check.parameters import check_places_of_step, check_training

    if not on_nodes:
        del values["num_nodes"]
    check_places_of_step(values)
    check_training(values)
    print("No mistake found in the parameters.")
