"""Training on several GPUs of one machine: a process each, started by torchrun."""

import subprocess
import sys
from pathlib import Path

from components.train.order import Order
from mtlrank.storage import read_json


def train_in_processes(order: Order, count: int) -> dict[str, float]:
    """Have `count` processes train `order` together and return the metrics; their exit code is ours if they fail."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    words = [*torchrun, "-m", "components.train.node", order.dumps()]  # no shell reads them
    code = subprocess.run(words).returncode  # noqa: S603
    if code:
        sys.exit(code)
    values: dict[str, float] = read_json(Path(order.output) / "metrics.json")
    return values
