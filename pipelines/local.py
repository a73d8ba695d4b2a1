"""Run the compiled topology on this machine, without a cluster or containers.

python -m pipelines.local key=value ...
"""

import os
import sys
from pathlib import Path
from typing import Any

from kfp import local

from mtlrank.entry import stop
from mtlrank.errors import UserError
from mtlrank.evaluation.report import head_folders, print_table
from pipelines.mtl_ranking import mtl_ranking
from pipelines.parameters import parse


def run(root: Path, **parameters: Any) -> Path:
    """Run the pipeline with kfp's SubprocessRunner; returns the folder of its artifacts."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    before = set(root.glob("mtl-ranking-*"))
    mtl_ranking(**parameters)
    (folder,) = set(root.glob("mtl-ranking-*")) - before
    return folder


if __name__ == "__main__":
    try:
        parameters = parse(sys.argv[1:], mtl_ranking.component_spec.inputs)
        result = run(Path(os.environ.get("MTLRANK_PIPELINE_ROOT", "runs/pipeline")), **parameters)
    except UserError as error:
        stop(error)
    (page,) = result.glob("report/page")
    print_table(head_folders(sorted(result.rglob("evaluate/result"))))
    print(f"results: {result}   report: {page}")
