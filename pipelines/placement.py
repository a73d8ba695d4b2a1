"""Where a step's pod runs and what it gets: resources, nodes, secrets, retries and time."""

from collections.abc import Sequence
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

from components.launch.trainjob import SECRET, SECRET_KEYS

HOURS = 3600
MEMORY_VOLUME = "dshm"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a mount, not a file


def place(
    task: PipelineTask, cpu: str, memory: str, hours: int, retries: int = 2, secrets: Sequence[str] = SECRET_KEYS
) -> PipelineTask:
    """Resources, retries and a time limit. A failed pod is retried after growing waits; `hours` stop a hanging one."""
    task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)
    # Argo counts the longest duration from the first attempt's start, not from its end: a step that fails later ends there.
    task.set_retry(retries, backoff_duration="60s", backoff_factor=2, backoff_max_duration=f"{hours * (retries + 1)}h")
    kubernetes.set_timeout(task, hours * HOURS)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")  # tags never move
    kubernetes.use_secret_as_env(task, SECRET, {key: key for key in secrets}, optional=True)
    return task


def place_on_gpus(
    task: PipelineTask, gpu_type: str, gpus: str, node_selector: dict[str, str], tolerations: list[dict[str, Any]]
) -> PipelineTask:
    """GPUs, shared memory for data loaders, and the nodes that have them. All may be parameters of a pipeline.

    Then resources must be texts: Kubeflow Pipelines reads a parameter that is a number as an empty text, and sets nothing.
    """
    task.set_accelerator_type(gpu_type).set_accelerator_limit(gpus)
    # A container's own shared memory is 64 MB.
    kubernetes.empty_dir_mount(task, MEMORY_VOLUME, SHARED_MEMORY, medium="Memory", size_limit="8Gi")
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    return task
