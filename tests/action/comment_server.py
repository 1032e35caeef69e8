"""A server on 127.0.0.1 that answers as GitHub's API does about comments, and misbehaves when told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

TOKEN = "ghs_" + "S3cr3tS3cr3tS3cr3t"
REPOSITORY = "team/models"
US = {"login": "github-actions[bot]", "id": 41898282, "type": "Bot"}
PERSON = {"login": "mallory", "id": 666, "type": "User"}


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    token: str | None
    body: Any


@dataclass
class Fault:
    """What to answer instead of the right thing, to requests with this method whose path ends so."""

    method: str
    end: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"message": "no"}'
    times: int = 10**9
    wait: float = 0.0  # seconds before the answer
    drip: float = 0.0  # seconds after each byte of the answer
    cut: bool = False  # close the connection without any answer


class GitHub:
    """One repository's comments by pull request, and its open pull requests; ``viewer`` is whose token it is."""

    def __init__(self) -> None:
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.pulls: list[dict[str, Any]] = []
        self.viewer: Mapping[str, Any] = US
        self.faults: list[Fault] = []
        self.log: list[Asked] = []
        self.page = 100
        self.number = 1000
        self.stop = threading.Event()
        self.before_create: Any = None  # called once, as another job would come in between
        github = self

        class Bound(_Handler):
            outer = github

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[GitHub]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            self.server.shutdown()
            thread.join()
            self.server.server_close()

    def add(self, pull: int, body: str, user: Mapping[str, Any] | None = US) -> dict[str, Any]:
        self.number += 1
        made = {"id": self.number, "body": body, "user": user, "performed_via_github_app": None}
        self.comments.setdefault(pull, []).append(made)
        return made

    def written(self) -> list[tuple[str, str]]:
        """Every request that changes something."""
        return [(asked.method, asked.path) for asked in self.log if asked.method in ("PATCH", "DELETE")] + [
            (asked.method, asked.path) for asked in self.log if asked.method == "POST" and "graphql" not in asked.path
        ]


class _Handler(BaseHTTPRequestHandler):
    outer: GitHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - as the library calls them

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        asked = Asked(self.command, parts.path, parse_qs(parts.query), self.headers.get("Authorization"), body)
        self.outer.log.append(asked)
        for fault in self.outer.faults:
            if fault.method == asked.method and asked.path.endswith(fault.end) and fault.times > 0:
                fault.times -= 1
                self._misbehave(fault)
                return
        if asked.token != f"Bearer {TOKEN}":
            self._json(401, {"message": "Bad credentials"})
        elif asked.path.endswith("/graphql"):
            viewer = self.outer.viewer
            self._json(200, {"data": {"viewer": {"login": viewer["login"], "databaseId": viewer["id"]}}})
        else:
            self._rest(asked)

    def _misbehave(self, fault: Fault) -> None:
        self.outer.stop.wait(fault.wait)
        if fault.cut:
            self.close_connection = True
            self.connection.close()
            return
        try:
            self.send_response(fault.status)
            for key, value in fault.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(fault.body)))
            self.end_headers()
            for index in range(len(fault.body)):
                self.wfile.write(fault.body[index : index + 1])
                if fault.drip:
                    self.wfile.flush()
                    self.outer.stop.wait(fault.drip)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _rest(self, asked: Asked) -> None:
        github, root = self.outer, f"/repos/{REPOSITORY}"
        _, _, rest = asked.path.partition(root)
        words = rest.strip("/").split("/")
        if asked.path.startswith("/api/v3"):
            root = f"/api/v3{root}"
        match [asked.method, *words]:
            case ["GET", "pulls"]:
                head = asked.query.get("head", [""])[0]
                self._list(asked, [pull for pull in github.pulls if pull["label"] == head])
            case ["GET", "issues", number, "comments"]:
                self._list(asked, github.comments.get(int(number), []))
            case ["POST", "issues", number, "comments"]:
                if github.before_create is not None:
                    then, github.before_create = github.before_create, None
                    then()
                self._json(201, github.add(int(number), asked.body["body"], github.viewer))
            case ["PATCH", "issues", "comments", number]:
                found = self._find(int(number))
                found["body"] = asked.body["body"]
                self._json(200, found)
            case ["DELETE", "issues", "comments", number]:
                found = self._find(int(number))
                for thread in github.comments.values():
                    if found in thread:
                        thread.remove(found)
                self.send_response(204)
                self.end_headers()
            case _:
                self._json(404, {"message": "Not Found"})

    def _find(self, number: int) -> dict[str, Any]:
        return next(item for thread in self.outer.comments.values() for item in thread if item["id"] == number)

    def _list(self, asked: Asked, items: list[dict[str, Any]]) -> None:
        page, size = int(asked.query.get("page", ["1"])[0]), self.outer.page
        shown = items[(page - 1) * size : page * size]
        links = {}
        if page * size < len(items):
            query = urlencode({key: value[0] for key, value in asked.query.items() if key != "page"})
            address = f"{self.outer.url}{asked.path}?{query}"
            last = -(-len(items) // size)
            links = {"Link": f'<{address}&page={page + 1}>; rel="next", <{address}&page={last}>; rel="last"'}
        self._json(200, shown, links)

    def _json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
