"""The manifest of a TrainJob of Kubeflow Trainer (v2.2 or later): pure functions from arguments to plain values."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components.train.order import Order
from mtlrank.errors import ConfigError
from mtlrank.storage import fingerprint

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUN, SPEC = "mtlrank/run", "mtlrank/spec"  # labels: the run that the job belongs to, and a hash of its spec
NODE = "node"  # what Trainer's runtimes call the replicated job and the container that train
_LONGEST = 46  # of a name: with "-node-0-12-abcde" behind it, a pod's name still is a label of 63 characters
MOST_HOURS = 700  # of training: the step that waits for it ends after 720
SECRET = "mtlrank"  # of the namespace, optional; its keys below become environment variables
SECRET_KEYS = ("HF_TOKEN", "MLFLOW_TRACKING_URI")  # of all steps: loop/logger=mlflow is composed only with its address
TRAINING_KEYS = (
    *SECRET_KEYS,
    "WANDB_API_KEY",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
EXPECTED = {
    "num_nodes": "at least 1",
    "gpus": "a whole number, at least 0",
    "gpu_type": "DOMAIN/NAME of a resource, as in nvidia.com/gpu (the model is for node_selector)",
    "cpu": "cores, at least 1m, as in 8 or 500m",
    "memory": "an amount with its unit, as in 64Gi, and at least 64Mi",
    "node_selector": 'labels, as in {"cloud.google.com/gke-accelerator": "nvidia-l4"}',
    "tolerations": 'tolerations of Kubernetes, as in [{"key": "cloud.google.com/gke-spot", "operator": "Exists"}]',
    "service_account": "a name in small letters",
    "runtime": "the name of a ClusterTrainingRuntime, as in torch-distributed",
    "deadline_hours": f"from 1 to {MOST_HOURS}",
}
_CORES = {"": 1.0, "m": 0.001}  # what a unit of cores is worth
_BYTES = {"": 1, "Ki": 2**10, "M": 10**6, "Mi": 2**20, "G": 10**9, "Gi": 2**30, "T": 10**12, "Ti": 2**40}
_BYTES |= {"P": 10**15, "Pi": 2**50}
LEAST_MEMORY = 64 * 2**20  # kfp's executor alone takes more
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_TOLERATION = {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}
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
    check_machine(nodes._asdict())
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
            "env": [_from_secret(key) for key in TRAINING_KEYS],
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


def check_machine(values: Mapping[str, Any]) -> None:
    """Refuse values of `Nodes`, or of some of its fields, that Kubernetes would refuse or no process could use."""
    wrong = [
        f"{key} is {value!r}, expected {EXPECTED[key]}" for key, value in values.items() if not _is_right(key, value)
    ]
    if wrong:
        raise ConfigError(f"{'; '.join(wrong)}. No cluster can run this.")


def check_shared(places: Mapping[str, Sequence[str]]) -> None:
    """Refuse places that only the launcher's own machine sees; `places` are keyed by what they hold."""
    for what, paths in places.items():
        for path in paths:
            if not path.startswith("gs://"):
                raise ConfigError(
                    f"Nodes of a TrainJob share no disk, but {what} would be at {path!r}: expected gs://bucket/name. "
                    "Submit with a pipeline root on gs:// and checkpoints=gs://bucket/name, or train on one node."
                )


def _is_right(key: str, value: Any) -> bool:
    if key in ("num_nodes", "deadline_hours", "gpus"):
        most = MOST_HOURS if key == "deadline_hours" else value
        return type(value) is int and (0 if key == "gpus" else 1) <= value <= most
    if key in ("cpu", "memory"):
        return not value or (_amount(value, _CORES) >= 0.001 if key == "cpu" else num_bytes(value) >= LEAST_MEMORY)
    if key == "node_selector":
        return isinstance(value, dict) and all(_is_label(name, text) for name, text in value.items())
    if key == "tolerations":
        return isinstance(value, list) and all(isinstance(entry, dict) and _tolerates(entry) for entry in value)
    if key == "gpu_type":
        return "/" in value and _is_label(value, "")
    return (not value and key == "service_account") or _NAME.fullmatch(value) is not None


def num_bytes(memory: str) -> float:
    """The bytes that a text such as 64Gi stands for; 0 if for none."""
    return _amount(memory, _BYTES)


def _amount(text: str, units: Mapping[str, float]) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text)
    return float(found[1]) * units.get(found[2], 0) if found else 0


def _is_label(name: Any, value: Any) -> bool:
    prefix, slash, rest = name.rpartition("/")
    plain = not slash or _NAME.fullmatch(prefix)
    return bool(plain and _LABEL.fullmatch(rest) and isinstance(value, str) and (not value or _LABEL.fullmatch(value)))


def _tolerates(entry: dict[str, Any]) -> bool:
    """Whether Kubernetes takes it as a toleration. Without a key it must name no value: it tolerates every taint."""
    exists = entry.get("operator") == "Exists"
    return (
        all(_is_of(_TOLERATION.get(name), value) for name, value in entry.items())
        and entry.get("operator", "Equal") in ("Equal", "Exists")
        and entry.get("effect", "") in ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
        and ("tolerationSeconds" not in entry or entry.get("effect") == "NoExecute")
        and (bool(entry.get("key")) or exists)
        and not (exists and entry.get("value"))
    )


def _is_of(kind: type | None, value: Any) -> bool:
    return type(value) is kind or (kind is int and type(value) is float and value.is_integer())  # a step may get 3.0


def _from_secret(key: str) -> dict[str, Any]:
    """A variable of the nodes that is set if the namespace's secret has the key, as in the pipeline's own steps."""
    return {"name": key, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key, "optional": True}}}


def _patch(nodes: Nodes) -> dict[str, Any]:
    """Changes to the cluster's runtime: the nodes, the account and the rights of the pods."""
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
