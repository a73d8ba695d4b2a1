from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtlrank.cli import app
from mtlrank.registry import Registry
from mtlrank.storage import file_hash, gcs, write_bytes, write_json, write_manifest
from mtlrank.storage.paths import parse
from tests.evaluation.judged_runs import write_run


def typed(*words):
    """`mtlrank` with these words; gives what it printed, and its exit code."""
    return CliRunner().invoke(app, [str(word) for word in words])


def write_finished(run, tasks=("rank",), **settings):
    """A finished run: how its heads did, and a model in name only."""
    weights = run / "model" / "model.safetensors"
    write_bytes(str(weights), run.name.encode())
    write_run(run, tasks=tasks, weights=file_hash(weights), **settings)
    datasets = {name: {"name": name} for name in tasks}
    write_json(run / "model" / "config.json", {"datamodule": {"dataset": {"datasets": datasets}}})
    write_manifest(run / "model", {"kind": "model"})
    return run


@pytest.fixture
def registry(place):
    return Registry(place)


def publish(registry, tmp_path, name):
    """A small model of its own, published."""
    folder = tmp_path / "entries" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text(name)
    write_manifest(folder, {"kind": "registered model"})
    return registry.publish(folder)


def remove_file(path):
    """Remove one file of a folder, as by accident."""
    place = parse(path)
    if isinstance(place, Path):
        place.unlink()
    else:
        gcs.delete(place)
