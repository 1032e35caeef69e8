"""Some output rows of a quantized weight, decoded from the file, whatever way its codes are laid out.

A few rows show whether a module computes with the weight that is stored: a wrong scale, code book or kernel spoils
every row. They cost a fraction of decoding all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.coded import CodedWeight, Float32, Place, Window
from checker.errors import NotApplicable
from checker.facts import StoredWeight
from checker.probes.tiles import decode_tiles
from checker.registry import Method

ROWS = 32
SPOTS = 4  # of neighbouring rows; each costs a call of the decoder
WHOLE = 2  # times the rows asked for: a weight of no more is decoded whole, in one call

Rows = npt.NDArray[np.int64]
Decoded = tuple[Rows, Float32]
# what decoding a damaged or hostile weight may raise, besides NotApplicable
UNDECODED = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def decode_rows(checkpoint: Checkpoint, weight: StoredWeight, method: Method, count: int = ROWS) -> Decoded:
    """At least ``count`` output rows of a weight, or all it has: their numbers, ascending, and their values.

    They lie at a few places spread over the weight; where the layout cuts it otherwise than by rows (groups that run on
    from row to row, or across rows), what a place gives beyond the rows that were asked for is kept. Shapes: numbers
    [rows], values [rows, in], float32. The weight's tensors must be complete (``probes.weights`` says whether).

    Raises:
        NotApplicable: the method has no decoder, or the weight is no matrix.
    """
    if method.decode is None:
        raise NotApplicable(method.not_decoded or f"weights of {method.id} cannot be decoded yet")
    if weight.shape is None or len(weight.shape) != 2:  # noqa: PLR2004 - [out, in]
        raise NotApplicable(f"{weight.weight} is no matrix")
    cut = _Cut(weight)
    found: dict[int, Float32] = {}
    for window in cut.windows(count):
        matrix = _assemble(method.decode(checkpoint, weight, window), Place.of(weight.grid, window))
        found.update(cut.rows_of(matrix, window))
    rows = sorted(found)
    return np.array(rows, np.int64), np.stack([found[row] for row in rows])


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the rows of a weight, ``shape`` [out, in], lie in its ``grid``: both are the same values, row by row."""

    weight: StoredWeight

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        assert self.weight.shape is not None
        return self.weight.shape[0], self.weight.shape[1]

    def windows(self, count: int) -> Iterator[Window | None]:
        """Windows of the grid that hold the rows; None stands for all of a small weight."""
        outputs, inputs = self.shape
        if outputs <= WHOLE * count:
            yield None
            return
        spots = min(SPOTS, count)
        high = math.ceil(count / spots)
        last: Window | None = None
        for spot in range(spots):
            first = spot * (outputs - high) // max(spots - 1, 1)
            window = self._around(first * inputs, (first + high) * inputs)
            if window != last:
                yield window
            last = window

    def _around(self, start: int, stop: int) -> Window:
        """The window of values ``start:stop``, enlarged to where the layout may be cut."""
        height, width = self.weight.grid
        tall, wide = max(1, self.weight.grain[0]), self.weight.grain[1]
        top, bottom = start // width, math.ceil(stop / width)
        left, right = 0, width
        if wide and bottom - top == 1:
            left = (start - top * width) // wide * wide
            right = min(math.ceil((stop - top * width) / wide) * wide, width)
        rows = slice(top // tall * tall, min(math.ceil(bottom / tall) * tall, height))
        return Window(rows=rows, columns=slice(left, right))

    def rows_of(self, matrix: Float32, window: Window | None) -> Iterator[tuple[int, Float32]]:
        """The rows that a decoded window holds whole, with their numbers."""
        place, width, inputs = Place.of(self.weight.grid, window), self.weight.grid[1], self.shape[1]
        assert isinstance(place.columns, slice)
        if matrix.shape[1] == width:  # whole rows of the grid follow each other without a gap
            matrix = matrix.reshape(1, -1)
        for number, values in enumerate(matrix):
            start = (place.rows.start + number) * width + place.columns.start
            first = math.ceil(start / inputs)
            for row in range(first, (start + values.size) // inputs):
                yield row, values[row * inputs - start : (row + 1) * inputs - start]


def _assemble(pieces: Iterable[CodedWeight], place: Place) -> Float32:
    """The decoded pieces of a window in their places, [rows, columns] of the window."""
    assert isinstance(place.columns, slice)
    top, left = place.rows.start, place.columns.start
    found = np.empty((place.rows.stop - top, place.columns.stop - left), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # hostile scales; weights.scales reports them
        for coded in pieces:
            values = decode_tiles(coded, slice(0, coded.scaling.scales.size))
            rows = slice(coded.place.rows.start - top, coded.place.rows.stop - top)
            high, wide = coded.tile
            if coded.place.grid[0] == 1:
                values = values.reshape(1, -1)[:, : values.size - coded.padding]
            elif high > 1:
                values = values.reshape((rows.stop - rows.start) // high, -1, high, wide).swapaxes(1, 2)
            columns = coded.place.columns
            if isinstance(columns, slice):
                here = slice(columns.start - left, columns.stop - left)
                found[rows, here] = values.reshape(rows.stop - rows.start, -1)
            else:
                found[rows, columns - left] = values.reshape(rows.stop - rows.start, -1)
    return found
