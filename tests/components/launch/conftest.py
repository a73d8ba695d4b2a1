import threading
from types import SimpleNamespace

import pytest

from components.launch import cluster, launcher, logs
from components.launch.trainjob import Nodes, trainjob
from components.train.order import Order

from .kube_server import KubeServer

RUN = "0f3c1c1e-95a8-4c60-ae1e-5a5d9a1b0c11"
JOB = f"mtlrank-{RUN}"
IMAGE = "registry.example/mtlrank:0.6.0-g0123abc"
ORDER = Order(
    {"experiment": "embedded", "tasks": ["trec2019", "msm_ner"], "seed": 7, "test": False},
    ["debug=limit"],
    ["gs://bucket/root/trec2019", "gs://bucket/root/msm_ner"],
    "gs://bucket/root/run/model",
    "gs://bucket/checkpoints",
)
TOLERATION = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
NODES = Nodes(
    num_nodes=2,
    gpus=8,
    gpu_type="nvidia.com/gpu",
    cpu="16",
    memory="200Gi",
    node_selector={"cloud.google.com/gke-accelerator": "nvidia-l4"},
    tolerations=[TOLERATION],
    service_account="mtlrank-train",
    runtime="torch-distributed",
    deadline_hours=6,
)
CREATE = "POST .*/trainjobs"


def made(**metadata):
    """The job as the launcher makes it, with other metadata."""
    job = trainjob(ORDER, NODES, RUN, IMAGE)
    return {**job, "metadata": {**job["metadata"], **metadata}}


@pytest.fixture
def kube(monkeypatch, tmp_path):
    """An API server on this machine that the launcher finds, and a launcher in a hurry."""
    monkeypatch.setattr(launcher, "POLL", 0.05)
    monkeypatch.setattr(logs, "WAIT", 0.05)
    monkeypatch.setattr(cluster, "LONGEST_WAIT", 0.1)
    server = KubeServer()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("KUBECONFIG", server.kubeconfig(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    yield server
    server.break_streams()
    server.shutdown()
    server.server_close()


@pytest.fixture
def launched(kube):
    """Starts a launcher beside the test, which plays the cluster: `launched()` begins, `.result()` waits for its end."""
    threads = []

    def begin(seconds=3600.0):
        errors = []

        def work():
            try:
                launcher.supervise(cluster.Cluster.connect(), trainjob(ORDER, NODES, RUN, IMAGE), seconds)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        threads.append(thread)

        def result():
            thread.join(120)
            assert not thread.is_alive()
            if errors:
                raise errors[0]

        return SimpleNamespace(result=result, is_alive=thread.is_alive)

    yield begin
    kube.jobs.clear()  # a launcher that still waits ends
    kube.mend()
    for thread in threads:
        thread.join(60)
