"""The few requests that the launcher sends to a Kubernetes API server. It retries while the server is unavailable."""

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from components.launch.trainjob import GROUP, NODE, PLURAL, VERSION
from mtlrank.errors import ConfigError, ResourceError
from mtlrank.progress import warn

PATIENCE = 900.0  # seconds without an answer: an upgrade of a zonal control plane takes minutes
LONGEST_WAIT = 15.0  # seconds between two tries
SILENCE = 60.0  # seconds without a byte after which a connection counts as cut
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PASSING = {408, 429, 500, 502, 503, 504}

T = TypeVar("T")


class Cluster:
    """One namespace of a cluster, as the pod's service account sees it, or a person's kubeconfig outside of a pod."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self._jobs = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)

    @classmethod
    def connect(cls) -> "Cluster":
        """The cluster that this process runs in, or that `$KUBECONFIG` names."""
        settings = client.Configuration()
        settings.retries = False  # we have our own
        try:
            if _NAMESPACE.exists():
                config.load_incluster_config(client_configuration=settings)
                namespace = _NAMESPACE.read_text().strip()
            else:
                file = os.environ.get("KUBECONFIG")
                config.load_kube_config(file, client_configuration=settings)
                namespace = config.list_kube_config_contexts(file)[1]["context"].get("namespace", "default")
        except config.ConfigException as error:
            raise ConfigError(f"No Kubernetes cluster: {error} Run it in a pod, or set KUBECONFIG.") from error
        return cls(client.ApiClient(settings), namespace)

    def create(self, job: dict[str, Any]) -> bool:
        """Create a job; False if there is one of its name."""
        try:
            self._ask("create a TrainJob", self._jobs.create_namespaced_custom_object, *self._where(), job)
        except client.ApiException as error:
            if error.status == 409:
                return False
            raise ConfigError(
                "The cluster has no TrainJobs: install Kubeflow Trainer v2.2 or later (docs/kubernetes.md)."
            ) from error
        return True

    def read(self, name: str) -> dict[str, Any] | None:
        """A job with its status; None if there is none."""
        try:
            job = self._ask("read the TrainJob", self._jobs.get_namespaced_custom_object, *self._where(), name)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return dict(job)

    def delete(self, job: dict[str, Any]) -> None:
        """Delete exactly this job, with its pods. One that is gone, or another of its name, is left alone."""
        only = client.V1DeleteOptions(
            preconditions=client.V1Preconditions(uid=job["metadata"]["uid"]), propagation_policy="Background"
        )
        name = job["metadata"]["name"]
        try:
            self._ask(
                "delete the TrainJob", self._jobs.delete_namespaced_custom_object, *self._where(), name, body=only
            )
        except client.ApiException as error:
            if error.status not in (404, 409):
                raise

    def pods(self, job: str) -> list[Any]:
        """The pods of a job that train, oldest first."""
        labels = f"jobset.sigs.k8s.io/jobset-name={job},jobset.sigs.k8s.io/replicatedjob-name={NODE}"
        found = self._ask("list pods", self._core.list_namespaced_pod, self.namespace, label_selector=labels)
        return sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)

    def events(self, job: str) -> list[Any]:
        """The events of a job and of its pods, oldest first."""
        found = self._ask("list events", self._core.list_namespaced_event, self.namespace).items
        ours = [event for event in found if f"{event.involved_object.name}-".startswith(f"{job}-")]
        return sorted(ours, key=lambda event: str(event.last_timestamp or event.event_time))

    def tail(self, pod: str, lines: int) -> list[str]:
        """The last lines that a pod wrote."""
        answer = self._core.read_namespaced_pod_log(
            pod,
            self.namespace,
            container=NODE,
            tail_lines=lines,
            _preload_content=False,  # else the client parses a log that looks like JSON
            _request_timeout=SILENCE,
        )
        return str(answer.data.decode(errors="replace")).splitlines()

    def follow(self, pod: str) -> Iterator[tuple[str, str]]:
        """(time, text) of each line that a pod has written and writes, until it ends or the connection does."""
        answer = self._core.read_namespaced_pod_log(
            pod,
            self.namespace,
            container=NODE,
            follow=True,
            timestamps=True,
            _preload_content=False,
            _request_timeout=(SILENCE, 5 * SILENCE),
        )
        try:
            for line in answer:
                stamp, _, text = line.decode(errors="replace").rstrip("\n").partition(" ")
                yield stamp, text
        finally:
            answer.close()

    def owner(self) -> dict[str, Any] | None:
        """The workflow of the launcher's own pod, with which its jobs are deleted. None outside of a pipeline."""
        pod = os.environ.get("KFP_POD_NAME")
        if not pod:
            return None
        found = self._ask("read the launcher's pod", self._core.read_namespaced_pod, pod, self.namespace)
        for owner in found.metadata.owner_references or []:
            if owner.kind == "Workflow":
                return {"apiVersion": owner.api_version, "kind": "Workflow", "name": owner.name, "uid": owner.uid}
        return None

    def _where(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    def _ask(self, what: str, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Send a request, and again while the server cannot be reached or has a passing error."""
        start, tries = time.monotonic(), 0
        while True:
            try:
                return call(*arguments, **named, _request_timeout=SILENCE)
            except (HTTPError, client.ApiException) as error:
                if isinstance(error, client.ApiException) and error.status not in _PASSING:
                    if error.status in (404, 409):
                        raise
                    raise ConfigError(_refusal(what, error)) from error
                tries += 1
                wait = random.uniform(0.5, 1) * min(LONGEST_WAIT, 0.5 * 2 ** min(tries, 10))
                if time.monotonic() + wait > start + PATIENCE:
                    raise ResourceError(
                        f"Cannot {what}: no answer from Kubernetes for {PATIENCE:g} s, last error: {reason(error)}. A job "
                        "that was started continues; a retry of this step finds it."
                    ) from error
                if tries == 1:
                    warn(f"cannot {what} now ({reason(error)}): retrying")
                time.sleep(wait)


def reason(error: Exception) -> str:
    """An error of the connection or the server in a few words."""
    if isinstance(error, client.ApiException):
        return f"{error.status} {message(error)}"
    return type(error).__name__


def message(error: client.ApiException) -> str:
    """What the server said, without its headers."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def _refusal(what: str, error: client.ApiException) -> str:
    said = f"Kubernetes refuses to {what}: {message(error)}."
    if error.status in (401, 403):
        return f"{said} Has pipelines/manifests been applied, and does the run use its service account?"
    return said
