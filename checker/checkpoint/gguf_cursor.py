"""A cursor over a file that is read by pieces: neither a hostile length nor a slow link costs what it claims."""

from __future__ import annotations

import struct
from collections.abc import Callable

from checker.checkpoint.strict_json import Malformed

Fetch = Callable[[int, int], bytes]
"""Bytes ``begin:end`` of a file."""

PIECE = 1 << 20  # bytes that are read at once
_LENGTH = struct.Struct("<Q")


class Cursor:
    """A place in a file that moves on as bytes are taken; never past the end."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._piece = b""
        self._begin = 0  # of the piece, in the file
        self.position = 0

    def take(self, count: int, what: str) -> bytes:
        """The next bytes, of which ``what`` says what they are.

        Raises:
            Malformed: the file ends before.
        """
        offset = self._ready(count, what)
        self.position += count
        return self._piece[offset : offset + count]

    def skip(self, count: int, what: str) -> None:
        """Step over bytes without reading them.

        Raises:
            Malformed: the file ends before.
        """
        self._require(count, what)
        self.position += count

    def skip_strings(self, count: int, what: str) -> None:
        """Step over strings, each with its length in front (u64).

        Raises:
            Malformed: the file ends before.
        """
        self._require(8 * count, what)
        unpack = _LENGTH.unpack_from
        left = count
        while left:
            offset = self._ready(8, what)
            piece, last = self._piece, len(self._piece) - 8
            while left and 0 <= offset <= last:
                offset += 8 + unpack(piece, offset)[0]
                left -= 1
            self._move(self._begin + offset, what)

    def _require(self, count: int, what: str) -> None:
        if count > self._size - self.position:
            raise Malformed(f"ends in {what}: {count:,} bytes are announced, {self._size - self.position:,} are left")

    def _move(self, position: int, what: str) -> None:
        self._require(position - self.position, what)
        self.position = position

    def _ready(self, count: int, what: str) -> int:
        """Make the next bytes part of the piece; where they begin in it."""
        self._require(count, what)
        offset = self.position - self._begin
        if offset < 0 or offset + count > len(self._piece):
            end = min(self._size, self.position + max(count, PIECE))
            self._piece, self._begin, offset = self._fetch(self.position, end), self.position, 0
            if len(self._piece) < count:
                raise Malformed("became shorter while it was read")
        return offset
