"""The numbers of mxfp4, fbgemm_fp8, fouroversix, fp_quant and nvfp4. Imported when a weight is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, whole_bytes
from checker.coded import Bytes, CodeBook, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._float_books import E2M1, LARGEST_E4M3, e2m1_book, e4m3_book, nan_codes, powers_of_two

GROUP = 32
SMALLEST_MAXIMUM = 3.0  # of E2M1 codes whose scale was rounded up to a power of two


def columns_of(place: Place) -> slice:
    """Columns as the slice that they are here."""
    assert isinstance(place.columns, slice)
    return place.columns


def matrices(weight: StoredWeight, place: Place) -> Iterator[tuple[int, slice, Place]]:
    """The matrices of a stack that a place touches: number, rows counted from the matrix's first, and their place."""
    high = (weight.shape or (1, 1))[-2]
    width = columns_of(place).stop - columns_of(place).start
    for number in range(place.rows.start // high, math.ceil(place.rows.stop / high)):
        first = number * high
        rows = slice(max(place.rows.start - first, 0), min(place.rows.stop - first, high))
        start = first + rows.start - place.rows.start
        yield number, rows, place.part(slice(start, start + rows.stop - rows.start), slice(0, width))


def decode_mxfp4(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Groups of 32 down a column of [in, out], expert by expert: code · 2^(scale − 127)."""
    place = Place.of(weight.grid, window)
    columns = columns_of(place)
    blocks, scales = (part.name for part in weight.expected)
    pieces: list[CodedWeight] = []
    for number, rows, part in matrices(weight, place):
        groups = slice(rows.start // GROUP, math.ceil(rows.stop / GROUP))
        codes = checkpoint.part(blocks, number, number + 1)[0][columns, groups].swapaxes(0, 1)  # [groups, out, bytes]
        exponents = checkpoint.part(scales, number, number + 1)[0][columns, groups].swapaxes(0, 1)
        pieces.append(
            CodedWeight(
                place=part,
                tile=(GROUP, 1),
                book=e2m1_book(SMALLEST_MAXIMUM),
                codes=np.ascontiguousarray(codes).reshape(-1, GROUP // 2),
                scaling=Scaling(scales=powers_of_two(np.ascontiguousarray(exponents).reshape(-1))),
            )
        )
    return tuple(pieces)


def decode_rows(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """One scale a row [out, in], or a column of each expert [experts, in, out]: code · scale."""
    place = Place.of(weight.grid, window)
    columns, scale = columns_of(place), weight.expected[1].name
    book = e4m3_book(LARGEST_E4M3)
    pieces: list[CodedWeight] = []
    if len(weight.shape or ()) == 2:  # noqa: PLR2004 - a matrix
        codes = _bytes(checkpoint.part(weight.weight, place.rows.start, place.rows.stop))[:, columns]
        scales = checkpoint.float32(scale, place.rows.start, place.rows.stop).reshape(-1, 1)
        pieces += tiled(codes, Scaling(scales=scales), (1, weight.grid[1]), book, place)
    else:
        for number, rows, part in matrices(weight, place):
            codes = _bytes(checkpoint.part(weight.weight, number, number + 1)[0][rows, columns])
            width = weight.grid[1]
            scales = checkpoint.float32(scale, number * width, (number + 1) * width)[None, columns]
            pieces += tiled(codes, Scaling(scales=scales), (codes.shape[0], 1), book, part)
    flaw = next((found for piece in pieces if (found := nan_codes(piece.codes))), "")
    return tuple(replace(piece, code_book_flaw=flaw) for piece in pieces) if flaw else tuple(pieces)


def _bytes(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Bytes:
    return np.ascontiguousarray(values).view(np.uint8)


def unswizzle(scales: Bytes, rows: int, columns: int) -> Bytes:
    """Scale bytes from the tensor cores' tiles of 128 × 4 to rows: element (32 a + b, c) of a tile lies at [b, a, c].

    Flat, of ceil(rows / 128) · ceil(columns / 4) tiles → [rows, columns] (``from_blocked`` in
    fouroversix/quantize/dequantize_utils.py).
    """
    down, across = math.ceil(rows / 128), math.ceil(columns / 4)
    tiles = scales.reshape(down, across, 32, 4, 4).transpose(0, 3, 2, 1, 4)
    return np.ascontiguousarray(tiles.reshape(down * 128, across * 4)[:rows, :columns])


def e4m3_values(codes: Bytes) -> Float32:
    """Bytes as 8-bit floats."""
    levels: Float32 = e4m3_book(0.0).levels[:, 0]
    return levels[codes]


def decode_fouroversix(
    checkpoint: Checkpoint, weight: StoredWeight, window: Window | None, rule: str
) -> tuple[CodedWeight, ...]:
    """Blocks along a row; scales in tiles of 128 rows, of which whole ones are read."""
    kind = weight.attributes["quant_type"]
    if kind not in ("nvfp4", "mxfp4"):
        return ()
    place = Place.of(weight.grid, window)
    group, width = int(weight.attributes["group_size"]), weight.grid[1]
    codes, scales, amax, metadata = (part.name for part in weight.expected)
    across = math.ceil(width / group)
    rows = place.rows.stop - place.rows.start
    stored = _bytes(checkpoint.part(scales, place.rows.start * across, place.rows.stop * across))
    if int(checkpoint.array(metadata)[-1]) == 1:
        stored = unswizzle(stored, rows, across)
    if kind == "mxfp4":
        values = powers_of_two(stored.reshape(rows, across))
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # hostile scales are counted and reported
            factor = checkpoint.float32(amax)[0] / np.float32(FULL_SCALE[rule])
            values = e4m3_values(stored.reshape(rows, across)) * factor
    packed = checkpoint.part(codes, place.rows.start, place.rows.stop)
    scaling = Scaling(scales=values, flaw=_rule_flaw(stored, rule) if kind == "nvfp4" else "")
    return tiled(np.ascontiguousarray(packed), scaling, (1, group), e2m1_book(SMALLEST_MAXIMUM), place)


FULL_SCALE = {"static_6": 6 * 448, "static_4": 4 * 448, "mse": 6 * 256, "mae": 6 * 256, "abs_max": 6 * 256}
LARGEST_ADAPTIVE = 384  # 256 for a maximum of 6, half as much again for one of 4


def _rule_flaw(stored: Bytes, rule: str) -> str:
    """The adaptive rules leave room above a scale of 256, the static ones use all of E4M3."""
    largest = float(np.nanmax(e4m3_values(stored), initial=0))
    if not rule.startswith("static") and largest > LARGEST_ADAPTIVE:
        return f"a scale of {largest:g} is above {LARGEST_ADAPTIVE}, the most that scale_rule {rule} gives"
    return ""


def decode_fp_quant(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Blocks along a row: code · scale / global scale. Of pseudo-quantized values the codes are found again."""
    place = Place.of(weight.grid, window)
    columns = columns_of(place)
    if weight.attributes["pseudoquantization"]:
        width = weight.grid[1]
        values = checkpoint.float32(weight.weight, place.rows.start * width, place.rows.stop * width)
        return _codes_again(values.reshape(-1, width)[:, columns], place)
    four = weight.attributes["forward_dtype"] == "mxfp4"
    group = GROUP if four else GROUP // 2
    codes = checkpoint.part(weight.weight, place.rows.start, place.rows.stop)
    stored = checkpoint.part(weight.expected[1].name, place.rows.start, place.rows.stop)
    stored = np.ascontiguousarray(stored[:, columns.start // group : math.ceil(columns.stop / group)])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # hostile scales are counted and reported
        unit = checkpoint.float32(weight.expected[2].name)[0]
        scales = (powers_of_two(stored) if four else e4m3_values(stored)) / unit
    chosen = np.ascontiguousarray(codes[:, columns.start // 2 : math.ceil(columns.stop / 2)])
    return tiled(chosen, Scaling(scales=scales), (1, group), e2m1_book(SMALLEST_MAXIMUM), place)


def _codes_again(values: Float32, place: Place) -> tuple[CodedWeight, ...]:
    """Decoded values [rows, columns] as codes and scales of 16: the scale that puts all of a block on E2M1's grid.

    The largest value of a block is 6, 4, 3, … times the scale, up to the rounding to bfloat16. A block for which none
    of these fits was never quantized.
    """
    group = GROUP // 2
    rows, width = values.shape
    blocks = np.pad(values, ((0, 0), (0, -width % group))).reshape(-1, group)
    magnitude = np.abs(blocks)
    largest = magnitude.max(axis=1, keepdims=True)
    grid = np.array(E2M1, np.float32)
    middles = (grid[:-1] + grid[1:]) / 2
    codes = np.zeros(blocks.shape, np.uint8)
    scales = np.zeros(len(blocks), np.float32)
    left = (largest[:, 0] > 0) & np.isfinite(largest[:, 0])
    scales[~left & ~np.isfinite(largest[:, 0])] = np.nan
    for level in grid[:0:-1]:
        chosen = np.flatnonzero(left)
        scale = largest[chosen] / level
        nearest = np.searchsorted(middles, magnitude[chosen] / scale)
        fits = (np.abs(grid[nearest] * scale - magnitude[chosen]) <= largest[chosen] * ROUNDING).all(axis=1)
        found = chosen[fits]
        codes[found] = nearest[fits]
        scales[found] = scale[fits, 0]
        left[found] = False
    codes |= np.where(np.signbit(blocks), np.uint8(8), np.uint8(0))
    flaw = f"{np.count_nonzero(left)} of {left.size} blocks are not on the grid of 4-bit floats" if left.any() else ""
    matrix = codes.reshape(rows, -1)[:, :width]
    pieces = tiled(matrix, Scaling(scales=scales.reshape(rows, -1)), (1, group), _single_e2m1(), place)
    return tuple(replace(piece, code_book_flaw=flaw) for piece in pieces)


@cache
def _single_e2m1() -> CodeBook:
    """One code a byte."""
    levels = np.array([*E2M1, *(-value for value in E2M1)], np.float32)
    return code_book(levels, whole_bytes(4), bits=4)


ROUNDING = 2.0**-7  # of the largest value of a block: two values rounded to bfloat16


def transform_of(matrix: Float32) -> str:
    """identity, hadamard (Sylvester's), gsr (the same with columns by sequency), or other. Shape [n, n], n = 2^k."""
    size = matrix.shape[0]
    index = np.arange(size)
    overlap = index[:, None] & index[None, :]
    parity = np.array([int(value).bit_count() % 2 for value in range(size)])[overlap]
    hadamard = ((1 - 2 * parity) * size**-0.5).astype(np.float32)
    by_sequency = hadamard[:, np.argsort((np.diff(hadamard, axis=0) != 0).sum(axis=0), kind="stable")]
    known = {"identity": np.eye(size, dtype=np.float32), "hadamard": hadamard, "gsr": by_sequency}
    return next((name for name, other in known.items() if np.allclose(matrix, other, rtol=0, atol=1e-2)), "other")
