"""A Hugging Face Hub on loopback: enough of its protocol for the real client to create, upload, commit and list.

Faults are served on request: `hub.fail("PUT", "/lfs/", times=2, status=503)`. Every request is written down.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "Secret" * 6
LARGE = (".safetensors", ".gguf")


@dataclass
class Fault:
    """What happens to requests of `method` whose path holds `part`, the next `times` times."""

    method: str
    part: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    cut_after: int | None = None  # bytes of the body that are read before the connection is closed


@dataclass
class Repository:
    private: bool
    files: dict[str, dict] = field(default_factory=dict)  # path -> an entry of the listing
    commits: list[str] = field(default_factory=list)


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.role = "write"
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.errors: list[BaseException | None] = []
        self.lock = threading.Lock()

    def fail(self, method: str, part: str, *, times: int = 1, **how: object) -> None:
        self.faults.append(Fault(method, part, times, **how))

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times and fault.method == method and fault.part in path:
                    fault.times -= 1
                    return fault
        return None

    def count(self, method: str, part: str) -> int:
        return sum(request.startswith(f"{method} ") and part in request for request in self.requests)

    def handle_error(self, request: object, client_address: object) -> None:
        """A line that breaks is what some tests are about; anything else is a fault of this server."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.errors.append(error)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self.serve(GET)

    def do_POST(self) -> None:
        self.serve(POST)

    def do_PUT(self) -> None:
        self.serve(PUT)

    def serve(self, routes: list) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.server.take_fault(self.command, path)
        if fault and fault.cut_after is not None:
            self.rfile.read(fault.cut_after)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault:
            self.answer(fault.status, {"error": fault.message}, fault.headers | {"X-Error-Message": fault.message})
            return
        if not path.startswith(OPEN) and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            # What a careless server might do: the client's error then holds the token it was given.
            message = f"Invalid credentials in Authorization header ({self.headers.get('Authorization')})"
            self.answer(401, {"error": message}, {"X-Error-Message": message})
            return
        for pattern, respond in routes:
            match = re.fullmatch(pattern, path)
            if match:
                respond(self, body, *match.groups())
                return
        self.answer(404, {"error": f"no such endpoint: {self.command} {path}"})

    def answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def repository(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        if found is None:
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return found


def who(handler: Handler, body: bytes) -> None:
    handler.answer(200, {"name": "tester", "type": "user", "auth": {"accessToken": {"role": handler.server.role}}})


def create_repository(handler: Handler, body: bytes) -> None:
    asked = json.loads(body)
    name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
    status = 409 if name in handler.server.repositories else 200
    handler.server.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
    handler.answer(status, {"url": f"{handler.server.url}/{name}", "name": name, "id": "0" * 24})


def show_repository(handler: Handler, body: bytes, name: str, revision: str | None = None) -> None:
    if found := handler.repository(name):
        shown = {"id": name, "_id": "0" * 24, "private": found.private, "sha": "1" * 40, "tags": [], "downloads": 0, "likes": 0}
        handler.answer(200, {**shown, "siblings": [{"rfilename": path} for path in found.files]})


def list_tree(handler: Handler, body: bytes, name: str) -> None:
    if found := handler.repository(name):
        handler.answer(200, [{"type": "file", "path": path, **entry} for path, entry in found.files.items()])


def say_how_to_upload(handler: Handler, body: bytes, name: str) -> None:
    if found := handler.repository(name):
        files = []
        for file in json.loads(body)["files"]:
            entry = found.files.get(file["path"], {})
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            oid = entry.get("lfs", {}).get("oid") if mode == "lfs" else entry.get("oid")
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        handler.answer(200, {"files": files})


def open_large_uploads(handler: Handler, body: bytes, name: str) -> None:
    objects = []
    for wanted in json.loads(body)["objects"]:
        here = wanted["oid"] in handler.server.objects
        actions = {} if here else {"actions": {"upload": {"href": f"{handler.server.url}/lfs/{wanted['oid']}"}}}
        objects.append({**wanted, **actions})
    handler.answer(200, {"transfer": "basic", "objects": objects})


def keep_large_file(handler: Handler, body: bytes, oid: str) -> None:
    if hashlib.sha256(body).hexdigest() != oid:
        handler.answer(400, {"error": "the body does not have that hash"})
        return
    handler.server.objects[oid] = body
    handler.answer(200, {})


def commit(handler: Handler, body: bytes, name: str) -> None:
    if not (found := handler.repository(name)):
        return
    for line in body.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        if operation["key"] == "header":
            found.commits.append(value["summary"])
        elif operation["key"] == "lfsFile":
            stored = handler.server.objects[value["oid"]]
            pointer = hashlib.sha1(value["oid"].encode()).hexdigest()
            lfs = {"oid": value["oid"], "size": len(stored), "pointerSize": 134}
            found.files[value["path"]] = {"size": len(stored), "oid": pointer, "lfs": lfs}
        elif operation["key"] == "file":
            content = base64.b64decode(value["content"])
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            handler.server.objects[oid] = content
            found.files[value["path"]] = {"size": len(content), "oid": oid}
    number = f"{len(found.commits):040x}"
    handler.answer(200, {"commitUrl": f"{handler.server.url}/{name}/commit/{number}", "commitOid": number})


def validate_card(handler: Handler, body: bytes) -> None:
    content = json.loads(body)["content"]
    errors = [] if content.startswith("---\n") else [{"message": "no metadata"}]
    handler.answer(400 if errors else 200, {"errors": errors, "warnings": []})


REPOSITORY = r"([\w.-]+/[\w.-]+)"
OPEN = ("/lfs/", "/api/agent-harnesses")  # asked without a token: signed addresses, and what the client asks for its user agent
GET = [
    (r"/api/agent-harnesses", lambda handler, body: handler.answer(200, {})),
    (r"/api/whoami-v2", who),
    (rf"/api/models/{REPOSITORY}/tree/main", list_tree),
    (rf"/api/models/{REPOSITORY}(?:/revision/(\w+))?", show_repository),
]
POST = [
    (r"/api/repos/create", create_repository),
    (r"/api/validate-yaml", validate_card),
    (rf"/api/models/{REPOSITORY}/preupload/main", say_how_to_upload),
    (rf"/{REPOSITORY}\.git/info/lfs/objects/batch", open_large_uploads),
    (rf"/api/models/{REPOSITORY}/commit/main", commit),
]
PUT = [(r"/lfs/([0-9a-f]{64})", keep_large_file)]


@contextmanager
def hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert server.errors == []
