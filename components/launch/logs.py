"""The log of the first node, copied to our stdout line by line: each line once, also if the stream breaks."""

import sys
import threading
import time
from collections import deque
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from components.launch.cluster import Cluster, reason
from mtlrank.errors import UserError
from mtlrank.progress import warn

WAIT = 5.0  # seconds until a stream that ended is opened again
KEPT = 30  # last lines, for the error of a job whose pods are gone
FIRST = "0"  # the node whose process 0 reports
_INDEX = "batch.kubernetes.io/job-completion-index"


class Seen:
    """Tells new lines from those that a stream repeats when it is opened again, by their times."""

    def __init__(self) -> None:
        self.pod = ""
        self._last = ("", "")
        self._at_last = 0  # lines with that time
        self._repeated = 0  # of these, the ones that a reopened stream repeats

    def reopen(self, pod: str) -> None:
        """Begin a stream: of the same pod, which repeats its lines, or of another."""
        if pod != self.pod:
            self.pod, self._last, self._at_last = pod, ("", ""), 0
        self._repeated = self._at_last

    def is_new(self, stamp: str) -> bool:
        """Whether a line with this time was not printed before."""
        whole, _, fraction = stamp.removesuffix("Z").partition(".")
        moment = (whole, fraction.ljust(9, "0"))
        if moment < self._last:
            return False
        if moment == self._last and self._repeated:
            self._repeated -= 1
            return False
        if moment > self._last:
            self._last, self._at_last, self._repeated = moment, 0, 0
        self._at_last += 1
        return True


class FirstNode(threading.Thread):
    """Follows the log of a job's first node, through restarts of the pod and of the connection."""

    def __init__(self, cluster: Cluster, job: str) -> None:
        super().__init__(daemon=True, name="log of the first node")
        self.last = deque[str](maxlen=KEPT)
        self._cluster, self._job, self._out = cluster, job, sys.stdout
        self._seen = Seen()
        self._finished = threading.Event()

    def run(self) -> None:
        """Print until the job has finished and the log was read to its end once more."""
        while True:
            is_last = self._finished.is_set()
            is_whole = self._read()
            if is_last and is_whole:
                return
            time.sleep(WAIT) if is_last else self._finished.wait(WAIT)

    def finish(self, seconds: float = 60.0) -> None:
        """Wait until the rest is printed, but not for ever."""
        self._finished.set()
        self.join(seconds)

    def _read(self) -> bool:
        """Print what is new; False if the connection broke."""
        try:
            pod = started(self._cluster.pods(self._job))
            if pod is None:
                return True
            self._seen.reopen(pod)
            for stamp, text in self._cluster.follow(pod):
                if self._seen.is_new(stamp):
                    self.last.append(text)
                    print(text, file=self._out, flush=True)
        except (HTTPError, ApiException, UserError) as error:
            said = " ".join(str(error).split()) if isinstance(error, UserError) else reason(error)
            warn(f"the log of the first node is interrupted ({said}); the job continues")
            return False
        return True


def started(pods: list[Any]) -> str | None:
    """The newest pod of the first node that has begun to write."""
    names = [pod.metadata.name for pod in pods if index(pod) == FIRST and pod.status.phase not in (None, "Pending")]
    return str(names[-1]) if names else None


def index(pod: Any) -> str:
    """Which node of the job a pod is."""
    return str((pod.metadata.labels or {}).get(_INDEX, "?"))
