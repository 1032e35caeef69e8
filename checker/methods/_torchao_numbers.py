"""The numbers of torchao's weights: code books, scales in every order they are stored in, decoding.

Verified against ``dequantize()`` of each tensor subclass, to the last bit after the cast to its dtype.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, integer_book, nibbles, whole_bytes
from checker.coded import Bytes, CodeBook, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._float_books import LARGEST_E4M3, e2m1_book, e4m3_book, nan_codes
from checker.methods._torchao_layout import FOUR_BITS, INNER, TILE_IN, TILE_OUT

_TILE_SHIFTS = (0, 16, 4, 20, 8, 24, 12, 28)  # of inputs 0, 1, 8, 9, 16, 17, 24, 25 in an int32 of tinygemm


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Codes and tables of one weight whose tensors are known to be complete and of the right size."""
    kind = str(weight.attributes["tensor_class"])
    place = Place.of(weight.grid, window)
    prefix = weight.weight.removesuffix("qdata")
    return _DECODERS[kind](checkpoint, weight, prefix, place)


def _plain(checkpoint: Checkpoint, weight: StoredWeight, prefix: str, place: Place) -> tuple[CodedWeight, ...]:
    """One code a byte, in the weight's own order: value = (code − zero point) · scale."""
    codes = _rows(checkpoint, weight.weight, place.rows).view(np.uint8)
    block = weight.attributes["block_size"] or [1, weight.grid[1]]
    tile = (math.prod(block[:-1]), int(block[-1]))
    scales = _grid_of(checkpoint, f"{prefix}scale", weight.grid, tile, place.rows)
    zeros = None
    if f"{prefix}zero_point" in checkpoint.tensors and "zero_point" in weight.attributes["parts"]:
        zeros = _grid_of(checkpoint, f"{prefix}zero_point", weight.grid, tile, place.rows)
        zeros = zeros if np.any(zeros) else None
    bits = int(weight.attributes["bits"])
    if weight.attributes["tensor_class"] == "Float8Tensor":
        book = _e5m2() if weight.attributes["quant_type"] == "float8_e5m2" else e4m3_book(LARGEST_E4M3)
    else:
        book = _integers(bits, coarse=checkpoint.tensors[f"{prefix}scale"].dtype == "BF16")
    zero = int(np.count_nonzero(scales == 0)) if zeros is not None else 0  # the library keeps scales away from 0
    scaling = Scaling(scales=scales, zeros=zeros, flaw=f"{zero} of {scales.size} scales are zero" if zero else "")
    pieces = tiled(codes, scaling, tile, book, place)
    flaw = nan_codes(codes) if book is e4m3_book(LARGEST_E4M3) else _outside(codes, bits)
    return tuple(replace(piece, code_book_flaw=flaw) for piece in pieces) if flaw else pieces


def _outside(codes: Bytes, bits: int) -> str:
    """Codes of fewer than 8 bits are kept in a byte each; what needs more bits is no code."""
    if bits == 8:  # noqa: PLR2004 - every byte is a code
        return ""
    signed = codes.view(np.int8)
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    wrong = int(np.count_nonzero((signed < low) | (signed > high)))
    return f"{wrong} codes are outside {low} to {high}, the range of int{bits}" if wrong else ""


def _int4(checkpoint: Checkpoint, weight: StoredWeight, prefix: str, place: Place) -> tuple[CodedWeight, ...]:
    """Two's complement, low nibble first; scales and zero points [groups, out]: value = code · scale + zero."""
    codes = _rows(checkpoint, weight.weight, place.rows).view(np.uint8)
    group = int(weight.attributes["block_size"][-1])
    scales, zeros = (_turned(checkpoint, f"{prefix}{part}", place.rows) for part in ("scale", "zero_point"))
    scaling = Scaling(scales=scales, offsets=zeros)
    return tiled(codes, scaling, (1, group), _nibble_integers(), place)


def _int4_words(checkpoint: Checkpoint, weight: StoredWeight, prefix: str, place: Place) -> tuple[CodedWeight, ...]:
    """Eight unsigned codes to an int32, low bits first; whole zero points: value = (code − zero) · scale."""
    codes = _rows(checkpoint, weight.weight, place.rows).view(np.uint8)
    group = int(weight.attributes["block_size"][-1])
    scales, zeros = (_turned(checkpoint, f"{prefix}{part}", place.rows) for part in ("scale", "zero_point"))
    levels = np.arange(16, dtype=np.float32)
    book = code_book(levels, nibbles(high_first=False), bits=4, variance=np.full(16, 1 / 12, np.float32))
    return tiled(codes, Scaling(scales=scales, zeros=zeros), (1, group), book, place)


