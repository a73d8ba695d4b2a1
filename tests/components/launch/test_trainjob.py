"""The manifest, value by value, and what may be asked for."""

import json
import re

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from components.launch.trainjob import check_shared, job_name, trainjob
from components.train.order import Order
from mtlrank.errors import ConfigError

from .conftest import IMAGE, JOB, NODES, ORDER, RUN, TOLERATION


def test_the_manifest_is_the_golden_one():
    resources = {"cpu": "16", "memory": "200Gi", "nvidia.com/gpu": "8"}
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory"}}],
        "containers": [
            {
                "name": "node",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}],
            }
        ],
        "serviceAccountName": "mtlrank-train",
        "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        "tolerations": [TOLERATION],
    }
    job = trainjob(ORDER, NODES, RUN, IMAGE)
    labels = job["metadata"].pop("labels")
    assert labels.pop("mtlrank/spec")
    assert labels == {
        "app.kubernetes.io/name": "mtlrank",
        "app.kubernetes.io/component": "train",
        "mtlrank/run": JOB,
    }
    assert job == {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": JOB},
        "spec": {
            "activeDeadlineSeconds": 21600,
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": "torch-distributed",
            },
            "trainer": {
                "image": IMAGE,
                "command": ["torchrun"],
                "args": ["-m", "components.train.node", ORDER.dumps()],
                "env": [
                    {"name": key, "valueFrom": {"secretKeyRef": {"name": "mtlrank", "key": key, "optional": True}}}
                    for key in (
                        "HF_TOKEN",
                        "MLFLOW_TRACKING_URI",
                        "WANDB_API_KEY",
                        "MLFLOW_TRACKING_USERNAME",
                        "MLFLOW_TRACKING_PASSWORD",
                        "MLFLOW_TRACKING_TOKEN",
                    )
                ],
                "numNodes": 2,
                "numProcPerNode": 8,
                "resourcesPerNode": {"limits": resources, "requests": resources},
            },
            "runtimePatches": [
                {
                    "manager": "mtlrank/launch",
                    "trainingRuntimeSpec": {
                        "template": {
                            "spec": {
                                "replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": pod}}}}]
                            }
                        }
                    },
                }
            ],
        },
    }


def test_little_can_be_asked_for():
    """Then the cluster's runtime decides."""
    nodes = NODES._replace(gpus=0, cpu="", memory="", node_selector={}, tolerations=[], service_account="")
    job = trainjob(ORDER, nodes, RUN, IMAGE)
    assert "resourcesPerNode" not in job["spec"]["trainer"]
    assert job["spec"]["trainer"]["numProcPerNode"] == 1
    assert "nodeSelector" not in json.dumps(job)
    assert TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job


def test_trainer_s_own_models_know_every_field():
    """They drop what they do not know."""
    job = trainjob(ORDER, NODES, RUN, IMAGE)
    assert TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job


@pytest.mark.parametrize("run", [RUN, "Run Of Monday", "x" * 300, "ünïcode", "a.b", "", "-", "a" * 38])
def test_names_are_labels_and_differ_as_the_runs_do(run):
    name = job_name(run)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(f"{name}-node-0-12-abcde") <= 63
    assert name == job_name(run) != job_name(run + "x")


def test_another_order_has_another_hash():
    hashes = {
        trainjob(order, NODES, RUN, IMAGE)["metadata"]["labels"]["mtlrank/spec"]
        for order in (ORDER, ORDER, ORDER._replace(output="gs://bucket/other"), ORDER._replace(overrides=[]))
    }
    assert len(hashes) == 3


def test_nothing_in_the_arguments_is_expanded_or_run():
    """Kubernetes replaces `$(NAME)` in arguments, and there is no shell."""
    order = ORDER._replace(overrides=["seed=$(HOME)", "x=`id`; $$ ${y}"])
    args = trainjob(order, NODES, RUN, IMAGE)["spec"]["trainer"]["args"]
    assert "$" not in "".join(args)
    assert Order.loads(args[-1]) == order


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_nodes": 0},
        {"num_nodes": True},
        {"gpus": -1},
        {"cpu": "many"},
        {"memory": "64 GB"},
        {"memory": "64ki"},
        {"tolerations": [{"foo": 1}]},
        {"node_selector": {"a": 1}},
        {"tolerations": ["spot"]},
        {"service_account": "Me"},
        {"runtime": ""},
        {"gpu_type": ""},
        {"gpu_type": "/"},
        {"gpu_type": "nvidia.com/"},
        {"gpu_type": "nvidia.com/gpu/l4"},
        {"gpu_type": "memory"},
        {"deadline_hours": 0},
    ],
)
def test_what_no_cluster_gives_is_refused_by_name(wrong):
    (key,) = wrong
    with pytest.raises(ConfigError, match=key):
        trainjob(ORDER, NODES._replace(**wrong), RUN, IMAGE)


@pytest.mark.parametrize(
    "gpu_type", ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "amd.com/gpu", "nvidia.com/gpu.shared"]
)
def test_gpus_are_counted_by_the_name_of_their_resource(gpu_type):
    job = trainjob(ORDER, NODES._replace(gpu_type=gpu_type), RUN, IMAGE)
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"][gpu_type] == "8"


@pytest.mark.parametrize(
    ("places", "named"),
    [
        ({"the model": ["/tmp/root/model"]}, "the model would be at '/tmp/root/model'"),
        ({"checkpoints": [""]}, "checkpoints would be at ''"),
        ({"the datasets": ["gs://bucket/a", "minio://b/c"]}, "the datasets would be at 'minio://b/c'"),
    ],
)
def test_places_that_not_all_nodes_see_are_refused(places, named):
    with pytest.raises(ConfigError, match=named):
        check_shared(places)
    check_shared({"the datasets": ORDER.datasets, "checkpoints": [ORDER.checkpoints]})
