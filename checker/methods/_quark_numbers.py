"""The numbers of AMD Quark's weights, decoded as ``StaticScaledRealQuantizer.forward`` does. Imported when needed.

Verified against Quark's own importer: equal to the last bit for every dtype and scheme.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, integer_book, nibbles, whole_bytes
from checker.coded import Bytes, CodeBook, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._quark_layout import CODES_A_WORD

REORDERED = (0, 4, 1, 5, 2, 6, 3, 7)  # where the codes of a word lie, as in AWQ
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
LARGEST = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0}
LARGEST_FP4 = 4.0  # a block's largest value reaches 4 or 6, as its scale is rounded, to a power of two or to E4M3
_FLOAT6 = {"fp6_e2m3": "float6_e2m3fn", "fp6_e3m2": "float6_e3m2fn"}
_FLOAT8 = {"fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2"}


@cache
def _book(dtype: str, *, whole_blocks: bool = True) -> CodeBook:
    """The codes of a dtype. ``whole_blocks`` False: a part of a block need not hold its largest value.

    The scales are rounded to 16 bits and zero points follow from the unrounded ones, so that asymmetric codes may miss
    both ends by one; of 4 bits too little is left to promise then.
    """
    if dtype == "fp4":
        return code_book(E2M1, nibbles(high_first=False), bits=4, extreme=np.abs(E2M1) >= LARGEST_FP4)
    if dtype in _FLOAT6:
        return code_book(_float_levels(_FLOAT6[dtype], 64), whole_bytes(6), bits=6)
    if dtype in _FLOAT8:
        levels = _float_levels(_FLOAT8[dtype], 256)
        extreme = np.abs(levels) == LARGEST[dtype]
        return code_book(levels, whole_bytes(8), bits=8, extreme=extreme if whole_blocks else None, exact_extreme=True)
    if dtype == "uint8":
        code = np.arange(256)
        extreme = (code <= 1) | (code >= 254) if whole_blocks else None  # noqa: PLR2004
        return code_book(
            code.astype(np.float32), whole_bytes(8), bits=8, variance=np.full(256, 1 / 12), extreme=extreme
        )
    limit = {"int8": 127, "int4": 7}.get(dtype) if whole_blocks else None
    return integer_book(4 if dtype.endswith("int4") else 8, signed=not dtype.startswith("u"), limit=limit)


def _float_levels(name: str, count: int) -> Float32:
    import ml_dtypes

    codes = np.arange(count, dtype=np.uint8)
    levels: Float32 = codes.view(getattr(ml_dtypes, name)).astype(np.float32)
    return levels


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """A weight, or a window of it, whose tensors are known to be complete and of the right size."""
    dtype, place = str(weight.attributes["dtype"]), Place.of(weight.grid, window)
    assert isinstance(place.columns, slice)
    codes = _codes(checkpoint, weight, place.rows, place.columns)
    scaling = _scaling(checkpoint, weight, place.rows, place.columns)
    scheme = weight.attributes.get("scheme", "per_tensor")
    rows, columns = weight.grid
    tile = {"per_tensor": (rows, columns), "per_channel": (1, columns)}.get(
        str(scheme), (1, int(weight.attributes.get("group_size", columns)))
    )
    whole = window is None or scheme != "per_tensor"
    return tiled(codes, scaling, tile, _book(dtype, whole_blocks=whole), place)


def _codes(checkpoint: Checkpoint, weight: StoredWeight, rows: slice, columns: slice) -> Bytes:
    """[rows, columns / values per byte] of the window."""
    dtype, name = str(weight.attributes["dtype"]), weight.weight
    if weight.attributes.get("scheme") == "per_group" and dtype.endswith(("int8", "int4")):
        part = checkpoint.part(name, columns.start, columns.stop)
        if dtype.endswith("int4"):
            part = _words(part, weight, weight.grid[0])
        return np.ascontiguousarray(part[:, rows].T).view(np.uint8)
    part = checkpoint.part(name, rows.start, rows.stop)
    if dtype.endswith("int4"):
        return _words(part, weight, weight.grid[1])[:, columns]
    codes: Bytes = part.view(np.uint8)
    if dtype in _FLOAT6:
        return _six_bits(codes)[:, columns]
    per_byte = 2 if dtype == "fp4" else 1
    return codes[:, columns.start // per_byte : -(-columns.stop // per_byte)]


def _words(words: npt.NDArray[np.int32], weight: StoredWeight, count: int) -> Bytes:
    """4-bit codes along the last axis, low bits first or in AWQ's order; one a byte. [n, words] → [n, count]."""
    shifts = np.arange(CODES_A_WORD, dtype=np.uint32) * np.uint32(4)
    codes = (words.view(np.uint32)[..., None] >> shifts).astype(np.uint8) & np.uint8(15)
    if weight.attributes.get("pack_method") != "order":
        codes = codes[..., REORDERED]
    return codes.reshape(*words.shape[:-1], -1)[..., :count]


