"""The part of a Kubernetes API server that the launcher uses, on this machine, with a script of what happens to jobs.

It answers 409 for a name that is taken and for a deletion whose precondition fails, as the real one does; it selects pods
by all their labels, and repeats a log from its beginning whenever it is asked for.
"""

import json
import re
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

JOBS = r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/ns/trainjobs"
CORE = r"/api/v1/namespaces/ns"


class Fault:
    """Requests that match fail `times` times: with a status, or `cut` in the middle of the answer."""

    def __init__(self, pattern, kind, times):
        self.pattern, self.kind, self.times = pattern, kind, times


class KubeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs, self.pods, self.events, self.logs = {}, {}, [], {}
        self.log, self.bodies, self.faults = [], [], []
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.is_down = False
        self.count = 0

    def handle_error(self, request, client_address):
        """Say nothing when a client hangs up; show anything else."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def kubeconfig(self, path):
        """A kubeconfig that leads here."""
        cluster = {"name": "here", "cluster": {"server": self.url}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "ns"}}
        user = {"name": "me", "user": {"token": "secret"}}
        lists = {"clusters": [cluster], "contexts": [context], "users": [user]}
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "here", **lists}))
        return str(path)

    def fail(self, pattern, kind, times=1):
        self.faults.append(Fault(pattern, kind, times))

    def asked(self, pattern):
        return sum(bool(re.search(pattern, request)) for request in self.log)

    def wait_for(self, pattern, times=1):
        """Until requests that match have come."""
        with self.news:
            assert self.news.wait_for(lambda: self.asked(pattern) >= times, timeout=120), (pattern, self.log)

    # -- what happens in the cluster ------------------------------------------------------------------------------------

    def store(self, job):
        with self.news:
            self.count += 1
            made = {**job, "status": {}}
            made["metadata"] = {**job["metadata"], "uid": f"uid-{self.count}", "namespace": "ns"}
            self.jobs[job["metadata"]["name"]] = made
            self.news.notify_all()
            return made

    def pod(self, job, node, phase="Running", suffix="aaaaa", **status):
        """A pod of a job's node, as JobSet labels it."""
        name = f"{job}-node-0-{node}-{suffix}"
        labels = {
            "jobset.sigs.k8s.io/jobset-name": job,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(node),
        }
        with self.news:
            known = self.pods.get(name, {}).get("metadata", {}).get("creationTimestamp")
            metadata = {"name": name, "labels": labels, "creationTimestamp": known or now()}
            spec = {"containers": [{"name": "node"}]}
            self.pods[name] = {"metadata": metadata, "spec": spec, "status": {"phase": phase, **status}}
            self.logs.setdefault(name, ([], threading.Event()))
        return name

    def write(self, pod, *texts, stamp=None):
        """Lines of a pod's log."""
        with self.news:
            for text in texts:
                self.logs[pod][0].append(f"{stamp or now(nano=True)} {text}\n")
            self.news.notify_all()

    def end_log(self, pod):
        with self.news:
            self.logs[pod][1].set()
            self.news.notify_all()

    def finish(self, job, kind, reason="", message=""):
        """The job's condition turns true, and its pods' logs end."""
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        with self.news:
            assert self.news.wait_for(lambda: job in self.jobs, timeout=120)
            for pod in self.logs:
                self.end_log(pod)
            self.jobs[job]["status"] = {"conditions": [condition]}

    def note(self, name, reason, message, kind="Pod"):
        """An event."""
        involved = {"kind": kind, "name": name, "namespace": "ns"}
        event = {"metadata": {"name": f"e{len(self.events)}"}, "involvedObject": involved, "lastTimestamp": now()}
        self.events.append({**event, "type": "Warning", "reason": reason, "message": message})

    def break_streams(self):
        """Cut all logs that are being followed, and refuse connections until `mend`."""
        with self.news:
            self.is_down = True
            self.news.notify_all()

    def mend(self):
        self.is_down = False


