"""A server on 127.0.0.1 that speaks the Hub's routes as far as huggingface_hub uses them, and misbehaves when told to.

``Hub`` answers the API and redirects large files to ``Storage``, another port and so another host for the client, as
the real Hub redirects to its storage. Every request is kept in a log with the bytes that were sent for it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef" * 2 + "01234567"
TOKEN = "hf_secret"
LARGE = (".safetensors", ".gguf", ".bin")


@dataclass(frozen=True)
class Request:
    """One request as the server saw it."""

    host: str  # "hub" or "storage"
    method: str
    path: str
    range: str | None
    token: str | None
    status: int
    sent: int  # bytes of the body

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass
class Reply:
    """What to answer instead of the right thing."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    ignores_range: bool = False  # the right file, whole
    cut_after: int | None = None  # the right bytes, but only so many, then the connection is closed
    wait: float = 0.0  # seconds before the answer
    drip: float = 0.0  # seconds after every four kilobytes of the right bytes
    other: int = 0  # a range that begins so many bytes later than asked


Rule = Callable[[str, str, int], "Reply | None"]  # host, path, how many requests of this path came before


def failing(part: str, reply: Reply, times: int = 10**9, host: str | None = None) -> Rule:
    """Answer the first ``times`` requests of every path that holds ``part`` with ``reply``."""

    def rule(where: str, path: str, before: int) -> Reply | None:
        return reply if part in path and before < times and host in (None, where) else None

    return rule


class Hub:
    """Repositories by name, each a folder; ``rules`` are asked in order before the right answer is given."""

    def __init__(self, repositories: Mapping[str, Path], *, private: bool = False, sizes: bool = True) -> None:
        self.repositories = dict(repositories)
        self.private, self.sizes = private, sizes
        self.rules: list[Rule] = []
        self._log: list[Request] = []
        self._busy = 0  # requests whose answer is being sent: a client may be done before the log knows
        self._seen: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._hub, self._storage = self._server("hub"), self._server("storage")

    def _server(self, host: str) -> ThreadingHTTPServer:
        hub = self

        class Bound(_Handler):
            here = host
            outer = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        server.daemon_threads = True
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._hub.server_address[1]}"

    @property
    def storage_url(self) -> str:
        return f"http://127.0.0.1:{self._storage.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Hub]:
        servers = (self._hub, self._storage)
        threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                thread.join()
                server.server_close()

    def reply(self, host: str, path: str) -> Reply | None:
        with self._lock:
            before = self._seen.get((host, path), 0)
            self._seen[host, path] = before + 1
        return next((found for rule in self.rules if (found := rule(host, path, before)) is not None), None)

    @property
    def log(self) -> list[Request]:
        """The requests in the order in which their answers were finished."""
        deadline = time.monotonic() + 5
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.005)
        return self._log

    def begin(self) -> None:
        with self._lock:
            self._busy += 1

    def note(self, request: Request) -> None:
        with self._lock:
            self._log.append(request)
            self._busy -= 1

    def wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def sent(self, suffix: str = "") -> int:
        """Bytes sent of files of this name's end."""
        return sum(request.sent for request in self.log if request.file.endswith(suffix))

    def requests(self, suffix: str = "", method: str = "GET") -> list[Request]:
        return [item for item in self.log if item.file.endswith(suffix) and item.method == method]

    def clear(self) -> None:
        self.log.clear()


