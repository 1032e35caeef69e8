"""A checkpoint on the Hub as a folder: small files from the local cache, all others by ranges, none downloaded.

Readers do not know the difference: names come from the Hub's listing, a file opens as a stream whose reads are ranged
requests, and the strict parsing of headers and JSON is the same. What the network does not deliver is ``Unavailable``,
never a problem of the checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from checker.checkpoint.files import Folder, Result, Stream, allowed_roots, missing, open_regular
from checker.checkpoint.network import Network, Repository
from checker.checkpoint.problem import Refused
from checker.checkpoint.source import AT_ONCE, LocalSource, RemoteSource, Source
from checker.checkpoint.transfer import Transfer

HEAD = 1 << 17  # bytes fetched of a safetensors file at first; nearly every header is shorter
SMALL = 1 << 14  # bytes; a smaller file is fetched whole at its first read


def open_remote(folder: Path, repository: Repository, network: Network) -> RemoteFolder:
    """A repository whose cached files lie in ``folder``, its snapshot, which need not exist."""
    cached = frozenset(name for name, size in repository.sizes.items() if _is_whole(folder / name, size))
    names = frozenset(name.partition("/")[0] for name in repository.sizes)
    source = RemoteSource(Transfer(repository, network), LocalSource(folder), cached)
    roots = allowed_roots(Path(os.path.realpath(folder)))
    return RemoteFolder(path=folder, names=names, roots=roots, remote=source, sizes=repository.sizes)


def _is_whole(path: Path, size: int) -> bool:
    """Whether a file is in the cache with the size that the Hub lists; the cache links a file only when it is whole."""
    try:
        return path.stat().st_size == size
    except (OSError, ValueError):  # the latter: a name with a null byte
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFolder(Folder):
    """A repository's files; see the module."""

    remote: RemoteSource
    sizes: Mapping[str, int]

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[Stream, int]]:
        """A file of the cache, or ranges of one on the Hub.

        Raises:
            Refused: not in the repository, or not readable in the cache.
            Unavailable: the Hub or the network does not deliver.
        """
        if name in self.remote.cached:
            with open_regular(self.locate(name), name) as opened:
                yield opened
        elif name in self.sizes:
            yield _RangedFile(self.remote, name, self.sizes[name]), self.sizes[name]
        else:
            raise Refused(missing(name))

    def each(self, read: Callable[[str], Result], names: Iterable[str]) -> list[Result]:
        """What ``read`` says of each file, in order; several wait for the network at a time."""
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            futures = [pool.submit(read, name) for name in names]
            try:
                return [future.result() for future in futures]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def source(self, files: Collection[str]) -> Source:
        """Ranges of the repository's files; the cache alone, when all of these are in it."""
        return LocalSource(self.path) if self.remote.cached.issuperset(files) else self.remote


class _RangedFile:
    """A file on the Hub, read from a position; its beginning comes with one request, as far as it is likely wanted."""

    def __init__(self, source: RemoteSource, name: str, size: int) -> None:
        self._source, self._name, self._size = source, name, size
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes from the position on."""
        begin = self._position
        end = self._size if size < 0 else min(begin + size, self._size)
        if begin >= end:
            return b""
        likely = HEAD if self._name.endswith(".safetensors") else SMALL if self._size <= SMALL else 0
        if begin == 0 and end < likely:
            self._source.read(self._name, 0, min(likely, self._size))
        self._position = end
        return self._source.read(self._name, begin, end).tobytes()

    def seek(self, offset: int, /) -> int:
        """Go to an absolute offset."""
        self._position = offset
        return offset
