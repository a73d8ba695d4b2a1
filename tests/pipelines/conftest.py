import os
import threading

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.compile import write
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_study import mtl_study

from .kfp_server import FakeKubeflow
from .pods import Pod


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A fresh Kubeflow Pipelines on this machine, which the environment names."""
    for name in [name for name in os.environ if name.startswith(("KFP_", "KF_PIPELINES_"))]:
        monkeypatch.delenv(name)
    server = FakeKubeflow()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("KFP_ENDPOINT", server.url)
    monkeypatch.setattr(
        "kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json")
    )  # the tester's own is no matter
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(bucket, tmp_path, home):
    """A function that starts a step of any pipeline in a pod of its own, with Google Cloud Storage on this machine."""
    specs = []
    for pipeline in (mtl_ranking, mtl_study):
        write(tmp_path / "pipeline.yaml", pipeline)
        specs.append(next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())))
    count = iter(range(100))

    def start(step, **inputs):
        folder = tmp_path / f"{next(count)}-{step}"
        folder.mkdir()
        spec = next(spec for spec in specs if f"comp-{step}" in spec["components"])
        return Pod(spec, f"gs://bucket/root/{folder.name}", folder, step, **inputs)

    return start


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The compiled pipeline."""
    path = tmp_path_factory.mktemp("package") / "mtl_ranking.yaml"
    write(path)
    return path


@pytest.fixture
def invoke():
    """Run a command as a shell would; gives its exit code and what it printed."""

    def run(app, *words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception  # a user would see a traceback
        return result

    return run
