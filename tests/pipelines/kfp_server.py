"""The part of Kubeflow Pipelines' v2beta1 API that we use, on this machine, with faults on demand.

It checks parameters as the real one does (backend/src/apiserver/template/v2_template.go): by the kind of the JSON value,
whatever is missing or too many, with its words and a 400.
"""

import json
import re
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

SILENCE = 3  # seconds
PAGE = 2  # things per page of a listing: few, so that every listing has pages
START = datetime(2026, 11, 24, 3, tzinfo=UTC)
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 503: 14}
KINDS = {
    "NUMBER_DOUBLE": ((int, float), "double or integer, but the parameter value is not of number value type"),
    "NUMBER_INTEGER": ((int, float), "double or integer, but the parameter value is not of number value type"),
    "STRING": (str, "string, but the input parameter is not of string value type"),
    "BOOLEAN": (bool, "bool, but the input parameter is not of bool value type"),
    "LIST": (list, "list, but the input parameter is not of list value type"),
    "STRUCT": (dict, "struct, but the input parameter is not of struct value type"),
}

Thing = dict[str, Any]
Look = tuple[str, dict[str, str]]  # the state of a run, and of its tasks by name


class RefusalError(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass
class Fault:
    pattern: str
    kind: str | int
    times: int


@dataclass
class Store:
    """What the server has, by id."""

    experiments: dict[str, Thing] = field(default_factory=dict)
    pipelines: dict[str, Thing] = field(default_factory=dict)
    versions: dict[str, Thing] = field(default_factory=dict)
    runs: dict[str, Thing] = field(default_factory=dict)
    recurring_runs: dict[str, Thing] = field(default_factory=dict)
    looks: dict[str, list[Look]] = field(default_factory=dict)


class FakeKubeflow(ThreadingHTTPServer):
    """A server without anything in it, a log of what was asked, and a script of what goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = Store()
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self.token: str | None = None
        self.multi_user = False
        self.words = "told to fail"  # what it says with a status that it was told to give
        self.course: list[Look] = [("SUCCEEDED", {})]  # what each look at a run to come will see
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fail(self, pattern: str, kind: str | int, times: int = 1) -> None:
        """Let requests whose `METHOD path` contains the pattern fail so many times.

        Kinds: a status; `drop` hangs up; `lose` does the work and hangs up; `silent` does the work and says nothing for
        a while; `page` answers with a page of HTML; `{}`, `[]`, `null` and the like answer with that and do nothing.
        """
        self.faults.append(Fault(pattern, kind, times))

    def next_fault(self, request: str) -> str | int | None:
        with self.lock:
            self.log.append(request)
            for fault in self.faults:
                if re.search(fault.pattern, request) and fault.times:
                    fault.times -= 1
                    return fault.kind
        return None

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.log)

    def only(self, kind: str) -> Thing:
        """The one run, schedule, pipeline ... that there must be."""
        (thing,) = getattr(self.store, kind).values()
        return thing

    # What is done; each gives the body of the answer.

    def page(self, kind: str, things: Iterable[Thing], query: dict[str, str]) -> Thing:
        wanted = matching(list(things), query.get("filter"))
        start = int(query.get("page_token") or 0)
        more = {"next_page_token": str(start + PAGE)} if len(wanted) > start + PAGE else {}
        return {kind: wanted[start : start + PAGE], "total_size": len(wanted), **more}

    def create_experiment(self, body: Thing) -> Thing:
        if self.multi_user and not body.get("namespace"):
            raise RefusalError(400, "Failed to create an experiment: Invalid input error: Namespace is empty")
        return add(self.store.experiments, "experiment_id", body)

    def create_pipeline(self, name: str, body: Thing) -> Thing:
        if any(pipeline["display_name"] == name for pipeline in self.store.pipelines.values()):
            raise RefusalError(409, f"Already exist error: The name {name} already exist.")
        return add(self.store.pipelines, "pipeline_id", {"name": name, **body, "display_name": name})

    def create_version(self, pipeline_id: str, name: str, text: bytes) -> Thing:
        if pipeline_id not in self.store.pipelines:
            raise RefusalError(400, "Failed to create a pipeline version")
        if any(version["display_name"] == name for version in self.versions_of(pipeline_id)):
            raise RefusalError(409, "Failed to create a pipeline version")
        spec = joined(list(yaml.safe_load_all(text)))
        parsed(spec)
        told = {"pipeline_id": pipeline_id, "name": name, "display_name": name, "pipeline_spec": spec}
        return add(self.store.versions, "pipeline_version_id", told)

    def versions_of(self, pipeline_id: str) -> list[Thing]:
        return [version for version in self.store.versions.values() if version["pipeline_id"] == pipeline_id]

    def create_run(self, body: Thing) -> Thing:
        self.check(body, "Failed to create a new run: Failed to generate the ExecutionSpec")
        run = add(self.store.runs, "run_id", {"state": "PENDING", **body})
        self.store.looks[run["run_id"]] = list(self.course)
        return run

    def look_at(self, run_id: str) -> Thing:
        """A run as it is now; the next look sees it a step further."""
        run = found(self.store.runs, run_id, "run")
        with self.lock:
            looks = self.store.looks[run_id]
            state, tasks = looks.pop(0) if len(looks) > 1 else looks[0]
        details = [task_detail(number, name, told) for number, (name, told) in enumerate(tasks.items())]
        ended = {"finished_at": time(3725)} if state in ("SUCCEEDED", "FAILED") else {}
        return {**run, "state": state, "run_details": {"task_details": details}, **ended}

    def create_recurring_run(self, body: Thing) -> Thing:
        self.check(body, "Failed to create a recurring run: Failed to create a recurring run during scheduled workflow")
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise RefusalError(400, "Invalid input error: The max concurrency of the recurring run is out of range.")
        cron = body["trigger"]["cron_schedule"]["cron"]
        if not 5 <= len(cron.split()) <= 6:
            raise RefusalError(400, f"Invalid input error: Schedule cron is not a supported format. Found {cron}")
        status = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        return add(self.store.recurring_runs, "recurring_run_id", {"status": status, **body})

    def check(self, body: Thing, wrapped: str) -> None:
        """Refuse parameters that the pipeline does not take."""
        found(self.store.experiments, body.get("experiment_id", ""), "experiment")
        spec = body.get("pipeline_spec")
        if spec is None:
            reference = body["pipeline_version_reference"]
            spec = found(self.store.versions, reference["pipeline_version_id"], "version")["pipeline_spec"]
        inputs = parsed(spec).root.input_definitions.parameters
        try:
            check_parameters(inputs, body.get("runtime_config", {}).get("parameters", {}))
        except RefusalError as refusal:
            raise RefusalError(400, f"{wrapped}: invalid pipeline job inputs: Invalid input error: {refusal}") from None


class Handler(BaseHTTPRequestHandler):
    """Reads a request, does its work and answers, unless told to fail."""

    server: FakeKubeflow
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: two would wait for each other
    disable_nagle_algorithm = True

    def answer_request(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.server.next_fault(f"{self.command} {unquote(self.path)}")
        if fault == "drop":
            self.close_connection = True
        elif isinstance(fault, str) and fault[0] in "{[n":
            self.send(200, fault.encode(), "application/json")
        elif fault == "page":
            self.send(200, b"<html>Please log in</html>", "text/html")
        else:
            status, body = self.result(content, fault)
            if fault == "silent":
                sleep(SILENCE)
            if fault in ("lose", "silent"):
                self.close_connection = True
            else:
                self.send(status, json.dumps(body).encode(), "application/json")

    do_GET = do_POST = do_DELETE = answer_request  # noqa: N815

    def result(self, content: bytes, fault: str | int | None) -> tuple[int, Thing]:
        try:
            if isinstance(fault, int):
                raise RefusalError(fault, self.server.words)
            if self.server.token and self.headers.get("authorization") != f"Bearer {self.server.token}":
                raise RefusalError(401, "Unauthenticated: there is no user identity header.")
            return 200, self.route(content)
        except RefusalError as refusal:
            details = {"@type": "type.googleapis.com/google.rpc.Status", "code": CODES.get(refusal.status, 2)}
            message = str(refusal)
            body = {"error": message, "code": details["code"], "message": message}
            return refusal.status, {**body, "details": [{**details, "message": message}]}

    def route(self, content: bytes) -> Thing:
        url = urlsplit(self.path)
        assert url.path.startswith("/apis/v2beta1/"), self.path
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        kind, *rest = url.path.removeprefix("/apis/v2beta1/").split("/")
        if kind == "healthz":
            return {"multi_user": self.server.multi_user}
        body = json.loads(content) if "json" in self.headers.get("content-type", "") and content else {}
        act = getattr(self, f"{self.command.lower()}_{kind}")
        return act(rest, query, body if body or not content else self.upload(content))

    def get_experiments(self, rest: list[str], query: dict[str, str], body: Thing) -> Thing:
        return self.server.page("experiments", self.server.store.experiments.values(), query)

    def post_experiments(self, rest: list[str], query: dict[str, str], body: Thing) -> Thing:
        return self.server.create_experiment(body)

    def get_pipelines(self, rest: list[str], query: dict[str, str], body: Thing) -> Thing:
        store = self.server.store
        match rest:
            case []:
                return self.server.page("pipelines", store.pipelines.values(), query)
            case [pipeline_id]:
                return found(store.pipelines, pipeline_id, "pipeline")
            case [pipeline_id, "versions"]:
                return self.server.page("pipeline_versions", self.server.versions_of(pipeline_id), query)
            case [_, "versions", version_id]:
                return found(store.versions, version_id, "pipeline version")
        raise RefusalError(404, "Not Found")

    def post_pipelines(self, rest: list[str], query: dict[str, str], body: Any) -> Thing:
        if rest == ["upload"]:  # with a first version that is called as the pipeline
            pipeline = self.server.create_pipeline(query["name"], {})
            self.server.create_version(pipeline["pipeline_id"], query["name"], body)
            return pipeline
        if rest == ["upload_version"]:
            return self.server.create_version(query["pipelineid"], query["name"], body)
        return self.server.create_pipeline(body.get("name") or body["display_name"], body)

    def get_runs(self, rest: list[str], query: dict[str, str], body: Thing) -> Thing:
        return self.server.look_at(rest[0])

    def post_runs(self, rest: list[str], query: dict[str, str], body: Thing) -> Thing:
        return self.server.create_run(body)

    def get_recurringruns(self, rest: list[str], query: dict[str, str], body: Thing) -> Thing:
        things = self.server.store.recurring_runs
        if rest:
            return found(things, rest[0], "recurring run")
        mine = [each for each in things.values() if query.get("experiment_id") in (None, each["experiment_id"])]
        return self.server.page("recurringRuns", mine, query)

    def post_recurringruns(self, rest: list[str], query: dict[str, str], body: Thing) -> Thing:
        if rest:
            name, _, verb = rest[0].partition(":")
            found(self.server.store.recurring_runs, name, "recurring run")["status"] = verb.upper() + "D"
            return {}
        return self.server.create_recurring_run(body)

    def delete_recurringruns(self, rest: list[str], query: dict[str, str], body: Thing) -> Thing:
        found(self.server.store.recurring_runs, rest[0], "recurring run")
        del self.server.store.recurring_runs[rest[0]]
        return {}

    def upload(self, content: bytes) -> bytes:
        """The file in a form."""
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        (part,) = message_from_bytes(head + content).get_payload()
        return part.get_payload(decode=True)

    def send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is for tests."""


def add(things: dict[str, Thing], key: str, body: Thing) -> Thing:
    made = {**body, key: str(uuid.uuid4()), "created_at": time(0)}
    things[made[key]] = made
    return made


def found(things: dict[str, Thing], key: str, what: str) -> Thing:
    if key not in things:
        raise RefusalError(404, f"Failed to fetch {what} {key}: ResourceNotFoundError: {what} {key} not found.")
    return things[key]


def matching(things: list[Thing], text: str | None) -> list[Thing]:
    for predicate in json.loads(text)["predicates"] if text else []:
        assert predicate["operation"] in (1, "EQUALS"), predicate
        things = [thing for thing in things if thing[predicate["key"]] == predicate["stringValue"]]
    return things


def joined(documents: list[Thing]) -> Thing:
    """As the server tells of a spec: alone, or with the platform's."""
    spec, *platform = documents
    return {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec


def parsed(spec: Thing) -> pipeline_spec_pb2.PipelineSpec:
    try:
        return json_format.ParseDict(spec.get("pipeline_spec", spec), pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise RefusalError(400, f"Invalid input error: invalid v2 pipeline spec: {error}") from error


def check_parameters(inputs: Any, values: Thing) -> None:
    for name, spec in inputs.items():
        if name not in values:
            if not spec.is_optional and not spec.HasField("default_value"):
                lacks = "has neither default value nor user provided value"
                raise RefusalError(400, f"parameter {name} is not optional, yet {lacks}")
            continue
        types, complaint = KINDS[pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(spec.parameter_type)]
        value = values[name]
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise RefusalError(400, f"input parameter {name} requires type {complaint}")
    if extra := [name for name in values if name not in inputs]:
        raise RefusalError(400, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")


def task_detail(number: int, name: str, told: str) -> Thing:
    """`told` is a state, or a state and what went wrong: `FAILED: out of memory`. A name may end in #2."""
    state, _, message = told.partition(": ")
    error = {"error": {"code": 13, "message": message}} if message else {}
    task = {"task_id": f"task-{name}", "display_name": name.partition("#")[0], "state": state}
    return {**task, "create_time": time(number), **error}


def time(seconds: int) -> str:
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
