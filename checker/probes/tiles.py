"""Walking over the tiles of a decoded weight in runs that fit a core's cache, and looking their codes up."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.coded import CodedWeight, Float32, Place

CHUNK_VALUES = 1 << 17  # 512 kB of float32: three such arrays stay near a core, and threads seldom wait for each other


def width_of(coded: CodedWeight) -> int:
    """Columns of a piece."""
    columns = coded.place.columns
    return int(columns.stop - columns.start) if isinstance(columns, slice) else int(columns.size)


def runs(coded: CodedWeight) -> Iterator[slice]:
    """Runs of tiles that fit a core's cache: parts of one row of tiles, or whole rows of tiles."""
    count = coded.scaling.scales.size
    across = max(1, math.ceil(width_of(coded) / coded.tile[1]))
    fitting = max(1, CHUNK_VALUES // coded.tile_size)
    if fitting >= across or coded.tile[0] > 1 or not isinstance(coded.place.columns, slice):
        step = across * max(1, fitting // across)
        yield from (slice(start, min(start + step, count)) for start in range(0, count, step))
        return
    for row in range(0, count, across):
        end = min(row + across, count)
        yield from (slice(start, min(start + fitting, end)) for start in range(row, end, fitting))


def run_place(coded: CodedWeight, tiles: slice) -> Place:
    """Where a run of tiles lies: a part of one row of tiles, or whole rows of tiles."""
    high, wide = coded.tile
    width = width_of(coded)
    across = math.ceil(width / wide)
    first, last = divmod(tiles.start, across), divmod(tiles.stop - 1, across)
    rows = slice(first[0] * high, (last[0] + 1) * high)
    if first[0] == last[0]:
        return coded.place.part(rows, slice(first[1] * wide, min((last[1] + 1) * wide, width)))
    return coded.place.part(rows, slice(0, width))


def decode_tiles(coded: CodedWeight, tiles: slice) -> Float32:
    """Values of a run of tiles, [tiles, values per tile]; valid until this thread decodes again."""
    scaling = coded.scaling
    decoded = _levels(coded, coded.codes[tiles])
    if scaling.zeros is not None:
        decoded -= scaling.zeros[tiles, None]
    decoded *= scaling.scales[tiles, None]
    if scaling.offsets is not None:
        decoded += scaling.offsets[tiles, None]
    return decoded


def _levels(coded: CodedWeight, codes: npt.NDArray[np.uint8]) -> Float32:
    """Levels of the codes, [tiles, values per tile]; a byte's values are looked up as one word where they fit one."""
    per_byte = coded.book.per_byte
    if per_byte in (1, 2):
        words = coded.book.levels.view(np.uint32 if per_byte == 1 else np.uint64).reshape(-1)
        return look_up(words, codes).view(np.float32)
    return np.take(coded.book.levels, codes, axis=0).reshape(codes.shape[0], -1)


def look_up(table: npt.NDArray[Any], codes: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """``table[codes]`` for a table of 256 entries, valid until this thread's next look-up in a table of that dtype.

    Without bounds checks, which a byte cannot fail, and into memory that is used again: fresh pages cost more than the
    arithmetic on them.
    """
    key = (table.dtype, codes.shape)
    if key not in _BUFFERS.arrays:
        _BUFFERS.arrays[key] = np.empty(codes.shape, table.dtype)
    return np.take(table, codes, out=_BUFFERS.arrays[key], mode="clip")


class _Buffers(threading.local):
    """One thread's arrays by dtype and shape; there are only as many as there are block sizes."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[np.dtype[Any], tuple[int, ...]], npt.NDArray[Any]] = {}


_BUFFERS = _Buffers()
