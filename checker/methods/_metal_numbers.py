"""The numbers of MLX's weights, verified against ``mlx.core.dequantize`` and transformers' own function."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, whole_bytes
from checker.coded import Bytes, CodeBook, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._float_books import e2m1_book, e4m3_book, nan_codes


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Codes and tables of one weight whose tensors are known to be complete and of the right size."""
    place = Place.of(weight.grid, window)
    bits, group = int(weight.attributes["bits"]), int(weight.attributes["group_size"])
    mode = str(weight.attributes["mode"])
    codes = _codes(_rows(checkpoint, weight.weight, place.rows).view(np.uint8), bits, weight.grid[1])
    width = weight.grid[1] // group
    scales = _groups(checkpoint, f"{weight.module}.scales", place.rows, width)
    if mode != "affine":
        scaling = Scaling(scales=_small_floats(mode)[scales.astype(np.uint8)])
        if mode == "mxfp8":
            pieces = tiled(codes, scaling, (1, group), e4m3_book(0), place)
            return tuple(replace(piece, code_book_flaw=nan_codes(codes)) for piece in pieces)
        return tiled(codes, scaling, (1, group), e2m1_book(0), place)
    biases = str(weight.attributes["biases"])
    offsets = _groups(checkpoint, f"{weight.module}.{biases}", place.rows, width)
    scaling = Scaling(scales=scales, offsets=offsets, negative=biases == "biases")
    coarse = checkpoint.tensors[f"{weight.module}.scales"].dtype == "BF16"
    return tiled(codes, scaling, (1, group), _integer_book(bits, _rounding(scales) if coarse else 0.0), place)


def _rounding(scales: Float32) -> float:
    """Mean squared relative error of storing scales in bfloat16, two digits of it.

    Codes are made with scales in float32, which are rounded afterwards: neighbours at v are 2^(⌊log2 v⌋ − 7) apart, and
    the square of that / 12 is the mean squared error. A bias is a weight of the group, and so is exact.
    """
    used = np.abs(scales[np.isfinite(scales) & (scales != 0)]).astype(np.float64)
    if not used.size:
        return 0.0
    return float(f"{np.mean((np.exp2(np.floor(np.log2(used)) - 7) / used) ** 2) / 12:.1e}")


def _rows(checkpoint: Checkpoint, name: str, rows: slice) -> npt.NDArray[Any]:
    """Rows of a matrix or of a stack of matrices."""
    shape = checkpoint.tensors[name].shape
    if len(shape) == 2:  # noqa: PLR2004 - a matrix
        return np.ascontiguousarray(checkpoint.part(name, rows.start, rows.stop))
    high = shape[-2]
    first = rows.start // high
    part = checkpoint.part(name, first, math.ceil(rows.stop / high)).reshape(-1, shape[-1])
    return np.ascontiguousarray(part[rows.start - first * high : rows.stop - first * high])


def _groups(checkpoint: Checkpoint, name: str, rows: slice, width: int) -> Float32:
    return checkpoint.float32(name, rows.start * width, rows.stop * width).reshape(-1, width)


def _codes(stored: Bytes, bits: int, columns: int) -> Bytes:
    """Bytes as they are where codes fill them, else one code a byte. [rows, bytes] → [rows, columns / per byte]."""
    if 8 % bits == 0:
        return stored
    stream = np.unpackbits(stored, axis=1, bitorder="little")[:, : columns * bits]
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return np.asarray((stream.reshape(stored.shape[0], columns, bits) * weights).sum(axis=2, dtype=np.uint8))


@lru_cache(1024)
def _integer_book(bits: int, scale_error: float) -> CodeBook:
    """Whole numbers from 0 on, several to a byte where they fit. A group begins at one of its ends: code 0 occurs.

    ``scale_error``: what rounding the scales adds, times the squared code.
    """
    count = 1 << bits
    code = np.arange(count)
    fields = [(np.arange(256) >> shift) & (count - 1) for shift in range(0, 8, bits)] if 8 % bits == 0 else None
    symbols = whole_bytes(bits) if fields is None else np.stack(fields, axis=1).astype(np.uint8)
    variance = (1 / 12 + scale_error * code**2).astype(np.float32)
    extreme = (code == 0) | (code == count - 1)
    return code_book(code.astype(np.float32), symbols, bits=bits, variance=variance, extreme=extreme)


@cache
def _small_floats(mode: str) -> Float32:
    """What the 256 scale bytes mean: powers of two (E8M0), or E4M3."""
    import ml_dtypes

    kind = ml_dtypes.float8_e4m3fn if mode == "nvfp4" else ml_dtypes.float8_e8m0fnu
    values: Float32 = np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)
    return values
