import pytest

from mtlrank.storage import write_json, write_manifest
from tests.evaluation.judged_runs import write_run
from tests.storage.conftest import server  # noqa: F401 - a fixture


@pytest.fixture(params=["local", "gs"])
def place(request, tmp_path, monkeypatch):
    """Where a registry lies: on this disk, or on Google Cloud Storage."""
    monkeypatch.setenv("MTLRANK_HOME", str(tmp_path / "home"))
    if request.param == "local":
        return str(tmp_path / "registry")
    request.getfixturevalue("server")
    return "gs://bucket/registry"


def write_finished(run, **settings):
    """A finished run: how its ranking did, and a model in name only."""
    write_run(run, **settings)
    write_json(run / "model" / "config.json", {"datamodule": {"dataset": {"datasets": {"rank": {"name": "rank"}}}}})
    (run / "model" / "model.safetensors").write_bytes(run.name.encode())
    write_manifest(run / "model", {"kind": "model"})
    return run
