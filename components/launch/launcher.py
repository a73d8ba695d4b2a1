"""Run one TrainJob to its end: create or adopt it, wait, show what the first node says, and leave nothing running.

A job is kept when it has ended, well or badly, so that people can look at it; it belongs to the pipeline's workflow and
goes with it. It is deleted when the step is cancelled (SIGTERM) and has the time, when it has taken too long, and when a
retry of the step finds one that failed. If only the connection is lost it continues, and a retry adopts it.
"""

import json
import signal
import threading
import time
from typing import Any

from components.launch.cluster import Cluster
from components.launch.job_state import TrainJobError, condition, failure, states
from components.launch.logs import FirstNode
from components.launch.trainjob import RUN, SPEC, Nodes, check_shared, trainjob
from components.train.order import Order
from mtlrank.about import METRICS
from mtlrank.composing.compose import pipeline_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import SigTerm
from mtlrank.progress import say
from mtlrank.storage import join, read_bytes

POLL = 10.0  # seconds between two looks at the job
LATE = 600.0  # seconds past the deadline after which the launcher stops a job that the cluster did not stop
GRACE = 20.0  # seconds to wait for a request that creates the job, of the 30 that Kubernetes gives a pod to end


def run(order: Order, nodes: Nodes, run: str, image: str) -> dict[str, float]:
    """Train `order` on `nodes` and return its metrics. Raises `TrainJobError` if the job fails."""
    check_shared({"the datasets": order.datasets, "the model": [order.output], "checkpoints": [order.checkpoints]})
    select_tasks(pipeline_config(order.settings, order.overrides))  # mistakes show here, before a GPU is asked for
    supervise(Cluster.connect(), trainjob(order, nodes, run, image), nodes.deadline_hours * 3600 + LATE)
    metrics: dict[str, float] = json.loads(read_bytes(join(order.output, METRICS)))
    return metrics


def supervise(cluster: Cluster, job: dict[str, Any], seconds: float) -> None:
    """Run a job to its end, in at most `seconds`. Raises `TrainJobError` if it does not complete.

    A signal raises its error anywhere in this thread. Raised during a request, it would leave a lock of the HTTP client
    taken for ever. So another thread sends the requests, and this one only waits.
    """
    supervision = _Supervision(cluster, job, seconds)
    try:
        supervision.start()
        while supervision.is_alive():
            supervision.join(0.1)  # a signal that comes just before a wait begins does not end it
    except (SigTerm, KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is left to do takes a second
        supervision.cancel()
        remove(Cluster.connect(), job)
        raise
    if supervision.error is not None:
        raise supervision.error


class _Supervision(threading.Thread):
    """Creates a job and waits for its end. `error` is what it ended with."""

    def __init__(self, cluster: Cluster, job: dict[str, Any], seconds: float) -> None:
        super().__init__(daemon=True, name="supervision of the job")
        self.error: BaseException | None = None
        self._cluster, self._job, self._seconds = cluster, job, seconds
        self._has_begun, self._is_cancelled = threading.Event(), threading.Event()

    def run(self) -> None:
        try:
            begin(self._cluster, self._job, self._is_cancelled)
            self._has_begun.set()
            wait(self._cluster, self._job, self._seconds)
        except BaseException as error:
            self.error = error
        finally:
            self._has_begun.set()

    def cancel(self) -> None:
        """Create nothing from now on, and wait until a job that is being created exists."""
        self._is_cancelled.set()
        self._has_begun.wait(GRACE)


def begin(cluster: Cluster, job: dict[str, Any], is_cancelled: threading.Event) -> None:
    """Create the job, or adopt the one that an earlier attempt of this step created.

    A failed one of this run is replaced, even if this attempt asks for something else, such as another output.
    """
    name, owner = job["metadata"]["name"], cluster.owner()
    owned = {**job, "metadata": {**job["metadata"], **({"ownerReferences": [owner]} if owner else {})}}
    latest = time.monotonic() + LATE
    if is_cancelled.is_set():
        return
    while not cluster.create(owned):
        found = cluster.read(name)
        if found is None:
            continue
        has_failed, is_leaving = condition(found, "Failed"), "deletionTimestamp" in found["metadata"]
        if not (has_failed and _is_of_run(found, job)):
            _check_ours(found, job)
        if not has_failed and not is_leaving:
            say(f"adopting TrainJob {name}, which an earlier attempt of this step created")
            return
        if time.monotonic() > latest:
            raise TrainJobError(f"TrainJob {name} of an earlier attempt cannot be deleted. Delete it with kubectl.")
        if not is_leaving:
            say(
                f"TrainJob {name} of an earlier attempt failed: creating it again, to continue from its last checkpoint"
            )
            cluster.delete(found)
        if is_cancelled.wait(min(POLL, 2.0)):
            return
    say(f"created TrainJob {name}: kubectl -n {cluster.namespace} get trainjob {name}")


def wait(cluster: Cluster, job: dict[str, Any], seconds: float) -> None:
    """Wait until the job is complete. Raises `TrainJobError` if it fails, is deleted, or takes more than `seconds`."""
    log = FirstNode(cluster, job["metadata"]["name"])
    log.start()
    try:
        _watch(cluster, job, log, seconds)
    finally:
        log.finish(0)


def _watch(cluster: Cluster, job: dict[str, Any], log: FirstNode, seconds: float) -> None:
    name, latest, shown = job["metadata"]["name"], time.monotonic() + seconds, ""
    while True:
        found = cluster.read(name)
        if found is None or not is_ours(found, job):
            raise TrainJobError(f"TrainJob {name} was deleted by someone while it ran. A retry creates it again.")
        if condition(found, "Complete"):
            log.finish()
            say(f"TrainJob {name} is complete")
            return
        if condition(found, "Failed"):
            log.finish()
            raise TrainJobError(failure(cluster, found, list(log.last)))
        if (now := states(cluster.pods(name))) != shown:
            say(now)
            shown = now
        if time.monotonic() > latest:
            cluster.delete(found)
            raise TrainJobError(
                f"TrainJob {name} did not finish in {seconds / 3600:.1f} hours ({shown}) and was deleted. Its checkpoints "
                "are kept: with a larger deadline_hours, the same parameters continue from there."
            )
        time.sleep(POLL)


def remove(cluster: Cluster, job: dict[str, Any]) -> None:
    """Delete the job if it is there and ours, so that a cancelled run holds no GPUs."""
    found = cluster.read(job["metadata"]["name"])
    if found is not None and is_ours(found, job):
        cluster.delete(found)
        say(f"deleted TrainJob {job['metadata']['name']}")


def is_ours(found: dict[str, Any], job: dict[str, Any]) -> bool:
    """Whether a job of the same name was created by this run, with the same spec."""
    return _labels(found).get(SPEC) == job["metadata"]["labels"][SPEC] and _is_of_run(found, job)


def _is_of_run(found: dict[str, Any], job: dict[str, Any]) -> bool:
    return bool(_labels(found).get(RUN) == job["metadata"]["labels"][RUN])


def _labels(found: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = found["metadata"].get("labels") or {}
    return labels


def _check_ours(found: dict[str, Any], job: dict[str, Any]) -> None:
    if not is_ours(found, job):
        name, labels = job["metadata"]["name"], _labels(found)
        difference = "has other settings" if _is_of_run(found, job) else "belongs to another run"
        raise TrainJobError(
            f"TrainJob {name} exists already and {difference}: expected the label {SPEC}="
            f"{job['metadata']['labels'][SPEC]}, found {labels.get(SPEC, 'none')}. If it is not needed any more: kubectl "
            f"delete trainjob {name}"
        )
