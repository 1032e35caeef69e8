"""One gain for each input column and output row, for methods that rescale them as they calibrate (AWQ, SmoothQuant)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.coded import CodedWeight, Float32
from checker.facts import ErrorFact
from checker.probes.original import Original
from checker.probes.tiles import decode_tiles, width_of

STRIP_VALUES = 1 << 22  # a few arrays of 16 MB
FEWEST = 32  # rows or columns; below, gains explain too much of the error by chance
LEAST_ROWS = 64  # of a sample that gains are fitted to
EQUAL = 0.02  # relative spread of gains below which they are one factor for the whole layer: no calibration does that
ROUNDS = 6  # of alternating least squares; each halves what is left or better


@dataclass(slots=True)
class _Left:
    """What the gains leave: squared error, squared decoded values, and how much chance has helped."""

    error: float = 0.0
    decoded: float = 0.0
    values: int = 0
    gains: int = 0
    spread: float = 0.0  # of the gains, relative


def fit_gains(fact: ErrorFact, pieces: list[CodedWeight], original: Original, predicted: float) -> ErrorFact:
    """The fact after gains per row and column: what calibration multiplies them by does not count as error.

    AWQ (arXiv:2306.00978) and SmoothQuant (arXiv:2211.10438) scale input column j by c_j before quantizing and divide
    the layer before by it: its output rows, r_i. So Ŵ ≈ r·c·W, fitted by alternating least squares.
    Rows get a gain only where they have several scales each; else one damaged scale would pass for a gain. A row or
    column whose gain would not be positive is no calibration, and keeps all of its error.
    """
    left = _Left()
    for coded in pieces:
        for decoded, values in strips(coded, original):
            _fit(left, decoded, values, rows=width_of(coded) > coded.tile[1])
    if left.values <= left.gains or not predicted or left.spread < EQUAL:
        return fact
    ratio = left.error / predicted * left.values / (left.values - left.gains)
    if ratio >= fact.ratio:
        return fact
    nrmse = math.sqrt(max(left.error, 0.0) / max(left.decoded, 1e-300))
    return replace(
        fact,
        ratio=ratio,
        nrmse=nrmse,
        sqnr_db=-20 * math.log10(nrmse) if nrmse else fact.sqnr_db,
        centred_gain=1.0,  # the fitted gains have taken it up
        fitted_gains=True,
    )


def strips(coded: CodedWeight, original: Original) -> Iterator[tuple[Float32, Float32]]:
    """Decoded and original values as matrices [rows, columns], some rows of tiles at a time."""
    high, wide = coded.tile
    across = math.ceil(width_of(coded) / wide)
    step = max(1, STRIP_VALUES // (across * coded.tile_size)) * across
    count = coded.scaling.scales.size
    for start in range(0, count, step):
        tiles = slice(start, min(start + step, count))
        rows = (tiles.stop - tiles.start) // across * high
        values = _matrix(original.tiles(coded, tiles), rows, (high, wide))
        yield _matrix(decode_tiles(coded, tiles).reshape(-1)[: values.size], rows, (high, wide)), values


def _matrix(values: Float32, rows: int, tile: tuple[int, int]) -> Float32:
    """Values in the order of their tiles → [rows, columns]."""
    high, wide = tile
    if high == 1:
        return values.reshape(rows, -1)
    return values.reshape(rows // high, -1, high, wide).swapaxes(1, 2).reshape(rows, -1)


def _fit(left: _Left, decoded: Float32, values: Float32, *, rows: bool) -> None:
    product, square = decoded * values, np.square(values)
    total = float(np.einsum("ij,ij->", decoded, decoded, dtype=np.float64))
    left.decoded += total
    left.values += values.size
    height, width = values.shape
    if height < FEWEST:
        left.error += float(np.einsum("ij,ij->", decoded - values, decoded - values, dtype=np.float64))
        return
    row = np.ones(height, np.float32)
    column = _gain(row @ product, np.square(row) @ square)
    for _ in range(ROUNDS if rows and width >= FEWEST else 0):
        row = _gain(product @ column, square @ np.square(column))
        column = _gain(row @ product, np.square(row) @ square)
    explained = float(column.astype(np.float64) @ (row @ product).astype(np.float64))
    left.error += max(total - explained, 0.0)
    left.gains += width + (height if rows else 0)
    left.spread = max(left.spread, _spread(column), _spread(row))


def _spread(gains: Float32) -> float:
    positive = gains[gains > 0]
    return float(np.std(np.log(positive))) if positive.size else 0.0


def _gain(product: npt.NDArray[Any], square: npt.NDArray[Any]) -> Float32:
    """Least-squares gains, none below 0; 0 where there is nothing to fit."""
    gain = np.where(product > 0, product, 0) / np.where(square > 0, square, 1)
    return gain.astype(np.float32)
