from mtlrank.storage import write_json, write_manifest
from tests.evaluation.judged_runs import write_run


def write_finished(run, tasks=("rank",), **settings):
    """A finished run: how its heads did, and a model in name only."""
    write_run(run, tasks=tasks, **settings)
    datasets = {name: {"name": name} for name in tasks}
    write_json(run / "model" / "config.json", {"datamodule": {"dataset": {"datasets": datasets}}})
    (run / "model" / "model.safetensors").write_bytes(run.name.encode())
    write_manifest(run / "model", {"kind": "model"})
    return run
