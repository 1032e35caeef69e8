"""The numbers of bitsandbytes' weights: code books, nested scales, decoding. Imported when a weight is decoded.

Verified against the library to the last bit: code books equal ``get_4bit_type``, 4-bit values ``dequantize_4bit``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.code_books import blocks_of, code_book, nibbles, whole_bytes
from checker.coded import Bytes, CodeBook, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight

# fmt: off
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)
# fmt: on
FP4 = tuple(x / 12 for x in (0, 0.0625, 8, 12, 4, 6, 2, 3, -0.0, -0.0625, -8, -12, -4, -6, -2, -3))
CODE_BOOKS = {"nf4": np.array(NF4, np.float32), "fp4": np.array(FP4, np.float32)}
LARGEST_CODE = 127  # of int8
DIGITS = 1e-6  # how exactly a nested code book is stored


@cache
def _book(quant_type: str) -> CodeBook:
    levels = CODE_BOOKS[quant_type]
    extreme = np.abs(levels) == 1
    return code_book(levels, nibbles(high_first=True), bits=4, extreme=extreme, exact_extreme=True)


def decode_4bit(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Codes and tables of one weight whose tensors are known to be complete and of the right size."""
    quant_type = str(weight.attributes["quant_type"])
    block_size = int(weight.attributes["block_size"])
    levels = CODE_BOOKS[quant_type]
    zero = int(np.flatnonzero(levels == 0)[0])
    place = Place.of(weight.grid, window)
    assert isinstance(place.columns, slice)
    start, stop = place.columns.start, place.columns.stop
    codes = blocks_of(_packed(checkpoint, weight.weight, start, stop), block_size // 2, zero << 4 | zero)
    blocks = slice(start // block_size, math.ceil(stop / block_size))
    scales, flaw, scale_flaw = _absmax(checkpoint, weight, blocks)
    book = _book(quant_type)
    zeros = (book.levels == 0).all(axis=1)
    scales = _settle_zero_blocks(scales, codes, zeros, weight.attributes["double_quantization"])
    stored = checkpoint.float32(f"{weight.weight}.quant_map")
    if not np.array_equal(stored, levels):
        flaw = f"the stored code book (quant_map) is not that of {quant_type}; kernels that read it decode otherwise"
    coded = CodedWeight(
        place=place,
        tile=(1, block_size),
        book=book,
        codes=codes,
        scaling=Scaling(scales=scales, flaw=scale_flaw),
        padding=codes.size * 2 - (stop - start),
        code_book_flaw=flaw,
    )
    return (coded,)


def _packed(checkpoint: Checkpoint, name: str, start: int, stop: int) -> Bytes:
    """The bytes of values ``start:stop``, whatever type they are stored as."""
    header = checkpoint.tensors[name]
    if stop - start == 2 * header.nbytes or not header.shape:
        return checkpoint.read(name)
    per_item = 2 * header.nbytes // max(header.shape[0], 1)  # values
    data: Bytes = checkpoint.part(name, start // per_item, math.ceil(stop / per_item)).reshape(-1).view(np.uint8)
    return data[: math.ceil((stop - start) / 2)]


def _absmax(checkpoint: Checkpoint, weight: StoredWeight, blocks: slice) -> tuple[Float32, str, str]:
    """One scale a block, double quantization resolved; what is wrong with the nested code book, and with its scales."""
    name = weight.weight
    if not weight.attributes["double_quantization"]:
        return checkpoint.float32(f"{name}.absmax", blocks.start, blocks.stop), "", ""
    codes = checkpoint.part(f"{name}.absmax", blocks.start, blocks.stop)
    book = checkpoint.float32(f"{name}.nested_quant_map")
    group = int(weight.attributes["nested_block_size"])
    first = blocks.start // group
    nested = checkpoint.float32(f"{name}.nested_absmax", first, math.ceil(blocks.stop / group))
    skipped = blocks.start - first * group
    each = np.repeat(nested, group)[skipped : skipped + codes.size]
    with np.errstate(invalid="ignore", over="ignore"):  # hostile scales are reported, not warned about
        scales = book[codes] * each + np.float32(weight.attributes["nested_offset"])
    canonical = bool(np.abs(book - dynamic_map()).max() <= DIGITS)
    flaw = "" if canonical else "nested_quant_map is not bitsandbytes' dynamic 8-bit code book"
    return scales, flaw, _nested_flaw(codes, nested, group) if not skipped else ""


def _nested_flaw(codes: Bytes, nested: Float32, group: int) -> str:
    """A nested scale of zero is right only where all scales of the group were equal, and so their codes are."""
    for index in np.flatnonzero(nested == 0).tolist():
        members = codes[index * group : (index + 1) * group]
        if (members != members[0]).any():
            return f"nested_absmax is zero over {members.size} scales that differ"
    return ""


def _settle_zero_blocks(scales: Float32, codes: Bytes, zero_byte: npt.NDArray[np.bool_], nested: bool) -> Float32:
    """Scales of blocks of zeros back to 0: the library puts 1e-38 there, double quantization its own rounding error.

    That error is at most half the widest gap of the 8-bit code book, 0.007, of a nested scale, which is no larger than
    the largest scale. Shapes: scales [blocks], codes [blocks, bytes per block], zero_byte [256].
    """
    finite = np.abs(scales[np.isfinite(scales)])
    bound = max(1e-37, 0.0075 * float(finite.max(initial=0)) if nested else 0)
    small = np.flatnonzero(np.abs(scales) <= bound)
    scales[small[np.take(zero_byte, codes[small]).all(axis=1)]] = 0
    return scales


@cache
def dynamic_map() -> Float32:
    """The signed dynamic 8-bit code book: 7 exponent bits, linear fractions, 0 and 1 (arXiv:1511.04561). Shape [256].

    Source: ``create_dynamic_map`` in bitsandbytes/functional.py.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        bounds = np.linspace(0.1, 1, 2**exponent + 1, dtype=np.float32)
        means = (bounds[:-1] + bounds[1:]) / 2 * np.float32(10.0 ** (exponent - 6))
        values += [*means.tolist(), *(-means).tolist()]
    return np.array(sorted(values), np.float32)


def decode_8bit(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Codes in rows; a byte is one value in two's complement, and a row's largest magnitude is ±127 exactly."""
    place = Place.of(weight.grid, window)
    rows = place.rows
    with np.errstate(invalid="ignore"):
        scales = checkpoint.float32(f"{weight.module}.SCB", rows.start, rows.stop) / np.float32(LARGEST_CODE)
    codes = checkpoint.part(weight.weight, rows.start, rows.stop).view(np.uint8)
    book = _int8_book()
    return tiled(codes, Scaling(scales=scales[:, None]), (1, weight.grid[1]), book, place)


@cache
def _int8_book() -> CodeBook:
    levels = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
    book = code_book(
        levels,
        whole_bytes(8),
        bits=8,
        variance=np.full(256, 1 / 12, np.float32),
        extreme=np.abs(levels) >= LARGEST_CODE,
        exact_extreme=True,
    )
    return replace(book, symbol_count=255)  # -128 is never used
