"""What lies in the folder of a run, and the description there: its command, time, machine and code."""

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mtlrank import __version__

RUN = "run.json"  # the identity of the run in a folder
ABOUT = "about.json"  # the command, commit and versions of a run's last attempt
METRICS = "metrics.json"  # the measures of a run, by key; only a finished run has it
DATA = "data.json"  # hashes of what a finished run was made from
PROBED = "probe.json"  # in the folder of a probe: its results
WEIGHTS = "model.safetensors"  # in the folder of a model
MODEL = "model"  # folders of a run: its model, the results of its heads, and the pages on both
EVALUATION = "evaluation"
REPORT = "report"
COSTS = ("steps", "samples", "seconds")  # of a run, in its description
PACKAGES = ("torch", "transformers", "pytorch-lightning", "ir-measures", "pytrec-eval-terrier")


def describe(started: float) -> dict[str, str]:
    """Describe the run that began at `started` (in seconds, as of `time.time`)."""
    import torch  # here, as reports and pipelines, which only need PACKAGES or the commit, should not load it

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    program = Path(sys.argv[0])
    module = f"python -m mtlrank.{program.stem}" if program.parent == Path(__file__).parent else sys.argv[0]
    command = " ".join([module, *map(shlex.quote, sys.argv[1:])])  # the first may be two words
    if (option := "--function_to_execute") in sys.argv:  # kfp's, followed by all inputs as JSON
        command = f"step {sys.argv[sys.argv.index(option) + 1]} of a pipeline"
    return {
        "command": command,
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "mtlrank": __version__,
        "commit": commit(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "python": platform.python_version(),
        "hardware": ", ".join(gpus) or f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores",
    }


def read_about(folder: Path) -> dict[str, Any]:
    """The description of the run in a folder; empty if it has none, or a damaged one."""
    try:
        described = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}


def costs(folder: Path) -> dict[str, int | float]:
    """What the run in a folder took, by key of `COSTS`, as far as it was recorded."""
    described = read_about(folder)
    return {key: described[key] for key in COSTS if type(described.get(key)) in (int, float)}


def is_unfinished(folder: Path) -> bool:
    """Whether a run has begun in a folder and not ended. The model and results there may be those of the run before it."""
    return (folder / RUN).exists() and not (folder / METRICS).exists()


def code() -> str:
    """The version and the commit of the code."""
    return f"mtlrank {__version__}, commit {commit()}"


def commit(root: Path = Path(__file__).parent.parent) -> str:
    """The commit of the code: an image's MTLRANK_COMMIT, or the checkout's, `-dirty` if it was changed; else `unknown`."""
    if commit_of_image := os.environ.get("MTLRANK_COMMIT"):
        return commit_of_image
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
