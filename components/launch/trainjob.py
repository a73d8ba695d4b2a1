"""The manifest of a TrainJob of Kubeflow Trainer (v2.2 or later): pure functions from arguments to plain values."""

import re
from typing import Any, NamedTuple

from components.train.order import Order
from mtlrank.errors import ConfigError
from mtlrank.storage import fingerprint

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUN, SPEC = "mtlrank/run", "mtlrank/spec"  # labels: whose job it is, and a hash of what was asked
NODE = "node"  # what Trainer's runtimes call the replicated job and the container that train
_LONGEST = 46  # of a name: with "-node-0-12-abcde" behind it, a pod's name still is a label of 63 characters
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


class Nodes(NamedTuple):
    """The machines that a job asks for. Empty text leaves a choice to the cluster."""

    num_nodes: int
    gpus: int  # of each node, a process each; 0 for one process on the CPU
    gpu_type: str  # the resource that the cluster counts them as, such as nvidia.com/gpu
    cpu: str
    memory: str
    node_selector: dict[str, str]
    tolerations: list[dict[str, Any]]
    service_account: str
    runtime: str  # a ClusterTrainingRuntime, such as torch-distributed
    deadline_hours: int


def job_name(run: str) -> str:
    """A run's job has the run's name, as far as Kubernetes allows it (RFC 1035)."""
    plain = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    name = f"mtlrank-{plain}"
    if plain and plain == run and len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 13].strip('-')}-{fingerprint(run)}"


def trainjob(order: Order, nodes: Nodes, run: str, image: str) -> dict[str, Any]:
    """The manifest of the job that trains `order` on `nodes`."""
    check_nodes(nodes)
    resources = {key: value for key, value in (("cpu", nodes.cpu), ("memory", nodes.memory)) if value}
    if nodes.gpus:
        resources[nodes.gpu_type] = str(nodes.gpus)
    spec = {
        "activeDeadlineSeconds": nodes.deadline_hours * 3600,
        "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": nodes.runtime},
        "trainer": {
            "image": image,
            "command": ["torchrun"],  # its other arguments come from PET_*, which Trainer sets
            "args": ["-m", "components.train.node", order.dumps()],
            "numNodes": nodes.num_nodes,
            "numProcPerNode": max(1, nodes.gpus),  # Trainer's `auto` would be a process for each CPU
            **({"resourcesPerNode": {"limits": resources, "requests": resources}} if resources else {}),
        },
        "runtimePatches": [_patch(nodes)],
    }
    labels = {
        "app.kubernetes.io/name": "mtlrank",
        "app.kubernetes.io/component": "train",
        RUN: job_name(run),
        SPEC: fingerprint(spec),
    }
    metadata = {"name": job_name(run), "labels": labels}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainJob", "metadata": metadata, "spec": spec}


def check_nodes(nodes: Nodes) -> None:
    """Refuse what Kubernetes would refuse, in the parameters' words."""
    wrong = [f"{key}={value!r}" for key, value in nodes._asdict().items() if not _is_right(key, value)]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)}: a cluster would refuse this. Expected num_nodes and deadline_hours of at least 1, gpus "
            "of at least 0, cpu as in '8' or '500m', memory as in '64Gi', node_selector as a dict of texts, tolerations "
            "as a list of dicts, and names in lower case."
        )


def _is_right(key: str, value: Any) -> bool:
    if key in ("num_nodes", "deadline_hours", "gpus"):
        return type(value) is int and value >= (0 if key == "gpus" else 1)
    if key in ("cpu", "memory"):
        return not value or _QUANTITY.fullmatch(value) is not None
    if key == "node_selector":
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if key == "tolerations":
        return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    if key == "gpu_type":
        return all(_NAME.fullmatch(part.lower()) for part in value.split("/"))
    return (not value and key == "service_account") or _NAME.fullmatch(value) is not None


def _patch(nodes: Nodes) -> dict[str, Any]:
    """What differs from the cluster's runtime: where pods run, as whom, and how little they may do."""
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory"}}],  # of 64 MiB otherwise: too little for workers
        "containers": [
            {
                "name": NODE,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}],  # noqa: S108
            }
        ],
    }
    optional = {
        "serviceAccountName": nodes.service_account,
        "nodeSelector": nodes.node_selector,
        "tolerations": nodes.tolerations,
    }
    pod |= {key: value for key, value in optional.items() if value}
    job = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
    spec = {"template": {"spec": {"replicatedJobs": [job]}}}
    return {"manager": "mtlrank/launch", "trainingRuntimeSpec": spec}
