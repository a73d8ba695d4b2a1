from mtlrank.storage import write_json, write_manifest
from tests.evaluation.judged_runs import write_run


def write_finished(run, **settings):
    """A finished run: how its ranking did, and a model in name only."""
    write_run(run, **settings)
    write_json(run / "model" / "config.json", {"datamodule": {"dataset": {"datasets": {"rank": {"name": "rank"}}}}})
    (run / "model" / "model.safetensors").write_bytes(run.name.encode())
    write_manifest(run / "model", {"kind": "model"})
    return run
