"""A small Hub on the loopback interface, for the real `huggingface_hub` client, that fails when it is told to.

Speaks what a push and a download need of the Hub's HTTP API: creating a repository, its metadata and tree, pre-upload,
the LFS batch, upload and verify calls, commits (newline-delimited JSON), and `resolve` with single-range requests. The
status codes, headers and JSON fields are those that the client reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"
LFS_SUFFIXES = (".safetensors", ".png", ".bin")


@dataclass(frozen=True)
class Failure:
    """How a request fails: with a status, or by a connection that breaks before or after the work is done."""

    status: int = 0
    retry_after: int | None = None
    reset: bool = False
    reset_after_work: bool = False
    html: bool = False

    @property
    def name(self) -> str:
        return str(self.status) if self.status else "reset after work" if self.reset_after_work else "reset"


TRANSIENT = (
    Failure(status=500),
    Failure(status=503, html=True),
    Failure(status=429, retry_after=0),
    Failure(reset=True),
    Failure(reset_after_work=True),
)


def failing(share: float, seed: int) -> Callable[[str, str], Failure | None]:
    """A rule by which `share` of all requests fail, in one of the ways that pass by themselves."""
    randomness = random.Random(seed)
    lock = threading.Lock()

    def rule(method: str, path: str) -> Failure | None:
        with lock:
            return randomness.choice(TRANSIENT) if randomness.random() < share else None

    return rule


@dataclass
class Repository:
    """One repository: a line of commits, each a complete listing of names to contents."""

    private: bool
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)  # oid, message, files

    def commit(self, message: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{message}".encode()).hexdigest()
        self.commits.append((oid, message, files))
        return oid

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][2]

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision in ("main", "HEAD"):
            return self.head, self.files
        return next(((oid, files) for oid, _, files in self.commits if oid == revision), None)


class HubServer:
    """The server; use it as a context manager.

    Attributes
    ----------
    url : for HF_ENDPOINT
    repositories : by "organisation/name"
    writable : organisations that the token may create repositories in
    rule : asked for every request, gives how it fails or None
    requests, failures : counts by call, and by kind of failure
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.writable = {"lab"}
        self.rule: Callable[[str, str], Failure | None] = lambda method, path: None
        self.requests: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, private: bool = False, **files: bytes) -> Repository:
        """Make a repository as somebody else would have."""
        repository = self.repositories[name] = Repository(private)
        repository.commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n", **files})
        return repository