def _int4_tiled(checkpoint: Checkpoint, weight: StoredWeight, prefix: str, place: Place) -> tuple[CodedWeight, ...]:
    """The tiles of tinygemm; scale and zero point side by side: value = (code − 8) · scale + zero."""
    shape = weight.shape or (0, 0)
    high = math.ceil(shape[-2] / TILE_OUT) * TILE_OUT
    group = int(weight.attributes["block_size"][-1])
    pair = checkpoint.float32(f"{prefix}scale_and_zero").reshape(-1, _padded(shape[-1]) // group, high, 2)
    pair = pair[:, : math.ceil(shape[-1] / group), : shape[-2]].transpose(0, 2, 1, 3)
    pair = pair.reshape(-1, pair.shape[2], 2)[place.rows]
    words = checkpoint.array(weight.weight).view(np.uint32).reshape(-1, high // TILE_OUT, *_inner(shape[-1]))
    codes = untile(words)[:, : shape[-2], : shape[-1]].reshape(-1, shape[-1])[place.rows]
    scaling = Scaling(scales=np.ascontiguousarray(pair[..., 0]), offsets=np.ascontiguousarray(pair[..., 1]))
    return tiled(codes, scaling, (1, group), _tile_integers(), place)


def _padded(columns: int) -> int:
    return math.ceil(columns / TILE_IN) * TILE_IN


def _inner(columns: int) -> tuple[int, int, int]:
    return _padded(columns) // INNER, 32, 4


def untile(words: npt.NDArray[np.uint32]) -> Bytes:
    """Codes of tinygemm's tiles. [n, out / 8, in / 128, 32, 4] → [n, out, in], one code a byte.

    Lane t of a warp holds row t / 4 and of each 32 inputs those at 2 (t % 4) + 0, 1, 8, 9, 16, 17, 24 and 25, two
    k-tiles of 16 to a word (``matrix_to_m16n8k16_Bint4_layout`` in aten/src/ATen/native/cuda/int4mm.cu).
    """
    shifts = np.array(_TILE_SHIFTS, np.uint32)
    codes = ((words[..., None] >> shifts) & np.uint32(15)).astype(np.uint8)  # […, lane, word, eight]
    count, tiles, inner = words.shape[:3]
    codes = codes.reshape(count, tiles, inner, 8, 4, 4, 4, 2)  # row, lane % 4, word, which 8, odd
    return codes.transpose(0, 1, 3, 2, 5, 6, 4, 7).reshape(count, tiles * TILE_OUT, inner * INNER)


def _microscaled(checkpoint: Checkpoint, weight: StoredWeight, prefix: str, place: Place) -> tuple[CodedWeight, ...]:
    """E4M3 or E2M1 codes (low nibble first) with a power of two, or an E4M3 scale times the tensor's own, a group."""
    codes = _rows(checkpoint, weight.weight, place.rows).view(np.uint8)
    group = int(weight.attributes["block_size"][-1])
    rows, groups = weight.grid[0], weight.grid[1] // group
    scales = checkpoint.float32(f"{prefix}scale")
    if weight.attributes["swizzled"]:
        high = (weight.shape or (0, 0))[-2]
        scales = unswizzle(scales, rows // high, high, groups)
    scales = scales.reshape(rows, groups)[place.rows]
    nvfp4 = weight.attributes["tensor_class"] == "NVFP4Tensor"
    if nvfp4 and f"{prefix}per_tensor_scale" in checkpoint.tensors:
        scales = scales * checkpoint.float32(f"{prefix}per_tensor_scale")[0]
    if weight.attributes["bits"] == FOUR_BITS:
        book, flaw = e2m1_book(6.0 if nvfp4 else 3.0), ""
    else:  # the scale is rounded up to a power of two: the largest code is above half of 448
        book, flaw = e4m3_book(LARGEST_E4M3 / 2), nan_codes(codes)
    pieces = tiled(codes, Scaling(scales=scales), (1, group), book, place)
    return tuple(replace(piece, code_book_flaw=flaw) for piece in pieces)


def unswizzle(scales: Float32, count: int, rows: int, groups: int) -> Float32:
    """Scales from the hardware's tiles of 128 × 4 (``to_blocked``, torchao/prototype/mx_formats/utils.py).

    Flat → [count · rows, groups]; in a tile, row 32 a + b and group c lie at [b, a, c].
    """
    down, across = math.ceil(rows / 128), math.ceil(groups / 4)
    tiles = scales.reshape(count, down, across, 32, 4, 4).transpose(0, 1, 4, 3, 2, 5)
    return np.ascontiguousarray(tiles.reshape(count, down * 128, across * 4)[:, :rows, :groups]).reshape(-1, groups)


def _rows(checkpoint: Checkpoint, name: str, rows: slice) -> Bytes:
    """Rows of a matrix or of a stack of matrices, [rows, items of a row]."""
    shape = checkpoint.tensors[name].shape
    if len(shape) < 3:  # noqa: PLR2004 - a stack of experts has three
        part = checkpoint.part(name, rows.start, rows.stop)
        return np.ascontiguousarray(part.reshape(rows.stop - rows.start, -1))
    high = shape[-2]
    first = rows.start // high
    part = checkpoint.part(name, first, math.ceil(rows.stop / high)).reshape(-1, shape[-1])
    return np.ascontiguousarray(part[rows.start - first * high : rows.stop - first * high])


def _grid_of(checkpoint: Checkpoint, name: str, grid: tuple[int, int], tile: tuple[int, int], rows: slice) -> Float32:
    """Scales [tile rows, tile columns] of some rows."""
    across = max(1, math.ceil(grid[1] / tile[1]))
    start, stop = rows.start // tile[0] * across, math.ceil(rows.stop / tile[0]) * across
    return checkpoint.float32(name, start, stop).reshape(-1, across)


def _turned(checkpoint: Checkpoint, name: str, rows: slice) -> Float32:
    """[…, groups, out] → [rows, groups] of the joined rows."""
    shape = checkpoint.tensors[name].shape
    values = checkpoint.float32(name).reshape(-1, *shape[-2:]).swapaxes(1, 2).reshape(-1, shape[-2])
    return np.ascontiguousarray(values[rows])


@cache
def _integers(bits: int, *, coarse: bool) -> CodeBook:
    """Whole numbers in two's complement, a byte each. Extreme: the largest magnitudes, both ends alike.

    ``coarse``: torchao multiplied by the reciprocal of the scale in bfloat16 (``_quantize_affine_no_dtype_cast``),
    whose 8 bits round w / s before it is rounded to a code: to steps of u = 2^(⌊log2 q⌋ − 7), which adds u² / 4 on
    average, as in compressed-tensors; the rounding of the reciprocal, up to 2^-9 of q, adds q² · 2^-18 / 6.
    """
    levels = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
    magnitude = np.maximum(np.abs(levels), 1)
    variance = np.full(256, 1 / 12, np.float32)
    if coarse:
        step = np.exp2(np.floor(np.log2(magnitude)) - 7)
        variance = (variance + step**2 / 4 + magnitude**2 * 2.0**-18 / 6).astype(np.float32)
    limit = (1 << bits - 1) - 1
    extreme = np.abs(levels) >= max(limit, 1)
    book = code_book(levels, whole_bytes(8), bits=bits, variance=variance, extreme=extreme)
    symbols = np.clip(levels + (1 << bits - 1), 0, (1 << bits) - 1).astype(np.uint8)
    return replace(book, symbols=symbols[:, None], symbol_count=1 << bits)


@cache
def _nibble_integers() -> CodeBook:
    return integer_book(4, signed=True, packed="low", limit=7)


@cache
def _tile_integers() -> CodeBook:
    levels = np.arange(16, dtype=np.float32) - 8
    variance = np.full(16, 1 / 12, np.float32)
    return code_book(levels, whole_bytes(4), bits=4, variance=variance)


@cache
def _e5m2() -> CodeBook:
    """All 256 values of E5M2, which has infinities and NaNs."""
    import ml_dtypes

    levels = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e5m2).astype(np.float32)
    magnitude = np.where(np.isfinite(levels), np.abs(levels), 0)
    return code_book(levels, whole_bytes(8), bits=8, extreme=magnitude == magnitude.max())


_DECODERS = {
    "Int8Tensor": _plain,
    "IntxUnpackedToInt8Tensor": _plain,
    "Float8Tensor": _plain,
    "Int4Tensor": _int4,
    "Int4PlainInt32Tensor": _int4_words,
    "Int4TilePackedTo4dTensor": _int4_tiled,
    "MXTensor": _microscaled,
    "NVFP4Tensor": _microscaled,
}
