"""Byte ranges of the files of a Hub repository, over huggingface_hub's own HTTP client.

The client brings proxies, certificates and HF_ENDPOINT with it. What is added here: a range is resumed where a cut
connection left it, attempts and waits are bounded by the deadline, and a server that answers with the whole file is
noticed before gigabytes have come. Large files are redirected to a storage host; the signed address is kept for the
file's next range, and the token never goes there (the client drops it on a redirect to another host).
"""

from __future__ import annotations

import re
import threading
from typing import Any
from urllib.parse import urlsplit

from checker.checkpoint.hub import (
    ATTEMPTS,
    PASSING,
    TOO_MANY,
    asked,
    asked_pause,
    backoff,
    failures,
    headers_with,
    unavailable,
)
from checker.checkpoint.network import Network, Repository
from checker.checkpoint.problem import shown
from checker.domain import ErrorKind
from checker.errors import Unavailable

WHOLE_FILE = 1 << 20  # bytes; a file up to this size is taken whole from a server that does not know ranges

_OK, _PARTIAL, _NOT_THERE = 200, 206, 416
_EXPIRED = frozenset({400, 401, 403, 404, 410})  # of a signed address
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _Interrupted(Exception):
    """An attempt that ended early and may be repeated after ``pause`` seconds (None: our own choice)."""

    def __init__(self, reason: str, pause: float | None = None, remedy: str = "check the network") -> None:
        super().__init__(reason)
        self.pause, self.remedy = pause, remedy


class Transfer:
    """Reads ranges of one repository's files, from any thread, and counts what that took."""

    def __init__(self, repository: Repository, network: Network) -> None:
        self.repository, self.network = repository, network
        self.requests = 0
        self.bytes = 0
        self._addresses: dict[str, str] = {}  # by file: where the Hub redirected to
        self._given_up: Unavailable | None = None
        self._lock = threading.Lock()

    def fetch(self, file: str, begin: int, end: int) -> bytes:
        """The bytes ``begin:end`` of a file.

        Raises:
            Unavailable: the Hub or the network does not deliver, or not in time; from then on at once, for a
                checkpoint that cannot be read wholly is not judged.
        """
        if self._given_up is not None:
            raise Unavailable(str(self._given_up), self._given_up.kind)
        try:
            return self._fetch(file, begin, end)
        except Unavailable as failure:
            self._given_up = failure
            raise

    def _fetch(self, file: str, begin: int, end: int) -> bytes:
        ref, received, fruitless = self.repository.ref, bytearray(), 0
        while len(received) < end - begin:
            before = len(received)
            trouble = _Interrupted("the connection was cut")  # also when the body ends early
            try:
                self._receive(file, begin, end, received)
            except _Interrupted as interrupted:
                trouble = interrupted
            except failures() as error:
                failure = unavailable(ref, error)
                if failure.kind is not ErrorKind.NETWORK or _is_final(error):
                    raise failure from None
                trouble = _Interrupted(shown(str(error).partition("\n")[0]) or type(error).__name__)
            if len(received) >= end - begin:
                break
            fruitless = fruitless + 1 if len(received) == before else 1
            if fruitless >= ATTEMPTS:
                raise self._failure(file, f"{trouble}, also after {ATTEMPTS} attempts; {trouble.remedy}, or try later")
            self.network.pause(ref, backoff(fruitless) if trouble.pause is None else trouble.pause, str(trouble))
        return bytes(received)

    def _receive(self, file: str, begin: int, end: int, received: bytearray) -> None:
        """One request for what is still missing; ``received`` grows also when it fails halfway."""
        from huggingface_hub import constants, get_session

        url, headers = self._request(file)
        start = begin + len(received)
        headers |= {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        timeout = min(float(constants.HF_HUB_DOWNLOAD_TIMEOUT), self.network.left(self.repository.ref))
        with self._lock:
            self.requests += 1
        with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            self._judge(file, url, start, end, response)
            skip = start if response.status_code == _OK else 0
            for piece in response.iter_bytes():
                with self._lock:
                    self.bytes += len(piece)
                received += piece[skip : skip + end - begin - len(received)]
                skip = max(0, skip - len(piece))
                if len(received) >= end - begin:
                    return
                self.network.left(self.repository.ref)

    def _request(self, file: str) -> tuple[str, dict[str, str]]:
        """Address and headers: those of the Hub, or the signed address that it gave before, which wants no token."""
        from huggingface_hub import hf_hub_url

        with self._lock:
            address = self._addresses.get(file)
        if address is not None:
            return address, headers_with(None)
        url = asked(
            self.repository.ref,
            lambda: hf_hub_url(self.repository.ref.name, file, revision=self.repository.commit),
        )
        return url, headers_with(self.network.token)

    def _judge(self, file: str, url: str, start: int, end: int, response: Any) -> None:
        """Whether the body that follows is what was asked for; raises when it is not."""
        from huggingface_hub import hf_raise_for_status

        status, headers = response.status_code, response.headers
        with self._lock:
            known = self._addresses.get(file)
            if status == _PARTIAL and urlsplit(str(response.url)).netloc != urlsplit(url).netloc:
                self._addresses[file] = str(response.url)
            elif known is not None and status in _EXPIRED:
                del self._addresses[file]
                raise _Interrupted(f"the storage host answered HTTP {status}", 0.0)
        if status in PASSING:
            if status == TOO_MANY:
                limited = f"the Hub limits the rate of requests (HTTP {status})"
                raise _Interrupted(limited, asked_pause(headers), "set HF_TOKEN")
            raise _Interrupted(f"the server does not answer as it should (HTTP {status})", asked_pause(headers))
        if status == _NOT_THERE:
            raise self._failure(file, "the server holds a shorter file than the Hub lists; try again later")
        hf_raise_for_status(response)
        size = self.repository.sizes[file]
        if headers.get("content-encoding", "identity") not in ("", "identity"):
            raise self._failure(file, "the server compresses ranges of it; check the proxy")
        if status == _OK and size > WHOLE_FILE and end - start < size:
            remedy = "download the repository ('hf download'), or check the proxy and HF_ENDPOINT"
            raise self._failure(file, f"the server ignores ranges and would send all {size:,} bytes; {remedy}")
        if status != _OK:
            match = _RANGE.fullmatch(headers.get("content-range", ""))
            if status != _PARTIAL or match is None or int(match[1]) != start or match[3] not in ("*", str(size)):
                raise self._failure(file, "the server sends other bytes than were asked for; check proxy, HF_ENDPOINT")

    def _failure(self, file: str, reason: str) -> Unavailable:
        return Unavailable(f"{self.repository.ref}: {shown(file)} could not be read: {reason}", ErrorKind.NETWORK)


def _is_final(error: Exception) -> bool:
    """Whether the Hub or the library said no, which another attempt does not change."""
    from huggingface_hub import errors

    return isinstance(error, (errors.HfHubHTTPError, errors.OfflineModeIsEnabled))
