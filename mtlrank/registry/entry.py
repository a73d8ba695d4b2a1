"""An entry of a registry: a model and its evaluation in one folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mtlrank.about import EVALUATION, MODEL, WEIGHTS
from mtlrank.errors import DataError
from mtlrank.evaluation.judged_head import SUMMARY
from mtlrank.model.saved import read_model_manifest
from mtlrank.storage import new_folder, read_json, write_manifest


def write_entry(target: Path, model: Path, heads: Sequence[Path]) -> None:
    """Copy a saved model and the folders of its judged heads into `target`, with a manifest."""
    manifest = read_model_manifest(model)
    if not heads:
        raise DataError(
            f"No judged heads of {model}: expected folders with metrics.json, which `mtlrank evaluate` writes."
        )
    names = [head.name for head in heads]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{twice[0]} was judged in several of these folders: expected each head once.")
    weights = manifest["files"].get(WEIGHTS)
    for head in heads:
        if read_json(head / SUMMARY).get("weights") != weights:
            raise DataError(f"{head} was judged with another model than {model}. Run `mtlrank evaluate` with this one.")
    with new_folder(target) as part:
        shutil.copytree(model, part / MODEL)
        for head in heads:
            shutil.copytree(head, part / EVALUATION / head.name)
        copied = write_manifest(part, {"kind": "registered model", "heads": sorted(head.name for head in heads)})
        is_other = any(copied.get(f"{MODEL}/{name}") != expected for name, expected in manifest["files"].items())
        if is_other or any(read_json(part / EVALUATION / name / SUMMARY).get("weights") != weights for name in names):
            raise DataError(f"{model} changed while it was copied. Promote it again when nothing writes there.")
