"""The numbers of AutoRound's packings of floating point. Imported when a weight is decoded.

Verified against ``dequant_weight_online`` of its MXFP4, MXINT4, MXFP8, NVFP4 and 8-bit linear layers.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, nibbles
from checker.coded import Bytes, CodeBook, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._auto_round_floats import FULL_BYTE, MX_GROUP, NV_GROUP
from checker.methods._float_books import e2m1_book, e4m3_book, nan_codes, powers_of_two

QUARTER = 0.25  # the step of MXINT4: eight magnitudes from 0 to 1.75, and a sign


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """A weight in rows of codes; whole rows are read."""
    place = Place.of(weight.grid, window)
    kind, bits = str(weight.attributes["data_type"]), int(str(weight.attributes["bits"]))
    codes: Bytes = checkpoint.part(weight.weight, place.rows.start, place.rows.stop).view(np.uint8)
    assert isinstance(place.columns, slice)
    columns = place.columns
    per_byte = 1 if bits == FULL_BYTE else 2
    codes = codes[:, columns.start // per_byte : math.ceil(columns.stop / per_byte)]
    tile, scales = _scales(checkpoint, weight, place.rows)
    scales = scales[:, columns.start // tile[1] : math.ceil(columns.stop / tile[1])]
    flaw = nan_codes(codes) if bits == FULL_BYTE else ""
    scaling = Scaling(scales=np.ascontiguousarray(scales), flaw=flaw)
    return tiled(np.ascontiguousarray(codes), scaling, tile, _book(kind, bits), place)


def _book(kind: str, bits: int) -> CodeBook:
    if bits == FULL_BYTE:
        return e4m3_book(0)
    return _sign_and_quarters() if kind == "mx_int" else e2m1_book(0)


@cache
def _sign_and_quarters() -> CodeBook:
    """Quarters with a sign bit, two codes a byte, the low nibble first (``FLOAT_TO_E0M4`` in AutoRound)."""
    magnitudes = np.arange(FULL_BYTE) * QUARTER
    levels = np.concatenate([magnitudes, -magnitudes]).astype(np.float32)
    return code_book(levels, nibbles(high_first=False), bits=4)


def _scales(checkpoint: Checkpoint, weight: StoredWeight, rows: slice) -> tuple[tuple[int, int], Float32]:
    """Rows and columns that share a scale, and the scales of some rows of the grid."""
    kind, (height, width), name = weight.attributes["data_type"], weight.grid, f"{weight.module}.weight_scale"
    if kind == "nv_fp":
        groups = math.ceil(width / NV_GROUP)
        values = checkpoint.float32(name, rows.start * groups, rows.stop * groups).reshape(-1, groups)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # hostile scales are counted and reported
            divided: Float32 = values / checkpoint.float32(f"{weight.module}.weight_global_scale")
        return (1, NV_GROUP), divided
    if kind != "fp":
        return (1, MX_GROUP), powers_of_two(checkpoint.part(name, rows.start, rows.stop))
    block = weight.attributes.get("block")
    if isinstance(block, list):
        high, wide = int(str(block[0])), int(str(block[1]))
        first, last, across = rows.start // high, math.ceil(rows.stop / high), math.ceil(width / wide)
        found = checkpoint.float32(f"{name}_inv", first * across, last * across)
        return (high, wide), found.reshape(-1, across)
    if weight.attributes["rows"] == 1:
        return (height, width), checkpoint.float32(name).reshape(1, 1)
    return (1, width), checkpoint.float32(name, rows.start, rows.stop).reshape(-1, 1)