class _Handler(BaseHTTPRequestHandler):
    here: str
    outer: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        self.outer.begin()
        self._sent, self._status = 0, 0
        path = unquote(urlsplit(self.path).path)
        reply = self.outer.reply(self.here, path)
        try:
            if reply is not None and reply.wait:
                self.outer.wait(reply.wait)
            if reply is not None and reply.status != 200:
                self._send(reply.status, reply.headers, reply.body if body else b"")
            elif self.here == "storage":
                self._storage(path, reply, body=body)
            else:
                self._hub(path, reply, body=body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            token = self.headers.get("authorization")
            request = Request(
                self.here, self.command, path, self.headers.get("range"), token, self._status, self._sent
            )  # fmt: skip
            self.outer.note(request)

    def _hub(self, path: str, reply: Reply | None, *, body: bool) -> None:
        name = next((name for name in self.outer.repositories if f"/{name}/" in f"{path}/"), None)
        if name is None or (self.outer.private and self.headers.get("authorization") != f"Bearer {TOKEN}"):
            self._error(401 if self.outer.private else 404, "RepoNotFound", body=body)
        elif path.startswith("/api/models/"):
            self._api(name, path.removeprefix(f"/api/models/{name}").strip("/").split("/"), body=body)
        else:
            revision, _, file = path.removeprefix(f"/{name}/resolve/").partition("/")
            self._resolve(name, revision, file, reply, body=body)

    def _api(self, name: str, parts: list[str], *, body: bool) -> None:
        files = self._files(name)
        if parts[0] == "tree":
            listed = [{"type": "file", "path": path, "size": size, "oid": "0" * 40} for path, size in files.items()]
            self._json(listed, body=body)
            return
        if parts[0] == "revision" and parts[1] not in ("main", "v1", COMMIT):
            self._error(404, "RevisionNotFound", body=body)
            return
        blobs = "blobs" in parse_qs(urlsplit(self.path).query) and self.outer.sizes
        siblings = [{"rfilename": path, **({"size": size} if blobs else {})} for path, size in files.items()]
        self._json({"id": name, "sha": COMMIT, "siblings": siblings, "private": self.outer.private}, body=body)

    def _files(self, name: str) -> dict[str, int]:
        folder = self.outer.repositories[name]
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}

    def _resolve(self, name: str, revision: str, file: str, reply: Reply | None, *, body: bool) -> None:
        if revision not in ("main", "v1", COMMIT):
            self._error(404, "RevisionNotFound", body=body)
        elif file not in self._files(name):
            self._error(404, "EntryNotFound", body=body)
        else:
            path = self.outer.repositories[name] / file
            common = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(file.encode()).hexdigest()}"'}
            if file.endswith(LARGE):
                linked = {"X-Linked-Size": str(path.stat().st_size), "X-Linked-ETag": common["ETag"]}
                address = f"{self.outer.storage_url}/signed/{name}/{file}"
                self._send(302, {**common, **linked, "Location": address}, b"")
            else:
                self._file(path, common, reply, body=body)

    def _storage(self, path: str, reply: Reply | None, *, body: bool) -> None:
        if self.headers.get("authorization"):  # as S3: a signed address and a token are one too many
            self._send(400, {}, b"only one auth mechanism allowed" if body else b"")
            return
        name = next(name for name in self.outer.repositories if path.startswith(f"/signed/{name}/"))
        file = path.removeprefix(f"/signed/{name}/")
        self._file(self.outer.repositories[name] / file, {}, reply, body=body)

    def _file(self, path: Path, headers: Mapping[str, str], reply: Reply | None, *, body: bool) -> None:
        size = path.stat().st_size
        begin, end, status = 0, size, 200
        asked = self.headers.get("range")
        more = {"Accept-Ranges": "bytes"}
        if asked and not (reply and reply.ignores_range):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end, status = int(first) + (reply.other if reply else 0), min(int(last) + 1, size), 206
            if begin >= size:
                self._send(416, {"Content-Range": f"bytes */{size}"}, b"")
                return
            more["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        with path.open("rb") as stream:
            stream.seek(begin)
            data = stream.read(min(end - begin, 1 << 24))
        if reply is not None and reply.cut_after is not None and body:
            self._send(status, {**headers, **more}, data[: reply.cut_after], length=end - begin)
            self.close_connection = True
            self.connection.close()
            return
        drip = reply.drip if reply else 0.0
        self._send(status, {**headers, **more}, data if body else b"", length=end - begin, drip=drip)

    def _json(self, value: Any, *, body: bool) -> None:
        data = json.dumps(value).encode()
        self._send(200, {"Content-Type": "application/json"}, data if body else b"", length=len(data))

    def _error(self, status: int, code: str, *, body: bool) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": code}, b"{}" if body else b"")

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes, *, length: int | None = None, drip: float = 0.0
    ) -> None:
        self._status = status
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        piece = 1 << 12 if drip else 1 << 16
        for start in range(0, len(body), piece):
            self.wfile.write(body[start : start + piece])
            self._sent += len(body[start : start + piece])
            if drip:
                self.wfile.flush()
                self.outer.wait(drip)
        self.wfile.flush()
