"""What a run was: when, on which machine, with which code."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from mtlrank import __version__

PACKAGES = ("torch", "transformers", "pytorch-lightning", "ir-measures", "pytrec-eval-terrier")


def describe(started: float) -> dict[str, str]:
    """Of the run that began at `started` (seconds, as `time.time` counts)."""
    import torch  # here, as reports and pipelines only ask for PACKAGES or the commit

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


def code() -> str:
    """The version and, where it is known, the commit of the code."""
    return f"mtlrank {__version__}, commit {commit()}"


def commit(root: Path = Path(__file__).parent.parent) -> str:
    """The commit of the code: what an image says in MTLRANK_COMMIT, or that of the checkout; `unknown` elsewhere."""
    if told := os.environ.get("MTLRANK_COMMIT"):
        return told
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
