"""The part of Google Cloud Storage's JSON API that the client uses, on this machine, with faults on demand.

It keeps generations, answers 412 where a precondition fails and 400 where a declared checksum is wrong, as the real
one does.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

PAGE = 3  # objects per page of a listing: few, so that every listing has pages


class Object(NamedTuple):
    name: str
    data: bytes
    generation: int
    metadata: dict[str, str]
    written: datetime

    @property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.Checksum(self.data).digest()).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()

    def resource(self) -> dict[str, object]:
        hashes = {"crc32c": self.crc32c, "md5Hash": self.md5}
        numbers = {"size": str(len(self.data)), "generation": str(self.generation)}
        times = {"timeCreated": f"{self.written:%Y-%m-%dT%H:%M:%S.%fZ}"}
        return {"name": self.name, "metadata": self.metadata, **hashes, **numbers, **times}


@dataclass
class Fault:
    pattern: str
    kind: str | int
    times: int
    after: int


@dataclass
class Session:
    """An upload in pieces."""

    described: dict
    query: dict[str, str]
    data: bytes = b""
    result: Object | None = None


class RefusalError(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass
class Bucket:
    """What is stored, and the rules for changing it."""

    objects: dict[str, Object] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    clock: int = 1000
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: str, query: dict[str, str]) -> Object:
        if name not in self.objects:
            raise RefusalError(404, f"No such object: bucket/{name}")
        self.check(name, query)
        return self.objects[name]

    def check(self, name: str, query: dict[str, str]) -> None:
        found = self.objects[name].generation if name in self.objects else 0
        if int(query.get("ifGenerationMatch", found)) != found:
            raise RefusalError(412, "At least one of the pre-conditions you specified did not hold.")

    def remove(self, name: str, query: dict[str, str]) -> None:
        with self.lock:
            self.get(name, query)
            del self.objects[name]

    def put(self, described: dict, data: bytes, query: dict[str, str]) -> Object:
        with self.lock:
            self.check(described["name"], query)
            self.clock += 1
            made = Object(described["name"], data, self.clock, described.get("metadata", {}), datetime.now(UTC))
            for key, found in (("crc32c", made.crc32c), ("md5Hash", made.md5)):
                if described.get(key, found) != found:
                    raise RefusalError(400, f"Provided {key} {described[key]} doesn't match calculated {found}.")
            self.objects[made.name] = made
            return made


class FakeServer(ThreadingHTTPServer):
    """One bucket called `bucket`, a log of what was asked, and a script of what goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bucket = Bucket()
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self.released = threading.Event()
        self.before: Callable[[str], None] = lambda request: None

    def handle_error(self, request, client_address) -> None:
        """Say nothing when a client hangs up; show anything else."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fail(self, pattern: str, kind: str | int, times: int = 1, after: int = 0) -> None:
        """Let requests whose `METHOD path?query range` contains the pattern fail: `times` of them, once `after` went well.

        Kinds: a status; `cut` ends the answer halfway; `corrupt` flips a byte of the content, on its way in or out;
        `lose` does the work and hangs up; `stall` says nothing until the client hangs up.
        """
        self.faults.append(Fault(pattern, kind, times, after))

    def next_fault(self, request: str) -> str | int | None:
        with self.bucket.lock:
            self.log.append(request)
            for fault in self.faults:
                if re.search(fault.pattern, request) and fault.times:
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault.kind
        return None

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.log)


class Handler(BaseHTTPRequestHandler):
    """Reads a request, does its work and answers, unless told to fail."""

    server: FakeServer
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: two would wait for each other
    disable_nagle_algorithm = True
    fault: str | int | None

    def answer_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = f"{self.command} {unquote(self.path)} {self.headers.get('range', '')}".strip()
        self.fault = self.server.next_fault(request)
        if self.fault == "stall":
            self.server.released.wait(20)
            self.close_connection = True
            return
        self.server.before(request)
        try:
            if isinstance(self.fault, int):
                raise RefusalError(self.fault, "told to fail")
            self.route(body)
        except RefusalError as refusal:
            self.send_json({"error": {"code": refusal.status, "message": str(refusal)}}, refusal.status)

    do_GET = do_POST = do_PUT = do_DELETE = answer_request  # noqa: N815

    def route(self, body: bytes) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        path = re.fullmatch(r"/(?:upload/|download/)?storage/v1/b/([^/]+)/o(?:/([^/]+))?", url.path)
        assert path, self.path
        if path[1] != "bucket":
            raise RefusalError(404, "The specified bucket does not exist.")
        if self.command == "GET" and path[2]:
            self.show(self.server.bucket.get(unquote(path[2]), query), query)
        elif self.command == "GET":
            self.list(query)
        elif self.command == "DELETE":
            self.server.bucket.remove(unquote(path[2]), query)
            self.send(204, b"", {})
        elif self.command == "PUT":
            self.continue_upload(body, query["upload_id"])
        elif query["uploadType"] == "multipart":
            self.upload(body, query)
        else:
            self.begin_upload(json.loads(body), query)

    def list(self, query: dict[str, str]) -> None:
        names = [name for name in sorted(self.server.bucket.objects) if name.startswith(query.get("prefix", ""))]
        names = [name for name in names if name > query.get("pageToken", "")]
        page = {"items": [self.server.bucket.objects[name].resource() for name in names[:PAGE]]}
        self.send_json({**page, "nextPageToken": names[PAGE - 1]} if len(names) > PAGE else page)

    def show(self, found: Object, query: dict[str, str]) -> None:
        if query.get("alt") != "media":
            return self.send_json(found.resource())
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        start = int(wanted[1]) if wanted else 0
        if wanted and start >= len(found.data):
            raise RefusalError(416, "Requested range not satisfiable")
        data = found.data[start:]
        if self.fault == "corrupt" and data:
            data = flip(data)
        hashes = {"x-goog-hash": f"crc32c={found.crc32c},md5={found.md5}", "x-goog-generation": str(found.generation)}
        return self.send(206 if wanted else 200, data, hashes)

    def upload(self, body: bytes, query: dict[str, str]) -> None:
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        parts = message_from_bytes(head).get_boundary("").encode()
        _, described, content, _ = body.split(b"--" + parts)
        data = content.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        data = flip(data) if self.fault == "corrupt" else data
        described = json.loads(described.split(b"\r\n\r\n", 1)[1])
        self.send_json(self.server.bucket.put(described, data, query).resource())

    def begin_upload(self, described: dict, query: dict[str, str]) -> None:
        self.server.bucket.check(described["name"], query)
        key = f"session{len(self.server.bucket.sessions)}"
        self.server.bucket.sessions[key] = Session(described, query)
        self.send(200, b"", {"location": f"{self.server.url}/upload/storage/v1/b/bucket/o?upload_id={key}"})

    def continue_upload(self, piece: bytes, key: str) -> None:
        if self.fault == "forget":
            self.server.bucket.sessions.pop(key)
        if key not in self.server.bucket.sessions:
            raise RefusalError(410, "This upload is no longer there")
        session = self.server.bucket.sessions[key]
        start, total = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", self.headers["content-range"]).groups()
        piece = piece[: len(piece) // 2] if self.fault == "keep part" else piece
        piece = flip(piece) if self.fault == "corrupt" else piece
        session.data = session.data[: int(start)] + piece
        if len(session.data) < int(total):
            return self.send(308, b"", {"range": f"bytes=0-{len(session.data) - 1}"})
        try:
            session.result = session.result or self.server.bucket.put(session.described, session.data, session.query)
        except RefusalError:
            self.server.bucket.sessions.pop(key)
            raise
        return self.send_json(session.result.resource())

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"content-type": "application/json"})

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        if self.fault == "lose":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.fault == "cut" else data)
        self.close_connection = self.close_connection or self.fault == "cut"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is for tests."""


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else b"?"
