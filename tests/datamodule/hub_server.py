"""The part of the Hugging Face hub that files of datasets come from, on this machine: repositories with commits."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = "my-team/my-data"


class HubServer(ThreadingHTTPServer):
    """Serves `/datasets/OWNER/NAME/resolve/REVISION/PATH`, commits and folders, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits = {}  # (repository, commit): files by path
        self.branches = {}  # (repository, name): commit
        self.gated = set()
        self.is_hub = True  # False: answers as any other server
        self.asked = []  # HEAD and GET of files, and what of the API
        self.page = 1000  # entries of a folder in an answer

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
        hub, url = self.server, urlsplit(self.path)
        is_api = url.path.startswith("/api/")
        parts = [unquote(part) for part in url.path.removeprefix("/api").split("/", 6)]
        if parts[1] != "datasets":  # the client asks for other things too, that it can do without
            self._send(404, b"", {}, with_body)
            return
        _, _, owner, name, what, revision, path = [*parts, "revision", "main", ""][:7] if is_api else parts
        path = path if len(parts) == 7 else ""
        hub.asked.append(what if is_api else self.command)
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
        elif is_api and what == "revision":
            self._send(200, json.dumps({"id": repository, "sha": commit}).encode(), {}, with_body)
        elif is_api and path and not any(file.startswith(f"{path}/") for file in files):
            self._refuse(404, "EntryNotFound", "Entry not found", with_body)
        elif is_api:
            self._list(files, path, int(parse_qs(url.query).get("from", ["0"])[0]), with_body)
        elif path not in files:
            self._refuse(404, "EntryNotFound", "Entry not found", with_body, {"X-Repo-Commit": commit})
        else:
            etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
            self._send(200, files[path], {"ETag": etag, "X-Repo-Commit": commit} if hub.is_hub else {}, with_body)

    def _list(self, files, folder, first, with_body):
        """A page of what a folder holds, with the address of the next one."""
        start = f"{folder}/" if folder else ""
        below = sorted(file.removeprefix(start) for file in files if file.startswith(start))
        names = list(dict.fromkeys(name.partition("/")[0] for name in below))
        entries = [
            {
                "type": "file" if name in below else "directory",
                "path": f"{folder}/{name}".lstrip("/"),
                "oid": "0",
                "size": 1,
            }
            for name in names[first : first + self.server.page]
        ]
        after = first + self.server.page
        more = {"Link": f'<{self.server.url}{urlsplit(self.path).path}?from={after}>; rel="next"'}
        self._send(200, json.dumps(entries).encode(), more if after < len(names) else {}, with_body)

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