class Handler(BaseHTTPRequestHandler):
    server: KubeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer_request(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        request = f"{self.command} {unquote(self.path)}"
        with self.server.news:
            self.server.log.append(request)
            self.server.news.notify_all()
            fault = next((f for f in self.server.faults if f.times and re.search(f.pattern, request)), None)
            if fault:
                fault.times -= 1
        if self.server.is_down or (fault and fault.kind == "cut"):
            self.close_connection = True
        elif fault and fault.kind == "lose":
            self.route(body, answer=False)
            self.close_connection = True
        elif fault:
            self.refuse(fault.kind, "told to fail")
        else:
            self.route(body)

    do_GET = do_POST = do_DELETE = answer_request  # noqa: N815

    def route(self, body, answer=True):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        value = json.loads(body) if body else None
        self.is_silent = not answer
        for command, pattern, work in ROUTES:
            found = re.fullmatch(pattern, url.path)
            if found and self.command == command:
                return work(self, *found.groups(), **({"query": query} if command == "GET" else {"value": value}))
        return self.refuse(404, f"the server could not find the requested resource {self.path}")

    def create_job(self, value):
        self.server.bodies.append(value)
        name = value["metadata"]["name"]
        with self.server.lock:
            if name in self.server.jobs:
                return self.refuse(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
            return self.send(self.server.store(value), 201)

    def read_job(self, name, query):
        if name not in self.server.jobs:
            return self.refuse(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        return self.send(self.server.jobs[name])

    def delete_job(self, name, value):
        with self.server.lock:
            if name not in self.server.jobs:
                return self.refuse(404, "not found")
            if self.server.jobs[name]["metadata"]["uid"] != value["preconditions"]["uid"]:
                return self.refuse(409, "the UID in the precondition does not match")
            del self.server.jobs[name]
            return self.send({"kind": "Status", "status": "Success"})

    def list_pods(self, query):
        wanted = dict(pair.split("=") for pair in query["labelSelector"].split(","))
        pods = [pod for pod in self.server.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]
        return self.send({"kind": "PodList", "items": pods})

    def read_pod(self, name, query):
        return self.send(self.server.pods[name]) if name in self.server.pods else self.refuse(404, "no such pod")

    def list_events(self, query):
        return self.send({"kind": "EventList", "items": self.server.events})

    def read_log(self, name, query):
        assert query["container"] == "node"
        lines, ended = self.server.logs[name]
        stamped = query.get("timestamps") == "True"
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if "tailLines" in query:
            self.chunk("".join(lines[-int(query["tailLines"]) :]), stamped)
        sent = len(lines) if "tailLines" in query else 0
        while query.get("follow") == "True":
            with self.server.news:
                self.server.news.wait_for(
                    lambda sent=sent: len(lines) > sent or ended.is_set() or self.server.is_down, 120
                )
                more, is_over = lines[sent:], ended.is_set()
            if self.server.is_down:
                self.close_connection = True
                return None
            self.chunk("".join(more), stamped)
            sent += len(more)
            if is_over:
                break
        return self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text, stamped):
        lines = text.splitlines(keepends=True)
        data = "".join(line if stamped else line.partition(" ")[2] for line in lines).encode()
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def refuse(self, status, message):
        self.send({"kind": "Status", "status": "Failure", "message": message, "code": status}, status)

    def send(self, value, status=200):
        if getattr(self, "is_silent", False):
            return
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        """Say nothing: the log is for tests."""


ROUTES = [
    ("POST", JOBS, Handler.create_job),
    ("GET", rf"{JOBS}/([^/]+)", Handler.read_job),
    ("DELETE", rf"{JOBS}/([^/]+)", Handler.delete_job),
    ("GET", rf"{CORE}/pods", Handler.list_pods),
    ("GET", rf"{CORE}/pods/([^/]+)", Handler.read_pod),
    ("GET", rf"{CORE}/pods/([^/]+)/log", Handler.read_log),
    ("GET", rf"{CORE}/events", Handler.list_events),
]


def now(*, nano=False):
    """The time as Kubernetes writes it; in logs to the nanosecond."""
    moment = time.time_ns()
    whole = datetime.fromtimestamp(moment // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{moment % 10**9:09d}Z" if nano else f"{whole}Z"
