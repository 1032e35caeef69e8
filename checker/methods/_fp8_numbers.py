"""The numbers of fine-grained FP8 weights. Imported when a weight is decoded.

Equal to ``Fp8Dequantize`` of transformers (integrations/finegrained_fp8.py) where blocks are whole, and to its
``_dequantize_fp8_weight`` where the last one is partial.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from checker.checkpoint import Checkpoint
from checker.coded import Bytes, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._float_books import (
    LARGEST_E4M3,
    all_powers_of_two,
    e2m1_book,
    e4m3_book,
    nan_codes,
    powers_of_two,
)

SMALLEST_MAXIMUM = 3.0  # of E2M1 codes whose scale was rounded up to a power of two


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Codes, scales and tables, one matrix after the other; the tensors are known to be complete and of the right size.

    A scale is the largest magnitude of its block over 448 (``Fp8Quantize``), so that every block holds a code of ±448;
    rounded up to a power of two, one of more than half of that. One scale for a whole matrix promises nothing: it may
    have been shared with other matrices, or found on activations.
    """
    place = Place.of(weight.grid, window)
    high = (weight.shape or (1, 1))[-2]
    pieces: list[CodedWeight] = []
    for number in range(place.rows.start // high, math.ceil(place.rows.stop / high)):
        first = number * high
        rows = slice(max(place.rows.start - first, 0), min(place.rows.stop - first, high))
        part = place.part(
            slice(rows.start + first - place.rows.start, rows.stop + first - place.rows.start),
            slice(0, _columns(place).stop - _columns(place).start),
        )
        pieces += _matrix(checkpoint, weight, number, rows, part)
    return tuple(pieces)


def _matrix(
    checkpoint: Checkpoint, weight: StoredWeight, number: int, rows: slice, place: Place
) -> tuple[CodedWeight, ...]:
    """Rows of one matrix: ``number`` counts experts, ``rows`` count from the matrix's own first."""
    columns, width = _columns(place), weight.grid[1]
    scales, tile = _scales(checkpoint, weight, number, rows)
    if columns != slice(0, width):
        scales = scales[:, columns.start // tile[1] : math.ceil(columns.stop / tile[1])]
    four = weight.attributes["bits"] == 4  # noqa: PLR2004
    codes = _codes(checkpoint, weight, number, rows)
    per_byte = 2 if four else 1
    codes = codes[:, columns.start // per_byte : math.ceil(columns.stop / per_byte)]
    if four:
        return tiled(codes, Scaling(scales=scales), tile, e2m1_book(SMALLEST_MAXIMUM), place)
    extreme = 0.0
    if weight.attributes["block_size"]:
        extreme = LARGEST_E4M3 / 2 if all_powers_of_two(scales) else LARGEST_E4M3
    pieces = tiled(codes, Scaling(scales=scales), tile, e4m3_book(extreme), place)
    flaw = nan_codes(codes)
    return tuple(replace(piece, code_book_flaw=flaw) for piece in pieces) if flaw else pieces


def _columns(place: Place) -> slice:
    assert isinstance(place.columns, slice)
    return place.columns


def _codes(checkpoint: Checkpoint, weight: StoredWeight, number: int, rows: slice) -> Bytes:
    if len(weight.shape or ()) > 2:  # noqa: PLR2004 - experts in one tensor
        found = checkpoint.part(weight.weight, number, number + 1)[0][rows]
    else:
        found = checkpoint.part(weight.weight, rows.start, rows.stop)
    return np.ascontiguousarray(found).view(np.uint8)


def _scales(checkpoint: Checkpoint, weight: StoredWeight, number: int, rows: slice) -> tuple[Float32, tuple[int, int]]:
    """The scales of some rows of one matrix, [block rows, block columns], and the size of a block."""
    name = weight.expected[1].name
    high, wide = (weight.shape or (1, 1))[-2:]
    block = weight.attributes["block_size"]
    if block:
        down, across = checkpoint.tensors[name].shape[-2:]
    else:  # one for the matrix, or one for each half of a fused gate and up projection
        down, across = checkpoint.tensors[name].numel // max(weight.grid[0] // high, 1), 1
        block = (math.ceil(high / down), wide)
    first = number * down * across
    top, bottom = rows.start // block[0], math.ceil(rows.stop / block[0])
    values = checkpoint.float32(name, first + top * across, first + bottom * across).reshape(-1, across)
    if checkpoint.tensors[name].dtype == "U8":
        values = powers_of_two(values)
    return values, (min(block[0], max(rows.stop - rows.start, 1)), block[1])