class _Handler(BaseHTTPRequestHandler):
    server_state: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def _serve(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._read_body()
        hub = self.server_state
        calls = [
            (call, match)
            for pattern, methods, call in _ROUTES
            if method in methods and (match := re.fullmatch(pattern, path))
        ]
        if not calls:
            self._answer(404, {"error": f"no such call: {method} {path}"})
            return
        call, match = calls[0]
        failure = hub.rule(method, path)
        with hub.lock:
            hub.requests[call] += 1
            if failure is not None:
                hub.failures[failure.name] += 1
        if failure is not None and not failure.reset_after_work:
            self._fail(failure)
            return
        with hub.lock:
            answer = getattr(self, f"_{call}")(body, *match.groups())
        if failure is not None:
            self._reset()
            return
        self._answer(*answer)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _fail(self, failure: Failure) -> None:
        if failure.reset:
            self._reset()
            return
        headers = {"Retry-After": str(failure.retry_after)} if failure.retry_after is not None else {}
        if failure.html:
            self._answer(failure.status, b"<html><body>bad gateway</body></html>", headers)
        else:
            self._answer(failure.status, {"error": f"injected failure {failure.status}"}, headers)

    def _reset(self) -> None:
        """Break the connection as a crashed server does: with a reset instead of a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if "Content-Length" not in (headers or {}):
                self.send_header("Content-Length", str(len(raw)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)
        except OSError:
            self.close_connection = True

    # ------------------------------------------------------------------ the calls; each gives status, content, headers

    def _authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _visible(self, name: str) -> Repository | None:
        repository = self.server_state.repositories.get(name)
        return None if repository is None or (repository.private and not self._authorised()) else repository

    def _not_found(self) -> tuple[int, object, dict[str, str]]:
        return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}

    def _unauthorised(self) -> tuple[int, object, dict[str, str]]:
        return 401, {"error": "Invalid credentials in Authorization header"}, {}

    def _create(self, body: bytes) -> tuple[int, object, dict[str, str]]:
        if not self._authorised():
            return self._unauthorised()
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] not in self.server_state.writable:
            return 403, {"error": f"You don't have the rights to create a model under the namespace {name}"}, {}
        url = f"{self.server_state.url}/{name}"
        if name in self.server_state.repositories:
            return 409, {"error": "You already created this model repo", "url": url}, {}
        # "visibility" is what clients of version 2 send, "private" what those before did.
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server_state.add(name, private)
        return 200, {"url": url, "name": name, "id": name}, {}

    def _info(self, body: bytes, name: str, _: str | None = None) -> tuple[int, object, dict[str, str]]:
        repository = self._visible(name)
        if repository is None:
            return self._not_found()
        siblings = [{"rfilename": path} for path in sorted(repository.files)]
        return (
            200,
            {"id": name, "modelId": name, "sha": repository.head, "private": repository.private, "siblings": siblings},
            {},
        )

    def _tree(self, body: bytes, name: str, revision: str) -> tuple[int, object, dict[str, str]]:
        repository = self._visible(name)
        found = repository.at(revision) if repository is not None else None
        if found is None:
            return self._not_found()
        listing = []
        for path, content in sorted(found[1].items()):
            entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
            if path.endswith(LFS_SUFFIXES):
                entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
            listing.append(entry)
        return 200, listing, {}

    def _validate(self, body: bytes) -> tuple[int, object, dict[str, str]]:
        content = json.loads(body)["content"]
        if not content.startswith("---\n"):
            return 200, {"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def _preupload(self, body: bytes, name: str, _: str) -> tuple[int, object, dict[str, str]]:
        if not self._authorised():
            return self._unauthorised()
        repository = self.server_state.repositories.get(name)
        if repository is None:
            return self._not_found()
        files = []
        for entry in json.loads(body)["files"]:
            lfs = entry["path"].endswith(LFS_SUFFIXES)
            present = repository.files.get(entry["path"])
            oid = None if present is None else _sha256(present) if lfs else _git_oid(present)
            mode = "lfs" if lfs else "regular"
            files.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": files}, {}

    def _lfs_batch(self, body: bytes, name: str) -> tuple[int, object, dict[str, str]]:
        if not self._authorised():
            return self._unauthorised()
        objects = []
        for entry in json.loads(body)["objects"]:
            answer = {"oid": entry["oid"], "size": entry["size"]}
            if entry["oid"] not in self.server_state.blobs:
                url = self.server_state.url
                answer["actions"] = {
                    "upload": {"href": f"{url}/lfs/{entry['oid']}", "header": {}},
                    "verify": {"href": f"{url}/lfs/verify", "header": {}},
                }
            objects.append(answer)
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _lfs_upload(self, body: bytes, oid: str) -> tuple[int, object, dict[str, str]]:
        if _sha256(body) != oid:
            return 400, {"error": "the content does not match its name"}, {}
        self.server_state.blobs[oid] = body
        return 200, {}, {}

    def _lfs_verify(self, body: bytes) -> tuple[int, object, dict[str, str]]:
        asked = json.loads(body)
        blob = self.server_state.blobs.get(asked["oid"])
        return (200, {}, {}) if blob is not None and len(blob) == asked["size"] else (404, {"error": "no blob"}, {})

    def _commit(self, body: bytes, name: str, _: str) -> tuple[int, object, dict[str, str]]:
        if not self._authorised():
            return self._unauthorised()
        repository = self.server_state.repositories.get(name)
        if repository is None:
            return self._not_found()
        files, message = dict(repository.files), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.server_state.blobs:
                    return 400, {"error": f"LFS object {value['oid']} was never uploaded"}, {}
                files[value["path"]] = self.server_state.blobs[value["oid"]]
            else:
                return 400, {"error": f"unknown operation {item['key']}"}, {}
        oid = repository.commit(message, files)
        url = f"{self.server_state.url}/{name}/commit/{oid}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}, {}

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> tuple[int, object, dict[str, str]]:
        repository = self._visible(name)
        found = repository.at(revision) if repository is not None else None
        if found is None:
            return self._not_found()
        oid, files = found
        if path not in files:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid}
        content = files[path]
        etag = _sha256(content) if path.endswith(LFS_SUFFIXES) else _git_oid(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return 200, content, {**headers, "Content-Length": str(len(content))}
        first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return 206, content[first : last + 1], headers


_KIND = "(?:models|datasets)"  # of one name there is one repository here
_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    (r"/api/repos/create", ("POST",), "create"),
    (r"/api/validate-yaml", ("POST",), "validate"),
    (rf"/api/{_KIND}/{_NAME}/preupload/([^/]+)", ("POST",), "preupload"),
    (rf"/api/{_KIND}/{_NAME}/commit/([^/]+)", ("POST",), "commit"),
    (rf"/api/{_KIND}/{_NAME}/tree/([^/]+)", ("GET",), "tree"),
    (rf"/api/{_KIND}/{_NAME}(?:/revision/([^/]+))?", ("GET",), "info"),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", ("POST",), "lfs_batch"),
    (r"/lfs/verify", ("POST",), "lfs_verify"),
    (r"/lfs/([0-9a-f]{64})", ("PUT",), "lfs_upload"),
    (rf"/(?:datasets/)?{_NAME}/resolve/([^/]+)/(.+)", ("GET", "HEAD"), "resolve"),
)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