def _six_bits(packed: Bytes) -> Bytes:
    """Four codes in three bytes, low bits first. [n, 3m] → [n, 4m]."""
    three = packed.reshape(packed.shape[0], -1, 3)
    first, second, third = three[..., 0], three[..., 1], three[..., 2]
    four = (first & 63, first >> 6 | (second & 15) << 2, second >> 4 | (third & 3) << 4, third >> 2)
    return np.stack(four, axis=-1).reshape(packed.shape[0], -1)


def _scaling(checkpoint: Checkpoint, weight: StoredWeight, rows: slice, columns: slice) -> Scaling:
    """Scales and zero points of the window's tiles, [tile rows, tile columns]."""
    scheme, dtype = weight.attributes.get("scheme", "per_tensor"), str(weight.attributes["dtype"])
    name, zero = f"{weight.module}.weight_scale", f"{weight.module}.weight_zero_point"
    zeros = None
    if scheme == "per_group" and dtype.startswith("fp"):
        group = int(weight.attributes["group_size"])
        chosen = slice(columns.start // group, -(-columns.stop // group))
        return Scaling(scales=_block_scales(checkpoint, weight, rows)[:, chosen])
    if scheme == "per_group":
        group = int(weight.attributes["group_size"])
        first, last = columns.start // group, -(-columns.stop // group)
        scales = checkpoint.part(name, first, last).astype(np.float32)[:, rows].T
        if zero in checkpoint.tensors:
            stored = _zero_points(checkpoint.part(zero, first, last), weight, dtype)
            zeros = stored[:, rows].T
    else:
        scales = checkpoint.float32(name).reshape(-1, 1)
        if zero in checkpoint.tensors:
            zeros = _zero_points(checkpoint.array(zero).reshape(1, -1), weight, dtype).reshape(-1, 1)[: scales.size]
        if scheme == "per_channel":
            scales, zeros = scales[rows], None if zeros is None else zeros[rows]
    if zeros is not None:  # those of symmetric codes say nothing
        zeros = np.ascontiguousarray(zeros, np.float32) if zeros.any() else None
    return Scaling(scales=np.ascontiguousarray(scales, np.float32), zeros=zeros)


def _zero_points(stored: npt.NDArray[np.generic], weight: StoredWeight, dtype: str) -> Float32:
    """[n, outputs] as numbers; 4-bit ones lie in words as the codes do, unless there is but one."""
    if not dtype.endswith("int4") or weight.attributes.get("scheme", "per_tensor") == "per_tensor":
        return stored.astype(np.float32)
    codes = _words(stored.astype(np.int32), weight, weight.grid[0]).astype(np.float32)
    return np.where(codes >= 8, codes - 16, codes).astype(np.float32) if dtype == "int4" else codes  # noqa: PLR2004


def _block_scales(checkpoint: Checkpoint, weight: StoredWeight, rows: slice) -> Float32:
    """Powers of two with a bias of 127, or E4M3 times the scale of the whole weight (NVFP4)."""
    stored = checkpoint.part(f"{weight.module}.weight_scale", rows.start, rows.stop)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is counted and reported
        if stored.dtype == np.uint8:
            return np.ldexp(1.0, stored.astype(np.int32) - 127).astype(np.float32)
        second = f"{weight.module}.weight_scale_2"
        whole = checkpoint.float32(second).reshape(())[()] if second in checkpoint.tensors else np.float32(1)
        scales: Float32 = stored.astype(np.float32) * whole
    return scales
