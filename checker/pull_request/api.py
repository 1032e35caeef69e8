"""GitHub's REST API with what the standard library has: one token, one host, a deadline for everything.

The token goes to the host of ``GITHUB_API_URL`` only. Redirects and the links from page to page are followed when they
stay there and refused otherwise; no message ever holds the token.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import NoReturn
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from checker import __version__
from checker.domain import ErrorKind, Json
from checker.errors import Unavailable
from checker.reporters.escape import one_line

SECONDS = 60.0  # for everything that one comment takes
_ANSWER = 15.0  # for the start of one answer
_LARGEST = 48 << 20  # bytes of an answer: a hundred comments of full length
_PAGES = 100
_REDIRECTS = 3
_PIECE = 1 << 16
_LOOPBACK = ("127.0.0.1", "::1")
_MESSAGE = 160  # characters of GitHub's own words
_NEXT = re.compile(r'<([^<>]*)>\s*;[^<]*\brel="?next"?')
FORBIDDEN = (403, 404)
_MOVED = (301, 302, 307, 308)
_OK, _LIMIT, _SERVER = 200, 429, 500
_REMEDY = (
    "the step summary and the annotations hold everything; allow it with 'permissions: pull-requests: write', or use "
    "the two workflows that the README has for forks"
)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Message
    data: bytes


class _NoRedirect(HTTPRedirectHandler):
    """A redirect is an answer like any other: ``Api`` decides where the token goes."""

    def http_error_302(self, *_: object) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True, slots=True)
class Api:
    """Who asks (``token``) whom (``root``), and until when (``time.monotonic()``)."""

    root: str
    token: str = field(repr=False)
    until: float
    pause: float = 1.0  # before the one other attempt
    opener: OpenerDirector = field(repr=False)

    def get(self, path: str, **query: str) -> Json:
        """The answer to a question."""
        return self._json(self._ask("GET", self._address(path, query)))

    def pages(self, path: str, **query: str) -> Iterator[Mapping[str, Json]]:
        """The objects of a list, page after page, as long as the caller goes on.

        Raises:
            Unavailable: also when there are more pages than any pull request has.
        """
        address: str | None = self._address(path, {**query, "per_page": "100"})
        for _ in range(_PAGES):
            if address is None:
                return
            answer = self._ask("GET", address)
            items = self._json(answer)
            if not isinstance(items, list):
                raise Unavailable(f"GitHub answers with {type(items).__name__} where a list is expected")
            yield from (item for item in items if isinstance(item, dict))
            found = _NEXT.search(answer.headers.get("Link", ""))
            address = self._same_host(address, found[1]) if found else None
        if address is not None:
            raise Unavailable(f"GitHub has more than {_PAGES} pages of {path.rpartition('/')[2]}")

    def send(self, method: str, path: str, body: Mapping[str, Json] | None = None) -> Json:
        """The answer to POST, PATCH or DELETE."""
        data = None if body is None else json.dumps(body).encode()
        return self._json(self._ask(method, self._address(path, {}), data))

    def viewer(self) -> tuple[str, int | None]:
        """Login and id of whom the token acts for.

        Only GraphQL tells it to every kind of token: REST has no answer for those of a workflow or of an app.
        """
        address = f"{self.root.removesuffix('/v3')}/graphql"
        query = json.dumps({"query": "query { viewer { login databaseId } }"}).encode()
        viewer: Json = self._json(self._ask("POST", address, query, again=True))
        for key in ("data", "viewer"):
            viewer = viewer.get(key) if isinstance(viewer, dict) else None
        login = viewer.get("login") if isinstance(viewer, dict) else None
        if not isinstance(viewer, dict) or not isinstance(login, str) or not login:
            raise Unavailable("GitHub does not say whose token this is, so its comments cannot be told from others'")
        number = viewer.get("databaseId")
        return login, number if isinstance(number, int) else None

    def _address(self, path: str, query: Mapping[str, str]) -> str:
        return f"{self.root}{path}" + (f"?{urlencode(query)}" if query else "")

    def _same_host(self, address: str, link: str) -> str:
        """Where a link of an answer leads to."""
        try:
            address = urljoin(address, link)
            here, there = urlsplit(self.root), urlsplit(address)
        except ValueError:
            raise Unavailable("GitHub sends on to an address that is none") from None
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise Unavailable(f"GitHub sends on to another host, {one_line(there.netloc, 80)}, which gets no token")
        return address

    def _ask(self, method: str, address: str, data: bytes | None = None, *, again: bool = False) -> _Answer:
        """A successful answer; what may be asked twice is, once, when the network or the server fails."""
        again = again or method in ("GET", "PATCH")
        for _ in range(_REDIRECTS + 1):
            answer = self._exchange(method, address, data, again=again)
            if answer.status not in _MOVED:
                break
            address = self._same_host(address, answer.headers.get("Location", ""))
        if not _OK <= answer.status < _MOVED[0]:
            self._refused(answer)
        return answer

    def _exchange(self, method: str, address: str, data: bytes | None, *, again: bool) -> _Answer:
        try:
            answer = self._once(method, address, data)
        except Unavailable:
            if not again or self._left() < self.pause:
                raise
        else:
            if not again or answer.status < _SERVER or self._left() < self.pause:
                return answer
        time.sleep(self.pause)
        return self._once(method, address, data)

    def _once(self, method: str, address: str, data: bytes | None) -> _Answer:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "User-Agent": f"quant-verify/{__version__}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = Request(address, data, headers, method=method)  # noqa: S310 - http or https, see open_api
        try:
            try:
                response = self.opener.open(request, timeout=max(0.1, min(self._left(), _ANSWER)))
            except HTTPError as error:
                response = error
            with response:
                return _Answer(response.status, response.headers, self._read(response))
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            reason = getattr(error, "reason", None) or error
            words = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
            message = f"GitHub cannot be reached ({one_line(self._without_token(words), _MESSAGE)})"
            raise Unavailable(message, ErrorKind.NETWORK) from None

    def _read(self, response: http.client.HTTPResponse | HTTPError) -> bytes:
        pieces, count = [], 0
        while piece := response.read1(_PIECE):
            pieces.append(piece)
            count += len(piece)
            if count > _LARGEST:
                raise Unavailable("GitHub's answer is too long")
            self._left()
        return b"".join(pieces)

    def _left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise Unavailable(f"GitHub did not answer within {SECONDS:g} s", ErrorKind.TIMEOUT)
        return left

    def _json(self, answer: _Answer) -> Json:
        if not answer.data:
            return None
        try:
            return json.loads(answer.data)
        except (ValueError, RecursionError):
            raise Unavailable("GitHub's answer is no JSON") from None

    def _refused(self, answer: _Answer) -> NoReturn:
        words = self._words(answer)
        headers = answer.headers
        if answer.status == _LIMIT or headers.get("Retry-After") or headers.get("X-RateLimit-Remaining") == "0":
            raise Unavailable(f"GitHub's rate limit is reached ({words}); the next run tries again", ErrorKind.NETWORK)
        if answer.status in FORBIDDEN:
            why = f"the token may not write comments here ({words}), as on pull requests from forks"
            raise Unavailable(f"{why}; {_REMEDY}", ErrorKind.GATED)
        raise Unavailable(f"GitHub refuses ({words})", ErrorKind.NETWORK)

    def _words(self, answer: _Answer) -> str:
        """``HTTP 403: Resource not accessible by integration``."""
        try:
            data = json.loads(answer.data)
        except (ValueError, RecursionError):
            data = None
        words = data.get("message") if isinstance(data, dict) else None
        told = f": {one_line(self._without_token(words), _MESSAGE)}" if isinstance(words, str) and words else ""
        return f"HTTP {answer.status}{told}"

    def _without_token(self, text: str) -> str:
        return text.replace(self.token, "***")


def open_api(root: str, token: str, seconds: float = SECONDS, pause: float = 1.0) -> Api:
    """The API at ``root``, which is ``GITHUB_API_URL``.

    Raises:
        Unavailable: the address is neither https nor on this machine, or the token is none.
    """
    root = root.rstrip("/")
    try:
        parts = urlsplit(root if re.fullmatch(r"[!-~]+", root) else "")
        here = parts.hostname in _LOOPBACK
        good = parts.scheme == "https" or (parts.scheme == "http" and here)
        good = good and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.query or parts.fragment:
        raise Unavailable(f"GITHUB_API_URL is no https address: {one_line(root, 80)!r}")
    if not re.fullmatch(r"[!-~]+", token):
        raise Unavailable("GITHUB_TOKEN is no token: it holds a blank or a character that no token has")
    handlers = [_NoRedirect(), *([ProxyHandler({})] if here else [])]
    return Api(root=root, token=token, until=time.monotonic() + seconds, pause=pause, opener=build_opener(*handlers))
