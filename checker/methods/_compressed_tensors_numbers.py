"""The numbers of compressed-tensors' weights. Imported when a weight is decoded.

Equal to ``BaseCompressor.decompress`` of the library once rounded to its dtype (that of the scales; bfloat16 for 4-bit
floats). Integers are packed low bits first along the columns, zero points along the rows, both with 2^(bits − 1) added.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, nibbles, unpack_words, whole_bytes
from checker.coded import Bytes, CodeBook, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._compressed_tensors_layout import WORD
from checker.methods._compressed_tensors_scheme import MXFP4, MXFP6, MXFP8, NVFP4, PACKED

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M3 = (*(m / 8 for m in range(8)), *((1 + m / 8) * 2**e for e in range(3) for m in range(8)))
MANTISSA_BITS = {"BF16": 7, "F16": 10, "F32": 23}
E8M0_BIAS = 127
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Codes, scales and tables of one weight whose tensors are known to be complete and of the right size."""
    place = Place.of(weight.grid, window)
    assert isinstance(place.columns, slice)
    rows, columns = place.rows, place.columns
    codes, packed = _codes(checkpoint, weight, rows)
    scales = _scales(checkpoint, weight, rows)
    zeros = _zeros(checkpoint, weight, rows)
    tile = _tile(weight)
    flaw = _calibration_flaw(checkpoint, weight)
    book = _book(weight, packed)
    if weight.attributes.get("act_order"):
        order = _order(checkpoint, weight)
        if order is not None:
            codes, place = codes[:, order], replace(place, columns=order)
    elif columns != slice(0, weight.grid[1]):
        codes = codes[:, columns.start // book.per_byte : math.ceil(columns.stop / book.per_byte)]
        across = slice(columns.start // tile[1], math.ceil(columns.stop / tile[1]))
        scales, zeros = scales[:, across], None if zeros is None else zeros[:, across]
    scaling = Scaling(scales=scales, zeros=zeros, flaw=flaw)
    pieces = tiled(codes, scaling, tile, book, place)
    if beyond := _beyond(weight, codes):
        pieces = tuple(replace(piece, code_book_flaw=beyond) for piece in pieces)
    return pieces


def _tile(weight: StoredWeight) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    attributes, (rows, columns) = weight.attributes, weight.grid
    if attributes["strategy"] in ("group", "tensor_group"):
        return 1, int(str(attributes["group_size"]))
    if attributes["strategy"] == "block":
        return weight.grain
    return (rows, columns) if attributes["strategy"] == "tensor" else (1, columns)


def _codes(checkpoint: Checkpoint, weight: StoredWeight, rows: slice) -> tuple[Bytes, str]:
    """Codes of some rows [rows, bytes], and how they lie in a byte: "" one, "low" two, the low half first."""
    stored, columns = weight.attributes["format"], weight.grid[1]
    data = _rows(checkpoint, weight, weight.weight, rows)
    if stored in (NVFP4, MXFP4):
        return data, "low"
    if stored == MXFP6:
        return _six_bits(data), ""
    if stored != PACKED:
        return data, ""
    bits = int(str(weight.attributes["bits"]))
    if bits == 8:  # noqa: PLR2004 - a byte
        return data[:, :columns], ""
    halves = bits == 4 and columns % 2 == 0 and not weight.attributes.get("act_order")  # noqa: PLR2004
    if halves and _tile(weight)[1] % 2 == 0:
        return data[:, : columns // 2], "low"
    words = np.ascontiguousarray(data).view("<u4").T
    return np.ascontiguousarray(unpack_words(words, bits, columns).T), ""


def _rows(checkpoint: Checkpoint, weight: StoredWeight, name: str, rows: slice) -> Bytes:
    """The bytes of some rows of a tensor, [rows, bytes of a row], by the shape that the layout gives it.

    A tensor of the right size in another shape has been reported; it is read as if it had the right one.
    """
    shape = next(part.shape for part in weight.expected if part.name == name) or ()
    header = checkpoint.tensors[name]
    height = shape[0]
    if header.shape == shape:
        chosen: Bytes = checkpoint.part(name, rows.start, rows.stop).view(np.uint8)
        return chosen.reshape(rows.stop - rows.start, header.nbytes // height)
    return checkpoint.read(name).reshape(height, header.nbytes // height)[rows]


def _six_bits(data: Bytes) -> Bytes:
    """Four codes of 6 bits out of every three bytes, low bits first. [rows, 3 n] → [rows, 4 n]."""
    word = data.reshape(data.shape[0], -1, 3).astype(np.uint32)
    joined = word[..., 0] | word[..., 1] << 8 | word[..., 2] << 16
    codes = np.stack([joined >> shift & 0x3F for shift in (0, 6, 12, 18)], axis=-1)
    return codes.astype(np.uint8).reshape(data.shape[0], -1)


def _scales(checkpoint: Checkpoint, weight: StoredWeight, rows: slice) -> Float32:
    """The scales of some rows, [tile rows, tile columns]; as they multiply codes."""
    name = f"{weight.module}.weight_scale"
    if weight.attributes["strategy"] == "tensor":
        return checkpoint.float32(name).reshape(1, 1)
    high = _tile(weight)[0]
    chosen = slice(rows.start // high, math.ceil(rows.stop / high))
    if weight.attributes["format"] in (MXFP4, MXFP6, MXFP8):
        return _powers()[_rows(checkpoint, weight, name, chosen)]
    found = _numbers(checkpoint, weight, name, chosen)
    if weight.attributes["format"] != NVFP4:
        return found
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # hostile scales are counted and reported
        divided: Float32 = found / checkpoint.float32(f"{weight.module}.weight_global_scale")
    return divided


def _numbers(checkpoint: Checkpoint, weight: StoredWeight, name: str, rows: slice) -> Float32:
    """Some rows of a tensor as float32, by the shape that the layout gives it."""
    shape = next(part.shape for part in weight.expected if part.name == name) or ()
    width = math.prod(shape[1:])
    return checkpoint.float32(name, rows.start * width, rows.stop * width).reshape(rows.stop - rows.start, width)


@cache
def _powers() -> Float32:
    """What an exponent byte of the MX formats stands for; 255 is no number (OCP MX 1.0). Shape [256]."""
    powers = np.exp2(np.arange(256, dtype=np.float64) - E8M0_BIAS)
    powers[255] = np.nan
    return powers.astype(np.float32)


def _zeros(checkpoint: Checkpoint, weight: StoredWeight, rows: slice) -> Float32 | None:
    """Zero points on the scale of the levels, [tile rows, tile columns]; None where there are none."""
    name = f"{weight.module}.weight_zero_point"
    header = checkpoint.tensors.get(name)
    if weight.attributes["symmetric"] or header is None:
        return None
    if header.dtype != "I32":
        if weight.attributes["strategy"] == "tensor":
            return checkpoint.float32(name).reshape(1, 1)
        high = _tile(weight)[0]
        return _numbers(checkpoint, weight, name, slice(rows.start // high, math.ceil(rows.stop / high)))
    bits = int(str(weight.attributes["bits"]))
    first = rows.start // WORD * WORD  # 32 rows fill whole words, whatever the width
    last = min(math.ceil(rows.stop / WORD) * WORD, weight.grid[0])
    chosen = slice(first * bits // WORD, math.ceil(last * bits / WORD))
    words = np.ascontiguousarray(_rows(checkpoint, weight, name, chosen)).view("<u4")
    codes = unpack_words(words, bits, last - first)[rows.start - first : rows.stop - first]
    return codes.astype(np.float32) - np.float32(1 << (bits - 1))


def _order(checkpoint: Checkpoint, weight: StoredWeight) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """Columns sorted by group; None where the order was never set."""
    groups = checkpoint.read(f"{weight.module}.weight_g_idx").view("<i4")
    return None if (groups == -1).any() else np.argsort(groups, kind="stable").astype(np.int64)


def _beyond(weight: StoredWeight, codes: Bytes) -> str:
    """Fewer than eight bits in a byte each: no code may be larger than they allow."""
    bits = int(str(weight.attributes["bits"]))
    if weight.attributes["type"] != "int" or weight.attributes["format"] == PACKED or bits >= 8:  # noqa: PLR2004
        return ""
    values = codes.view(np.int8)
    half = 1 << (bits - 1)
    outside = int(np.count_nonzero((values < -half) | (values >= half)))
    return f"{outside} codes lie outside of {bits} bits" if outside else ""


def _calibration_flaw(checkpoint: Checkpoint, weight: StoredWeight) -> str:
    """What is wrong with scales of activations and of the cache, and with a global scale that fused layers share."""
    for part in weight.expected:
        if part.name.endswith("_scale") and not part.name.endswith("weight_scale") and part.name in checkpoint.tensors:
            values = checkpoint.float32(part.name)
            if not (np.isfinite(values) & (values > 0)).all():
                return f"{part.name} is {values.reshape(-1)[0]:g}; it must be a number above 0"
    parent, _, last = weight.module.rpartition(".")
    group = next((group for group in FUSED if last in group), ())
    if weight.attributes["format"] != NVFP4 or ".experts." in weight.module:
        return ""
    own = checkpoint.float32(f"{weight.module}.weight_global_scale")
    for other in group:
        name = f"{parent}.{other}.weight_global_scale"
        header = checkpoint.tensors.get(name)
        if header is not None and header.dtype == "F32" and checkpoint.float32(name).tobytes() != own.tobytes():
            return f"its global scale differs from {name}; run times that fuse them use one for both"
    return ""


def _book(weight: StoredWeight, packed: str) -> CodeBook:
    attributes = weight.attributes
    stored, bits = str(attributes["format"]), int(str(attributes["bits"]))
    if attributes["type"] == "int":
        symmetric, kind = bool(attributes["symmetric"]), str(attributes.get("scale_dtype", "BF16"))
        return _integers(bits, packed, stored == PACKED, symmetric, MANTISSA_BITS.get(kind, 7))
    return _floats(stored) if stored in (NVFP4, MXFP4, MXFP6, MXFP8) else _floats("")


@cache
def _integers(bits: int, packed: str, biased: bool, symmetric: bool, mantissa: int) -> CodeBook:
    """Integer codes. Predicted error of code q: s²/12 · (1 + 3 u²), u the spacing of the tool's own dtype at q.

    llm-compressor divides in the dtype of the model: w / s is itself rounded, to u = 2^(⌊log₂|q|⌋ − mantissa bits).
    A symmetric scale is amax / (2^(bits − 1) − ½): the largest value of a group lies half a step beyond its code.
    """
    count, half = 1 << bits, 1 << (bits - 1)
    stored_bits = bits if biased else 8
    code = np.arange(1 << stored_bits, dtype=np.int64)
    level = (code - half if biased else code.astype(np.uint8).view(np.int8)).astype(np.float32)
    spacing = np.exp2(np.floor(np.log2(np.maximum(np.abs(level), 1))) - mantissa)
    variance = ((1 + 3 * spacing**2) / 12).astype(np.float32)
    slack = half // 16 or int(not symmetric and bits > 3)  # noqa: PLR2004 - GPTQ moves weights by a step or more
    low, high = -half + slack, half - 1 - slack
    extreme = np.abs(level) >= high if symmetric else (level <= low) | (level >= high)
    symbols = nibbles(high_first=False) if packed else whole_bytes(stored_bits)
    book = code_book(level, symbols, bits=bits, variance=variance, extreme=extreme)
    largest = float(variance[extreme].mean()) - 1 / 4 if symmetric else 0.0
    return replace(book, extreme_variance=largest, symbol_count=count if biased else book.symbol_count)


@cache
def _floats(stored: str) -> CodeBook:
    """Small floats: sign in the highest bit. MX scales are powers of two, so that maxima end within a factor of two."""
    if stored in (NVFP4, MXFP4):
        levels = np.array([*E2M1, *(-value for value in E2M1)], np.float32)
        extreme = np.abs(levels) >= 4  # noqa: PLR2004 - NVFP4 may as well put a maximum on 4 instead of 6
        return code_book(levels, nibbles(high_first=False), bits=4, extreme=extreme)
    if stored == MXFP6:
        levels = np.array([*E2M3, *(-value for value in E2M3)], np.float32)
        return code_book(levels, whole_bytes(6), bits=6, extreme=np.abs(levels) >= 3.75)  # noqa: PLR2004
    import ml_dtypes

    levels = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    book = code_book(levels, whole_bytes(8), bits=8, extreme=np.abs(levels) >= 224)  # noqa: PLR2004 - half of 448
    return book if stored == MXFP8 else replace(book, extreme_variance=16.0**2 / 3)  # 448 is a block's maximum exactly
