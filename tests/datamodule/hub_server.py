"""The part of the Hugging Face hub that files of datasets come from, on this machine: repositories with commits."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

REPOSITORY = "my-team/my-data"


class HubServer(ThreadingHTTPServer):
    """Serves `/datasets/OWNER/NAME/resolve/REVISION/PATH` and remembers what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits = {}  # (repository, commit): files by path
        self.branches = {}  # (repository, name): commit
        self.gated = set()
        self.is_hub = True  # False: answers as any other server
        self.asked = []  # HEAD and GET of files

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, files, branch="main", repository=REPOSITORY):
        """Put files on top of a branch; returns the commit."""
        before = self.commits.get((repository, self.branches.get((repository, branch))), {})
        after = {**before, **{path: text if isinstance(text, bytes) else text.encode() for path, text in files.items()}}
        name = hashlib.sha1(repr((repository, len(self.commits), sorted(after.items()))).encode()).hexdigest()
        self.commits[repository, name] = after
        self.branches[repository, branch] = name
        return name


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body):
        hub, parts = self.server, [unquote(part) for part in self.path.split("/", 6)]
        if parts[1] != "datasets":  # the client asks for other things too, that it can do without
            self._send(404, b"", {}, with_body)
            return
        hub.asked.append(self.command)
        _, _, owner, name, _, revision, path = parts
        repository = f"{owner}/{name}"
        known = {each for each, _ in hub.commits}
        commit = hub.branches.get((repository, revision), revision)
        files = hub.commits.get((repository, commit))
        if repository in hub.gated and "Authorization" not in self.headers:
            self._refuse(401, "GatedRepo", "Access to this dataset is restricted.", with_body)
        elif repository not in known:
            self._refuse(404, "RepoNotFound", "Repository not found", with_body)
        elif files is None:
            self._refuse(404, "RevisionNotFound", "Invalid rev id: no-such", with_body)
        elif path not in files:
            self._refuse(404, "EntryNotFound", "Entry not found", with_body, {"X-Repo-Commit": commit})
        else:
            etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
            self._send(200, files[path], {"ETag": etag, "X-Repo-Commit": commit} if hub.is_hub else {}, with_body)

    def _refuse(self, status, code, message, with_body, headers=None):
        told = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        self._send(status, json.dumps({"error": message}).encode(), told, with_body)

    def _send(self, status, body, headers, with_body):
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)
