"""Train the model on several nodes."""

from typing import Any, Dict, List

from kfp import dsl

from components.base import step


@step
def launch(
    datasets: dsl.Input[List[dsl.Dataset]],
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
    checkpoints: str,
    overrides: List[str],
    run: str,
    image: str,
    num_nodes: int,
    gpus: str,
    gpu_type: str,
    cpu: str,
    memory: str,
    node_selector: Dict[str, str],
    tolerations: List[Dict[str, Any]],
    service_account: str,
    runtime: str,
    deadline_hours: int,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Train one body with one head per dataset in a TrainJob of Kubeflow Trainer, and wait for it.

    Its inputs are those of `train` and of `components.launch.trainjob.Nodes`, the id of the pipeline's run and the
    image, which a step cannot find out by itself. The nodes write the model to its URI themselves. With `gpus`, they
    fail rather than train on the CPU.
    """
    parameters = dict(locals())

    from components.launch import launcher
    from components.launch.trainjob import Nodes
    from components.train.order import Order
    from components.train.settings import number_of_gpus, train_settings

    order = Order(train_settings(parameters), overrides, [dataset.uri for dataset in datasets], model.uri, checkpoints)
    nodes = Nodes(**{name: parameters[name] for name in Nodes._fields} | {"gpus": number_of_gpus(gpus)})
    for key, value in launcher.run(order, nodes, run, image).items():
        metrics.log_metric(key, value)
