"""A quantized weight as bytes to look up: the form in which every method hands its codes to the weights probe.

Whatever the packing, a byte of codes stands for one or more values. With tables over the 256 bytes, decoding, error
prediction, extreme codes and entropy are each one table look-up, and the probe knows no method.

A weight is a matrix of ``grid`` rows and columns: [out, in], the leading dimensions of experts joined ([experts · out,
in]), or [1, values] where blocks run on from row to row (bitsandbytes 4-bit). It is cut into tiles that have one scale
each; a method may decode the whole matrix or a ``Window`` of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Columns = slice | npt.NDArray[np.int64]

LARGE_TILE = 1 << 18  # values; a scale for a whole matrix is handled in strips of about this size


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A rectangle of a weight's grid: plain slices with start and stop, in rows and columns."""

    rows: slice
    columns: slice


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where decoded values lie in the weight: its grid, and the rows and columns of this rectangle.

    ``columns`` may be an index array where the layout permutes them (activation order).
    """

    grid: tuple[int, int]
    rows: slice
    columns: Columns

    @classmethod
    def of(cls, grid: tuple[int, int], window: Window | None = None) -> Place:
        """The place of a window, or the whole grid."""
        if window is None:
            return cls(grid=grid, rows=slice(0, grid[0]), columns=slice(0, grid[1]))
        return cls(grid=grid, rows=window.rows, columns=window.columns)

    def part(self, rows: slice, columns: slice) -> Place:
        """A rectangle of this one, counted from its corner."""
        moved = slice(self.rows.start + rows.start, self.rows.start + rows.stop)
        if isinstance(self.columns, slice):
            first = self.columns.start
            return Place(grid=self.grid, rows=moved, columns=slice(first + columns.start, first + columns.stop))
        return Place(grid=self.grid, rows=moved, columns=self.columns[columns])


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """What turns levels into values: value = (level − zero) · scale + offset. Float32 arrays of one shape.

    ``flaw``: a contradiction in what the scales are made of, for weights.scales to report.
    """

    scales: Float32
    zeros: Float32 | None = None
    offsets: Float32 | None = None
    negative: bool = False  # whether the layout allows negative scales
    flaw: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeBook:
    """What each of the 256 bytes of codes means at scale 1.

    Shapes: ``levels`` [256, values per byte]; ``variance`` [256], the squared error expected of a byte's values (cell
    width² / 12 and the like); ``extreme`` [256], whether the byte holds an extreme code (all False: the layout promises
    none); ``symbols`` [256, values per byte], code numbers below ``symbol_count``.
    ``extreme_variance``: what ``variance`` counts for one extreme code where the block's own maximum lies on it
    exactly; 0 where it does not.
    """

    levels: Float32
    variance: Float32
    extreme: npt.NDArray[np.bool_]
    extreme_variance: float
    symbols: Bytes
    symbol_count: int
    bits: int

    @property
    def per_byte(self) -> int:
        """Values a byte stands for."""
        return int(self.levels.shape[1])

    @property
    def promises_extreme(self) -> bool:
        """Whether every block should hold an extreme code."""
        return bool(self.extreme.any())


@dataclass(frozen=True, kw_only=True, slots=True)
class CodedWeight:
    """A rectangle of a weight in tiles of one size.

    Shapes: ``codes`` [tiles, bytes per tile], tiles row by row, values row by row within a tile; the arrays of
    ``scaling`` [tiles].
    """

    place: Place
    tile: tuple[int, int]
    book: CodeBook
    codes: Bytes
    scaling: Scaling
    padding: int = 0  # values past the end in the last tile; their codes decode to zero
    one_scale: bool = False  # all tiles share the weight's only scale
    code_book_flaw: str = ""

    @property
    def tile_size(self) -> int:
        """Values per tile."""
        return self.tile[0] * self.tile[1]


def tiled(
    codes: Bytes, scaling: Scaling, tile: tuple[int, int], book: CodeBook, place: Place
) -> tuple[CodedWeight, ...]:
    """Cut a matrix of codes into pieces of whole tiles: the body, and what the tile size leaves over at the edges.

    Shapes: ``codes`` [rows, columns / values per byte] of the place; the arrays of ``scaling`` [tile rows, tile
    columns] of the same rectangle, partial tiles at the edges included. The place begins at a multiple of the tile. An
    odd number of columns needs one code a byte to begin with.
    """
    if min(tile[1], codes.shape[1] * book.per_byte) % book.per_byte:  # tiles would begin within a byte
        codes, book = _unpacked(codes, book)
    height, width = codes.shape[0], codes.shape[1] * book.per_byte
    one_scale = scaling.scales.size == 1 and height * width > LARGE_TILE and height > 1
    if one_scale:  # strips of a few rows instead of one enormous tile
        tile = (max(1, LARGE_TILE // width), width)
    tile = (min(tile[0], height), min(tile[1], width))
    pieces = []
    for rows, high in _cuts(height, tile[0]):
        for columns, wide in _cuts(width, tile[1]):
            tiles = ((rows.stop - rows.start) // high, (columns.stop - columns.start) // wide)
            corner = (rows.start // tile[0], columns.start // tile[1])
            values = functools.partial(_of_tiles, corner=corner, tiles=tiles, one_scale=one_scale)
            begin, end = columns.start // book.per_byte, columns.stop // book.per_byte
            pieces.append(
                CodedWeight(
                    place=place.part(rows, columns),
                    tile=(high, wide),
                    book=book,
                    codes=_in_tiles(codes[rows, begin:end], tiles),
                    scaling=replace(
                        scaling,
                        scales=values(scaling.scales),
                        zeros=None if scaling.zeros is None else values(scaling.zeros),
                        offsets=None if scaling.offsets is None else values(scaling.offsets),
                    ),
                    one_scale=one_scale,
                )
            )
    return tuple(pieces)


def _unpacked(codes: Bytes, book: CodeBook) -> tuple[Bytes, CodeBook]:
    """The same codes, one a byte. A byte that holds one code several times tells what that code counts for."""
    alike = np.flatnonzero((book.symbols == book.symbols[:, :1]).all(axis=1))
    each = np.zeros(256, np.int64)
    each[book.symbols[alike, 0]] = alike
    single = replace(
        book,
        levels=np.ascontiguousarray(book.levels[each, :1]),
        variance=book.variance[each] / np.float32(book.per_byte),
        extreme=book.extreme[each],
        symbols=np.minimum(np.arange(256), book.symbol_count - 1).astype(np.uint8)[:, None],
    )
    return book.symbols[codes].reshape(codes.shape[0], -1), single


def _cuts(size: int, step: int) -> Iterator[tuple[slice, int]]:
    """The range of whole steps and the rest behind it, with the step of each."""
    whole = size - size % step
    if whole:
        yield slice(0, whole), step
    if size > whole:
        yield slice(whole, size), size - whole


def _in_tiles(codes: Bytes, tiles: tuple[int, int]) -> Bytes:
    """[rows, bytes] → [tiles, bytes per tile]; a copy only where a tile spans several rows."""
    down, across = tiles
    rows, width = codes.shape
    return (
        np.ascontiguousarray(codes)
        .reshape(down, rows // down, across, width // across)
        .swapaxes(1, 2)
        .reshape(down * across, -1)
    )


def _of_tiles(values: Float32, *, corner: tuple[int, int], tiles: tuple[int, int], one_scale: bool) -> Float32:
    if one_scale:
        return np.broadcast_to(values.reshape(()), (tiles[0] * tiles[1],))
    chosen = values[corner[0] : corner[0] + tiles[0], corner[1] : corner[1] + tiles[1]]
    return np.ascontiguousarray(chosen).reshape(-1)
