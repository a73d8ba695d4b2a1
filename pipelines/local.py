"""Run the compiled topology on this machine, without a cluster or containers.

python -m pipelines.local key=value ...
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import local

from mtlrank.entry import stop
from mtlrank.errors import ConfigError, UserError
from mtlrank.evaluation.report import head_folders, print_table
from pipelines.mtl_ranking import mtl_ranking


def run(root: Path, **parameters: Any) -> Path:
    """Run the pipeline with kfp's SubprocessRunner; returns the folder of its artifacts."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    before = set(root.glob("mtl-ranking-*"))
    mtl_ranking(**parameters)
    (folder,) = set(root.glob("mtl-ranking-*")) - before
    return folder


def parse(arguments: list[str]) -> dict[str, Any]:
    """Pipeline parameters from `key=value`, typed as the pipeline declares them; lists are JSON."""
    declared = mtl_ranking.component_spec.inputs or {}
    parameters: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in declared:
            raise ConfigError(f"Unknown parameter {argument!r}. Expected key=value with one of {', '.join(declared)}.")
        try:
            parameters[key] = _TYPES[declared[key].type.removeprefix("typing.").partition("[")[0]](value)
        except ValueError as error:
            raise ConfigError(f"{key} is a {declared[key].type}, found {value!r}.") from error
    return parameters


_TYPES: dict[str, Callable[[str], Any]] = {"String": str, "Integer": int, "Float": float, "List": json.loads}


if __name__ == "__main__":
    try:
        result = run(Path(os.environ.get("MTLRANK_PIPELINE_ROOT", "runs/pipeline")), **parse(sys.argv[1:]))
    except UserError as error:
        stop(error)
    (page,) = result.glob("report/page")
    print_table(head_folders(sorted(result.rglob("evaluate/result"))))
    print(f"results: {result}   report: {page}")
