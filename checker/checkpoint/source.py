"""Where the bytes of a checkpoint's files come from: memory maps of local files, or ranges of files on the Hub."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from checker.checkpoint.data import Bytes
    from checker.checkpoint.transfer import Transfer

Span = tuple[str, int, int]  # file, begin, end

AT_ONCE = 8  # requests
GAP = 1 << 17  # bytes; two spans nearer than this cost less as one request than as two
LONGEST = 1 << 23  # bytes of one request for joined spans
KEPT = 1 << 27  # bytes of fetched ranges that are remembered; beyond it the oldest are dropped
LARGEST_KEPT = 1 << 23  # bytes; a larger range is not remembered, for it is rarely wanted twice


class Source(Protocol):
    """Bytes of files by their names relative to the checkpoint."""

    @property
    def remote(self) -> bool:
        """Whether a read may cost a request, so that it pays to say before what will be wanted."""

    @property
    def traffic(self) -> dict[str, int]:
        """What was read over the network so far: ``requests`` and ``bytes``; empty for local files."""

    def read(self, file: str, begin: int, end: int) -> Bytes:
        """The bytes ``begin:end`` of a file, read-only.

        Raises:
            Unavailable: they can no longer be read, or the network does not deliver.
        """

    def has(self, file: str, begin: int, end: int) -> bool:
        """Whether reading this range costs no request."""

    def want(self, spans: Iterable[Span]) -> None:
        """Fetch spans that will be read soon, near ones together and several at a time; nothing for local files."""

    def close(self) -> None:
        """Let go of what is held; reading again is allowed."""


class LocalSource:
    """Files of a folder, each mapped once, when first read; a view keeps its map alive."""

    @property
    def remote(self) -> bool:
        """Never."""
        return False

    @property
    def traffic(self) -> dict[str, int]:
        """None."""
        return {}

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, Bytes] = {}

    def read(self, file: str, begin: int, end: int) -> Bytes:
        """A view of the mapped file; nothing is copied."""
        from checker.checkpoint.data import cut, map_file

        data = self._maps.get(file)
        if data is None:
            data = self._maps[file] = map_file(self._folder / file, file)
        return cut(data, file, begin, end)

    def has(self, file: str, begin: int, end: int) -> bool:
        """Always."""
        del file, begin, end
        return True

    def want(self, spans: Iterable[Span]) -> None:
        """Nothing to do: the system reads ahead."""

    def close(self) -> None:
        """Forget the maps; each stays open as long as an array still looks into it."""
        self._maps.clear()


class RemoteSource:
    """Files of a Hub repository by ranges, except those that the local cache holds wholly."""

    @property
    def remote(self) -> bool:
        """Always: a file may be cached, but most are not."""
        return True

    @property
    def traffic(self) -> dict[str, int]:
        """Requests and bytes, of headers and tensors alike."""
        return {"requests": self._transfer.requests, "bytes": self._transfer.bytes}

    def __init__(self, transfer: Transfer, local: LocalSource, cached: frozenset[str]) -> None:
        self._transfer = transfer
        self.cached = cached
        self._local = local
        self._ranges: dict[str, _Ranges] = {}
        self._order: deque[tuple[str, int]] = deque()  # of what is remembered, oldest first
        self._kept = 0
        self._lock, self._wanting = Lock(), Lock()

    def read(self, file: str, begin: int, end: int) -> Bytes:
        """The bytes of a range; what is remembered of its beginning is not fetched again."""
        import numpy as np

        if file in self.cached:
            return self._local.read(file, begin, end)
        with self._lock:
            head = self._ranges.setdefault(file, _Ranges()).find(begin, end)
        if len(head) < end - begin:
            rest = self._transfer.fetch(file, begin + len(head), end)
            self._remember(file, begin + len(head), rest)
            head = head + rest if head else rest
        return np.frombuffer(head, np.uint8)

    def has(self, file: str, begin: int, end: int) -> bool:
        """Whether it is remembered, or its file cached."""
        with self._lock:
            known = self._ranges.get(file)
            return file in self.cached or (known is not None and len(known.find(begin, end)) == end - begin)

    def want(self, spans: Iterable[Span]) -> None:
        """Fetch what is not there yet; threads that want at the same time take turns, so that nothing comes twice."""
        with self._wanting:
            small = (span for span in spans if 0 < span[2] - span[1] <= LARGEST_KEPT)
            missing = [span for span in small if not self.has(*span)]
            joined = list(join(missing))
            if len(joined) < 2:  # noqa: PLR2004 - a pool for one is none
                for span in joined:
                    self._fetch(span)
                return
            with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
                futures = [pool.submit(self._fetch, span) for span in joined]
                try:
                    for future in futures:
                        future.result()
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, span: Span) -> None:
        file, begin, end = span
        self._remember(file, begin, self._transfer.fetch(file, begin, end))

    def _remember(self, file: str, begin: int, data: bytes) -> None:
        if not 0 < len(data) <= LARGEST_KEPT:
            return
        with self._lock:
            self._kept += len(data) - self._ranges.setdefault(file, _Ranges()).add(begin, data)
            self._order.append((file, begin))
            while self._kept > KEPT:
                self._kept -= self._ranges[self._order[0][0]].drop(self._order[0][1])
                self._order.popleft()

    def close(self) -> None:
        """Forget what was fetched."""
        with self._lock:
            self._ranges.clear()
            self._order.clear()
            self._kept = 0
        self._local.close()


def join(spans: Iterable[Span]) -> Iterable[Span]:
    """Spans in the order of the files, near ones joined as far as one request may be long."""
    current: Span | None = None
    for file, begin, end in sorted(spans):
        if current is None:
            current = (file, begin, end)
        elif file == current[0] and begin - current[2] <= GAP and max(end, current[2]) - current[1] <= LONGEST:
            current = (file, current[1], max(end, current[2]))
        else:
            yield current
            current = (file, begin, end)
    if current is not None:
        yield current


class _Ranges:
    """What is remembered of one file: pieces by their beginnings."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._pieces: dict[int, bytes] = {}

    def find(self, begin: int, end: int) -> bytes:
        """As much of ``begin:end``, from its beginning on, as one piece holds."""
        place = bisect_right(self._begins, begin) - 1
        if place < 0:
            return b""
        first = self._begins[place]
        return self._pieces[first][begin - first : end - first]

    def add(self, begin: int, data: bytes) -> int:
        """Keep a piece; returns the size of the one that it takes the place of."""
        before = self._pieces.get(begin)
        if before is None:
            insort(self._begins, begin)
        self._pieces[begin] = data
        return len(before or b"")

    def drop(self, begin: int) -> int:
        """Forget a piece; returns its size, 0 when it is gone already."""
        data = self._pieces.pop(begin, None)
        if data is None:
            return 0
        del self._begins[bisect_left(self._begins, begin)]
        return len(data)
