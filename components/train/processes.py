"""Training on several GPUs of one machine: a process each, started by torchrun.

python -m components.train.processes --standalone --nproc-per-node=4 -m components.train.node '{...}'
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from components.train.order import Order
from mtlrank.about import METRICS
from mtlrank.loop.stopping import StopSignals
from mtlrank.storage import read_json

POLL = 0.2  # seconds between two looks at the processes
_SECONDS_TO_SAVE = 600  # torchrun's own 30 are too few for a large model; Kubernetes has a limit of its own


def train_in_processes(order: Order, count: int) -> dict[str, float]:
    """Have `count` processes train `order` together and return the metrics; their exit code is ours if they fail.

    On SIGTERM it stops them, and raises `TerminatedError` when all have saved and ended.
    """
    command = [sys.executable, "-m", "components.train.processes", "--standalone", f"--nproc-per-node={count}"]
    command += [f"--shutdown-timeout={_SECONDS_TO_SAVE}", "-m", "components.train.node", order.dumps()]
    with StopSignals() as signals:
        running = subprocess.Popen(command)  # noqa: S603 - no shell
        while running.poll() is None and not signals.noted:
            time.sleep(POLL)
        if signals.noted == signal.SIGTERM:  # a terminal's Ctrl-C reaches them without us
            running.terminate()
        code = running.wait()
    if code and signals.noted:
        raise signals.error(signals.noted)
    if code:
        sys.exit(code)
    values: dict[str, float] = read_json(Path(order.output) / METRICS)
    return values


def torchrun(arguments: Sequence[str]) -> None:
    """torchrun, but without a traceback of its own, and with the exit code of the process that failed first."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.run(run.parse_args(arguments))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)  # as shells report a signal
    except SignalException as error:
        sys.exit(128 + error.sigval)


if __name__ == "__main__":
    torchrun(sys.argv[1:])
