"""The state of a job in words: its pods in a line, and a failure with its events and logs."""

from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from components.launch.cluster import Cluster
from components.launch.logs import index
from mtlrank.errors import UserError

EVENTS, LINES = 10, 20


class TrainJobError(UserError):
    """A job that failed, was deleted by somebody else, or took too long."""

    exit_code = 8


def condition(job: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The condition of a job if it is met: `Complete` or `Failed`."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind and found["status"] == "True"), None)


def states(pods: list[Any]) -> str:
    """The state of the newest pod of each node, in a line."""
    newest = {index(pod): pod for pod in pods}
    words = [f"node {number} {_state(newest[number])}" for number in sorted(newest, key=_as_number)]
    return ", ".join(words) or "no pods"


def failure(cluster: Cluster, job: dict[str, Any], last: list[str]) -> str:
    """Why a job failed: its condition, the last events, and the last lines of the pods that failed."""
    name, why = job["metadata"]["name"], condition(job, "Failed") or {}
    parts = [f"TrainJob {name} failed: {why.get('reason', 'no reason')}: {why.get('message', '')}"]
    try:
        parts += _events(cluster, name)
        parts += _lines(cluster, name, last)
    except UserError as error:  # report the failure, even if its details cannot be read
        parts.append(str(error))
    parts.append(f"It is kept: kubectl -n {cluster.namespace} describe trainjob,jobset {name}")
    return "\n".join(parts)


def _events(cluster: Cluster, name: str) -> list[str]:
    found = cluster.events(name)[-EVENTS:]
    lines = [f"  {e.type} {e.involved_object.kind} {e.involved_object.name}: {e.reason}: {e.message}" for e in found]
    return ["Last events:", *lines] if lines else ["No events are left."]


def _lines(cluster: Cluster, name: str, last: list[str]) -> list[str]:
    """The last lines of each failed pod; if none can be read any more, those in `last`, which the first node wrote."""
    shown = []
    for pod in cluster.pods(name):
        if pod.status.phase == "Failed" or _exit_code(pod):
            try:
                lines = cluster.tail(pod.metadata.name, LINES)
            except (HTTPError, ApiException):
                continue
            shown += [f"Last lines of node {index(pod)} ({pod.metadata.name}):", *(f"  {line}" for line in lines)]
    if shown or not last:
        return shown
    return ["Last lines of the first node:", *(f"  {line}" for line in last[-LINES:])]


def _state(pod: Any) -> str:
    """A pod's phase, with the reason why it waits or failed."""
    waiting = [s.state.waiting for s in pod.status.container_statuses or [] if s.state and s.state.waiting]
    unmet = [c for c in pod.status.conditions or [] if c.status == "False" and c.reason == "Unschedulable"]
    why = [f"{w.reason}: {w.message or ''}" for w in waiting] or [f"{c.reason}: {c.message}" for c in unmet]
    code = _exit_code(pod)
    why += [f"exit code {code}"] if code else []
    return f"{pod.status.phase} ({'; '.join(why)})" if why else str(pod.status.phase)


def _exit_code(pod: Any) -> int:
    """The last exit code of the container that trains, if it is not 0; else 0."""
    for status in pod.status.container_statuses or []:
        for state in (status.state, status.last_state):
            if state and state.terminated and state.terminated.exit_code:
                return int(state.terminated.exit_code)
    return 0


def _as_number(text: str) -> int:
    return int(text) if text.isdigit() else -1
