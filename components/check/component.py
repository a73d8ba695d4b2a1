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

    import os

    from components.check.parameters import check_places, check_training, mounted_above

    if not on_nodes:
        del values["num_nodes"]
    if "KFP_POD_NAME" in os.environ:  # a pod of a pipeline, whose own disk is lost with it
        places = (values[name] for name in ("prepared", "checkpoints", "registry"))
        check_places(values, mounted=[folder for path in places for folder in mounted_above(path)])
    check_training(values)
    print("No mistake found in the parameters.")
