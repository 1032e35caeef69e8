"""The baseline's values of one quantized weight, in the order in which its codes lie."""

from __future__ import annotations

import math

import numpy as np

from checker.architecture import architecture_of, pattern
from checker.checkpoint import Checkpoint
from checker.coded import CodedWeight, Float32, Place
from checker.facts import StoredWeight
from checker.probes.names import dense_names
from checker.probes.tiles import run_place

FLOATS = ("BF16", "F16", "F32", "F64")


class Original:
    """The dense tensor that a weight was quantized from; ``flaw`` says why there is none to compare with."""

    def __init__(self, weight: StoredWeight, baseline: Checkpoint) -> None:
        self.checkpoint = baseline
        names = dense_names(weight, baseline)
        self.name = names[0] if names else ""
        self._parts = _parts(weight, names, baseline) if len(names) > 1 else ()
        self.flaw = ""
        self._grid = weight.grid
        self._shape = weight.shape or ()
        self._transposed = False
        self._turned: tuple[int, Float32] | None = None  # the last matrix that had to be transposed, and its number
        header = baseline.tensors.get(self.name)
        if self._parts:
            return
        if header is None:
            self.flaw = f"the baseline has no tensor {weight.dense}"
        elif header.dtype not in FLOATS:
            self.flaw = f"the baseline stores {self.name} as {header.dtype}: it is no full-precision model"
        elif header.shape == _turned(self._shape) and (header.shape != self._shape or _is_transposed(weight, baseline)):
            self._transposed = True
        elif header.shape != self._shape:
            self.flaw = f"the baseline's {self.name} has shape {list(header.shape)}, this one {list(self._shape)}"

    @property
    def in_order(self) -> bool:
        """Whether rows of the weight are rows of one dense tensor."""
        return not self._parts and not self._transposed

    def tiles(self, coded: CodedWeight, tiles: slice) -> Float32:
        """Float32 values of a run of tiles, flat, in the order of their codes; padding at the end is left out.

        The run is a part of one row of tiles, or whole rows of tiles (see ``runs``).
        """
        place = run_place(coded, tiles)
        values = self._rectangle(place)
        if coded.tile[0] == 1 or values.shape[1] == coded.tile[1]:
            return values.reshape(-1)
        high, wide = coded.tile
        down, across = values.shape[0] // high, values.shape[1] // wide
        return np.ascontiguousarray(values.reshape(down, high, across, wide).swapaxes(1, 2)).reshape(-1)

    def _rectangle(self, place: Place) -> Float32:
        """Values [rows, columns] of a rectangle of the grid; nothing outside its rows is read."""
        rows, columns = place.rows, place.columns
        if self._transposed:
            return self._turned_rows(rows)[:, columns]
        width = self._grid[1]
        if self._parts:
            return self._rows_of_parts(rows)[:, columns]
        if isinstance(columns, slice) and rows.stop - rows.start == 1:
            start = rows.start * width
            found = self.checkpoint.float32(self.name, start + columns.start, start + min(columns.stop, width))
            return found[None, :]
        whole = self.checkpoint.float32(self.name, rows.start * width, rows.stop * width)
        matrix: Float32 = whole.reshape(-1, width)
        if isinstance(columns, slice) and columns == slice(0, width):
            return matrix
        return np.ascontiguousarray(matrix[:, columns])

    def _rows_of_parts(self, rows: slice) -> Float32:
        """Rows of a weight that the baseline keeps in several tensors, one after the other."""
        found, first, width = [], 0, self._grid[1]
        for name, height in self._parts:
            start, stop = max(rows.start - first, 0), min(rows.stop - first, height)
            if start < stop:
                found.append(self.checkpoint.float32(name, start * width, stop * width).reshape(-1, width))
            first += height
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _turned_rows(self, rows: slice) -> Float32:
        """Rows of a weight that the baseline keeps [in, out]; of a stack of experts, one matrix at a time."""
        if self._grid[0] == 1:  # blocks that run on from row to row
            return self._matrix(0, whole=True).reshape(1, -1)
        height = self._shape[-2]
        parts = []
        for number in range(rows.start // height, math.ceil(rows.stop / height)):
            first = number * height
            parts.append(self._matrix(number)[max(rows.start - first, 0) : rows.stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _matrix(self, number: int, *, whole: bool = False) -> Float32:
        if self._turned is None or self._turned[0] != number:
            high, wide = self._shape[-2:]
            start = number * high * wide
            stop = math.prod(self._shape) if whole else start + high * wide
            values = self.checkpoint.float32(self.name, start, stop).reshape(-1, wide, high)
            self._turned = number, np.ascontiguousarray(values.swapaxes(1, 2).reshape(-1, wide))
        return self._turned[1]


def _parts(weight: StoredWeight, names: tuple[str, ...], baseline: Checkpoint) -> tuple[tuple[str, int], ...]:
    """The dense tensors that make up a weight, with the rows of each; none unless they fill the grid."""
    headers = [baseline.tensors[name] for name in names]
    rows, columns = weight.grid
    if not all(header.dtype in FLOATS and len(header.shape) > 1 and header.shape[-1] == columns for header in headers):
        return ()
    heights = [header.numel // columns for header in headers]
    return tuple(zip(names, heights, strict=True)) if sum(heights) == rows else ()


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], *shape[-2:][::-1])


def _is_transposed(weight: StoredWeight, baseline: Checkpoint) -> bool:
    """Whether the architecture keeps the dense weight [in, out]: a square shape does not tell."""
    return pattern(weight.dense) in architecture_of(baseline.config or {}).transposed
